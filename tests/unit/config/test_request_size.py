"""A request never grows past what an event may have: the configuration that would make one is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jupiter.bus.codec import encode
from jupiter.config import ClusterConfig, DomainConfig
from jupiter.config.loading import load_domain_of
from jupiter.config.request_size import check_request_size
from jupiter.errors import ConfigError, Rejected
from jupiter.events import GenerationItem, GenerationRequested
from jupiter.records import Sampling


def cluster(samples: int) -> ClusterConfig:
    return ClusterConfig.model_validate({"domain": "birds", "controller": {"samples_per_request": samples}})


def domain(*audiences: str) -> DomainConfig:
    tasks = [{"task": "rewrite"}, {"task": "question_answer"}]
    return DomainConfig.model_validate(
        {"name": "birds", "description": "Birds.", "tasks": tasks, "audiences": audiences}
    )


def longest_request(samples: int, audience: str) -> GenerationRequested:
    item = GenerationItem(
        document_id="f" * 64,
        chunk_index=99_999,
        task="question_answer",
        audience=audience,
        difficulty="advanced",
        seed=2**31 - 1,
    )
    return GenerationRequested(
        domain="birds",
        request_id="f" * 64,
        generator_version=12,
        sequence=100_000,
        items=(item,) * samples,
        sampling=Sampling(),
    )


@pytest.mark.parametrize("audience", ["a" * 87, "ж" * 45, '"' * 45, "\x01" * 15, "😀" * 23])
def test_texts_that_would_not_fit_are_refused_with_the_number_that_fits(audience: str) -> None:
    with pytest.raises(Rejected):
        encode(longest_request(256, audience), source="test")
    with pytest.raises(ConfigError, match=r"samples_per_request is 256: .* 'birds' a request has \d+ bytes") as caught:
        check_request_size(cluster(256), domain("a", audience))
    found = re.search(r"set controller.samples_per_request to (\d+) at most", str(caught.value))
    assert found
    fitting = int(found[1])
    check_request_size(cluster(fitting), domain("a", audience))
    encode(longest_request(fitting, audience), source="test")
    with pytest.raises(ConfigError):
        check_request_size(cluster(fitting + 1), domain("a", audience))


def test_of_a_text_longer_than_an_event_only_the_text_is_to_blame() -> None:
    with pytest.raises(ConfigError, match=r"65536; shorten them$"):
        check_request_size(cluster(1), domain("a" * 70_000))


def test_loading_the_domain_of_a_deployment_refuses_it(tmp_path: Path) -> None:
    (tmp_path / "birds.yaml").write_text(f"description: Birds.\ntasks: [{{task: rewrite}}]\naudiences: [{'ж' * 60}]\n")
    assert load_domain_of(cluster(64), tmp_path).name == "birds"
    with pytest.raises(ConfigError, match=r"or shorten them"):
        load_domain_of(cluster(256), tmp_path)
