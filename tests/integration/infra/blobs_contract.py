"""What both object stores promise. `test_blobs_contract.py` runs these on the in-memory and on the real one."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jupiter import manifests
from jupiter.blobs import Blobs
from jupiter.errors import IntegrityError, NotFound


def put_and_get(blobs: Blobs, prefix: str, tmp_path: Path) -> None:
    blobs.put(f"{prefix}/a", b"one")
    assert blobs.get(f"{prefix}/a") == b"one"
    blobs.put(f"{prefix}/empty", b"")
    assert blobs.get(f"{prefix}/empty") == b""
    with pytest.raises(NotFound, match="none"):
        blobs.get(f"{prefix}/none")


def create_is_won_once(blobs: Blobs, prefix: str, tmp_path: Path) -> None:
    assert blobs.create(f"{prefix}/m", b"one") is True
    assert blobs.create(f"{prefix}/m", b"two") is False
    assert blobs.create(f"{prefix}/m", b"one") is False
    assert blobs.get(f"{prefix}/m") == b"one"


def a_race_has_one_winner(blobs: Blobs, prefix: str, tmp_path: Path) -> None:
    for race in range(5):
        key = f"{prefix}/race/{race}"

        def attempt(number: int, key: str = key) -> bool:
            return blobs.create(key, b"writer %d" % number)

        with ThreadPoolExecutor(6) as pool:
            won = list(pool.map(attempt, range(6)))
        assert won.count(True) == 1
        assert blobs.get(key) == b"writer %d" % won.index(True)


def files_round_trip(blobs: Blobs, prefix: str, tmp_path: Path) -> None:
    content = bytes(range(256)) * 4096 * 12  # 12 MiB: more than one part
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(content)
    sha256 = blobs.put_file(f"{prefix}/file", source)
    assert sha256 == hashlib.sha256(content).hexdigest()
    blobs.get_file(f"{prefix}/file", target, sha256=sha256, size=len(content))
    assert target.read_bytes() == content
    assert blobs.stat(f"{prefix}/file") is not None
    source.write_bytes(b"")
    blobs.put_file(f"{prefix}/nothing", source)
    assert blobs.get(f"{prefix}/nothing") == b""


def a_wrong_file_never_appears(blobs: Blobs, prefix: str, tmp_path: Path) -> None:
    blobs.put(f"{prefix}/a", b"content")
    right = hashlib.sha256(b"content").hexdigest()
    target = tmp_path / "target"
    target.write_bytes(b"before")
    for sha256, size in (("0" * 64, 7), (right, 6), (right, 8)):
        with pytest.raises(IntegrityError):
            blobs.get_file(f"{prefix}/a", target, sha256=sha256, size=size)
    with pytest.raises(NotFound):
        blobs.get_file(f"{prefix}/none", target, sha256=right, size=7)
    assert target.read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def listing_is_by_prefix_and_ordered(blobs: Blobs, prefix: str, tmp_path: Path) -> None:
    for name in ("b/2", "b/1", "a", "c"):
        blobs.put(f"{prefix}/{name}", name.encode())
    assert [info.key for info in blobs.list(f"{prefix}/b/")] == [f"{prefix}/b/1", f"{prefix}/b/2"]
    assert [info.size for info in blobs.list(f"{prefix}/")] == [1, 3, 3, 1]
    assert list(blobs.list(f"{prefix}/none/")) == []


def deleting_is_idempotent(blobs: Blobs, prefix: str, tmp_path: Path) -> None:
    blobs.put(f"{prefix}/a", b"one")
    for _ in range(2):
        blobs.delete(f"{prefix}/a")
    assert blobs.stat(f"{prefix}/a") is None
    assert blobs.create(f"{prefix}/a", b"two") is True


def a_commit_has_one_manifest(blobs: Blobs, prefix: str, tmp_path: Path) -> None:
    def work(number: int) -> manifests.Committed:
        ref = manifests.upload_bytes(blobs, prefix=prefix, name="data", data=b"%d" % number)
        return manifests.commit(
            blobs, prefix=prefix, kind="batch", domain="d", work_id="w", files=(ref,), details={"by": number}
        )

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(work, range(4)))
    assert sum(one.won for one in done) == 1
    assert len({(one.sha256, one.key) for one in done}) == 1
    found = manifests.find(blobs, prefix)
    assert found is not None
    manifests.fetch(blobs, found.manifest, tmp_path / "work")
    assert (tmp_path / "work" / "data").read_bytes() == b"%d" % found.manifest.details["by"]


def a_ready_store_says_so(blobs: Blobs, prefix: str, tmp_path: Path) -> None:
    blobs.ready()


CONTRACT = (
    put_and_get,
    create_is_won_once,
    a_race_has_one_winner,
    files_round_trip,
    a_wrong_file_never_appears,
    listing_is_by_prefix_and_ordered,
    deleting_is_idempotent,
    a_commit_has_one_manifest,
    a_ready_store_says_so,
)
