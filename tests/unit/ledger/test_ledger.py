"""The hash chain: what it proves and what it answers."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupiter import keys
from jupiter.blobs.memory import MemoryBlobs
from jupiter.errors import IntegrityError
from jupiter.ledger import (
    GENESIS_HASH,
    LedgerEntry,
    current,
    entry_hash,
    live_at,
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
