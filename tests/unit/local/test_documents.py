"""The built-in documents of a domain are published once."""

from __future__ import annotations

from pathlib import Path

import pytest

from jupiter.bus.memory import MemoryBus
from jupiter.config import ClusterConfig
from jupiter.local.documents import publish, publish_source
from jupiter.records import PublishedDocument


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClusterConfig:
    (tmp_path / "config" / "domains").mkdir(parents=True)
    for name, source in (("kitchen", "null"), ("python_stdlib", "python_stdlib")):
        description = f"description: any\nsource: {source}\ntasks: [{{task: restate}}]\n"
        (tmp_path / "config" / "domains" / f"{name}.yaml").write_text(description)
    monkeypatch.chdir(tmp_path)
    return ClusterConfig.model_validate({"data_dir": tmp_path, "local": {"source_entries_max": 20}})


def three(name: str, *, entries_max: int | None) -> list[PublishedDocument]:
    """A source that is read faster than the standard library."""
    assert (name, entries_max) == ("python_stdlib", 20)
    return [PublishedDocument(text=f"text {number}", source="urn:test") for number in range(3)]


async def test_the_source_is_published_at_the_first_start_only(config: ClusterConfig) -> None:
    bus = MemoryBus()
    await bus.start()
    published = await publish_source(config, bus, source=three)
    assert published == 3
    assert await bus.last_sequence("documents") == published
    assert await publish_source(config, bus, source=three) == 0


async def test_an_interrupted_publication_is_done_again_and_doubles_nothing(config: ClusterConfig) -> None:
    bus = MemoryBus()
    await bus.start()
    published = await publish_source(config, bus, source=three)
    (config.data_dir / f"published-{config.domain}").unlink()
    assert await publish_source(config, bus, source=three) == published
    assert await bus.last_sequence("documents") == published


async def test_a_domain_without_a_source_publishes_nothing(config: ClusterConfig) -> None:
    bus = MemoryBus()
    await bus.start()
    assert await publish_source(config.model_copy(update={"domain": "kitchen"}), bus, source=three) == 0
    assert await bus.last_sequence("documents") == 0


async def test_more_documents_than_are_sent_together_all_arrive() -> None:
    bus = MemoryBus()
    await bus.start()
    documents = (PublishedDocument(text=f"text {number}", source="urn:test") for number in range(100))
    assert await publish(bus, "kitchen", documents) == 100
    assert await bus.last_sequence("documents") == 100
