"""Subjects, names and the wire form."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from jupiter.bus.codec import channels, consumer_name, decode, encode, matches
from jupiter.events import event_types
from tests.integration.infra.bus_contract import shard

TOKENS = st.lists(st.sampled_from(["a", "b", "cc"]), min_size=1, max_size=4)


def test_an_event_comes_back_as_it_went() -> None:
    event = shard("birds", 3)
    encoded = encode(event, source="jupiter/curator/one")
    assert decode(encoded.data, encoded.headers) == event
    assert decode(encoded.data, {name.title(): value for name, value in encoded.headers.items()}) == event
    assert encoded.message_id == encoded.headers["ce-id"] == shard("birds", 3).event_id


def test_the_same_fact_has_the_same_id_and_another_has_not() -> None:
    assert shard("birds", 3).event_id == shard("birds", 3).model_copy(update={"tokens": 9}).event_id
    assert len({shard("birds", 3).event_id, shard("birds", 4).event_id, shard("fish", 3).event_id}) == 3


def test_every_event_has_a_channel() -> None:
    assert {cls.channel for cls in event_types().values()} < set(channels())


@given(TOKENS)
def test_patterns_cover_what_they_name(tokens: list[str]) -> None:
    subject = ".".join(tokens)
    assert matches(subject, subject)
    assert matches(".".join("*" for _ in tokens), subject)
    assert matches(">", subject)
    assert not matches(f"{subject}.>", subject)
    assert matches(f"{subject}.>", f"{subject}.more")
    assert not matches(f"{subject}.*", subject)
    assert not matches(subject, f"{subject}.more")


@given(st.text(min_size=1, max_size=20), st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True))
def test_a_consumer_name_is_one_token(durable: str, domain: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]+", consumer_name(durable, f"shards.{domain}"))
    assert consumer_name("curator", f"shards.{domain}") != consumer_name("curator", f"shards.{domain}x")
