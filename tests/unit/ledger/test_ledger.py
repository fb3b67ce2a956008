"""The hash chain: what it proves and what it answers."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from jupiter import keys
from jupiter.blobs.memory import MemoryBlobs
from jupiter.errors import IntegrityError
from jupiter.ledger import (
    GENESIS_HASH,
    LedgerEntry,
    current,
    entry_hash,
    entry_of_version,
    flips,
    live_at,
    opening_of,
    openings,
    previous_live,
    read_ledger,
    verify,
)
from jupiter.records import canonical_json, digest_of

DOMAIN = "testing"
START = datetime(2026, 1, 1, tzinfo=UTC)

versions = st.lists(st.integers(1, 5), min_size=1, max_size=8)


def chain(of: list[int]) -> list[LedgerEntry]:
    """A ledger in which these versions were live one after the other, a minute each."""
    entries: list[LedgerEntry] = []
    for sequence, version in enumerate(of, start=1):
        before = entries[-1] if entries else None
        entries.append(
            LedgerEntry(
                domain=DOMAIN,
                sequence=sequence,
                action="promoted" if before else "registered",
                version=version,
                previous_version=before.version if before else None,
                manifest_key=f"generators/{DOMAIN}/v{version}/manifest.json",
                manifest_sha256=digest_of(version),
                actor="test",
                reason="because",
                time=(START + timedelta(minutes=sequence)).isoformat(timespec="milliseconds"),
                previous_hash=entry_hash(before) if before else GENESIS_HASH,
            )
        )
    return entries


def stored(entries: list[LedgerEntry]) -> MemoryBlobs:
    blobs = MemoryBlobs()
    for entry in entries:
        assert blobs.create(keys.ledger_key(DOMAIN, entry.sequence), canonical_json(entry))
    return blobs


def test_no_ledger_is_empty() -> None:
    assert read_ledger(MemoryBlobs(), DOMAIN) == ()
    assert current(()) is None
    assert previous_live(()) is None


@given(versions)
def test_what_was_written_is_read(of: list[int]) -> None:
    entries = chain(of)
    assert read_ledger(stored(entries), DOMAIN) == tuple(entries)
    assert current(entries) == entries[-1]


@given(of=versions, data=st.data())
def test_any_changed_byte_is_found_unless_it_is_the_newest_entry_rewritten_whole(
    of: list[int], data: st.DataObject
) -> None:
    """Every entry is held by the hash in the next; the newest by the announcement on the bus."""
    entries = chain([*of, 1])
    index = data.draw(st.integers(0, len(entries) - 2))
    raw = [bytearray(canonical_json(entry)) for entry in entries]
    position = data.draw(st.integers(0, len(raw[index]) - 1))
    raw[index][position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(IntegrityError):
        verify([bytes(one) for one in raw], domain=DOMAIN)


@given(of=versions, data=st.data())
def test_an_honestly_encoded_edit_is_found(of: list[int], data: st.DataObject) -> None:
    entries = chain([*of, 1])
    index = data.draw(st.integers(0, len(entries) - 2))
    entries[index] = entries[index].model_copy(update={"reason": "rewritten"})
    with pytest.raises(IntegrityError, match=rf"entry {index + 2} of {DOMAIN}"):
        read_ledger(stored(entries), DOMAIN)


@given(of=versions, data=st.data())
def test_a_deleted_entry_is_found(of: list[int], data: st.DataObject) -> None:
    entries = chain([*of, 1, 2])
    blobs = stored(entries)
    blobs.delete(keys.ledger_key(DOMAIN, data.draw(st.integers(1, len(entries) - 1))))
    with pytest.raises(IntegrityError, match="deleted"):
        read_ledger(blobs, DOMAIN)


@given(of=st.lists(st.integers(1, 5), min_size=2, max_size=8, unique=True), data=st.data())
def test_swapped_entries_are_found(of: list[int], data: st.DataObject) -> None:
    entries = chain(of)
    raw = [canonical_json(entry) for entry in entries]
    index = data.draw(st.integers(0, len(raw) - 2))
    raw[index], raw[index + 1] = raw[index + 1], raw[index]
    with pytest.raises(IntegrityError):
        verify(raw, domain=DOMAIN)


def test_another_encoding_of_the_same_entry_is_found() -> None:
    entry = chain([1])[0]
    loose = json.dumps(json.loads(canonical_json(entry)), indent=1).encode()
    with pytest.raises(IntegrityError, match="canonical"):
        verify([loose], domain=DOMAIN)


def test_an_entry_with_a_field_too_many_is_refused() -> None:
    """The ledger is the one record that must be understood whole: what an entry sets off may hang on any field."""
    [entry] = chain([1])
    with pytest.raises(IntegrityError, match="readable"):
        verify([canonical_json({**entry.model_dump(mode="json"), "not_known_yet": 1})], domain=DOMAIN)


def test_a_ledger_of_another_domain_is_refused() -> None:
    with pytest.raises(IntegrityError, match="entry 1 of testing"):
        verify([canonical_json(chain([1])[0])], domain="other")


@given(versions)
def test_live_at_is_the_newest_entry_not_after_the_time(of: list[int]) -> None:
    entries = chain(of)
    assert live_at(entries, START) is None
    for entry in entries:
        since = datetime.fromisoformat(entry.time)
        assert live_at(entries, since) == entry
        assert live_at(entries, since + timedelta(seconds=59)) == entry
    assert live_at(entries, START + timedelta(days=1)) == entries[-1]


@pytest.mark.parametrize(
    ("of", "expected"),
    [([1], None), ([1, 2], 1), ([1, 2, 3], 2), ([1, 2, 1], None), ([1, 2, 3, 2], 1), ([1, 2, 1, 3], 1)],
)
def test_default_rollback_goes_to_what_the_live_version_replaced(of: list[int], expected: int | None) -> None:
    target = previous_live(chain(of))
    assert (target.version if target else None) == expected


def opened(entries: list[LedgerEntry], evaluation: str, *, benchmark: str = "first") -> list[LedgerEntry]:
    """The chain with one opening of the sealed half at its end."""
    live = current(entries)
    assert live is not None
    fields = {
        **live.model_dump(),
        "sequence": len(entries) + 1,
        "action": "opened",
        "previous_version": live.version,
        "evaluation_id": digest_of(evaluation),
        "benchmark_digest": digest_of(benchmark),
        "opening": 1 + len(openings(entries, version=live.version)),
        "previous_hash": entry_hash(entries[-1]),
    }
    return [*entries, LedgerEntry.model_validate(fields)]


def promoted(entries: list[LedgerEntry], version: int) -> list[LedgerEntry]:
    live = current(entries)
    assert live is not None
    fields = {
        "sequence": len(entries) + 1,
        "action": "promoted",
        "version": version,
        "previous_version": live.version,
        "manifest_sha256": digest_of(version),
        "previous_hash": entry_hash(entries[-1]),
    }
    return [*entries, live.model_copy(update=fields)]


def test_an_entry_of_before_there_were_openings_keeps_its_bytes() -> None:
    """The chain of an older release: neither its hashes nor its canonical form change."""
    assert set(json.loads(canonical_json(chain([1])[0]))) == {
        *("schema_version", "domain", "sequence", "action", "version", "previous_version", "checkpoint_id"),
        *("evaluation_id", "manifest_key", "manifest_sha256", "evidence_sha256", "actor", "reason", "time"),
        *("idempotency_key", "previous_hash"),
    }
    assert entry_hash(chain([1])[0]) == "dabd8b81f2a16d8c44f00cc792ad9c1545201926cc35f30ee4d2ed4ec0a07383"


def test_an_opening_flips_nothing_and_is_counted_against_the_live_version() -> None:
    entries = opened(opened(chain([1, 2]), "a"), "b", benchmark="second")
    entries = opened(promoted(entries, 3), "c")
    assert read_ledger(stored(entries), DOMAIN) == tuple(entries)
    live = current(entries)
    assert live is not None
    assert (live.version, live.action) == (3, "promoted")
    before = previous_live(entries)
    assert before is not None
    assert before.version == 2
    assert [entry.version for entry in flips(entries)] == [1, 2, 3]
    assert [entry.opening for entry in openings(entries, version=2)] == [1, 2]
    assert [entry.opening for entry in openings(entries, version=3)] == [1]
    assert len(openings(entries, benchmark_digest=digest_of("first"))) == 2
    assert opening_of(entries, digest_of("b")) == entries[3]
    assert opening_of(entries, digest_of("x")) is None
    found = entry_of_version(entries, 2)
    assert found is not None
    assert found.action == "promoted"


def test_a_rollback_forgets_no_opening() -> None:
    entries = opened(promoted(promoted(opened(chain([1]), "a"), 2), 1), "b")
    assert read_ledger(stored(entries), DOMAIN)[-1].opening == 2


@pytest.mark.parametrize(("field", "value"), [("opening", 1), ("version", 2), ("manifest_sha256", digest_of("other"))])
def test_an_opening_that_lies_about_its_number_or_the_generator_is_found(field: str, value: object) -> None:
    entries = opened(opened(chain([1]), "a"), "b")
    entries[-1] = entries[-1].model_copy(update={field: value})
    with pytest.raises(IntegrityError, match="ledger entry 3"):
        read_ledger(stored(entries), DOMAIN)


@pytest.mark.parametrize(
    "fields",
    [{"action": "opened"}, {"opening": 1}, {"benchmark_digest": digest_of("b")}, {"quarantined": True}],
)
def test_fields_that_do_not_belong_to_an_action_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        LedgerEntry.model_validate({**chain([1, 2])[1].model_dump(), **fields})
