"""The index that curators share in a real Redis: it answers as the one in the process, and loses nothing unseen."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

import pytest
from datasketch import MinHash

from jupiter.curator.shared_index import SharedStore
from jupiter.errors import Retry, Unavailable
from jupiter.overlap.signatures import NearDuplicateIndex, own_size, sketch
from tests.servers import RedisServer

pytestmark = [pytest.mark.connected, pytest.mark.timeout(300)]

THRESHOLD = 0.85
WORDS = [f"word{number}" for number in range(300)]


def shared(server: RedisServer, domain: str = "made_up") -> NearDuplicateIndex:
    return NearDuplicateIndex(threshold=THRESHOLD, store=SharedStore(server.url, domain=domain, threshold=THRESHOLD))


def texts_with_near_copies(seed: int, count: int) -> list[list[str]]:
    """Return texts of 20-120 words; every other one is an earlier one with up to two words changed."""
    rng = random.Random(seed)
    texts: list[list[str]] = []
    for number in range(count):
        text = list(rng.choice(texts)) if number % 2 else rng.choices(WORDS, k=rng.randint(20, 120))
        for _ in range(rng.randint(0, 2) if number % 2 else 0):
            text[rng.randrange(len(text))] = rng.choice(WORDS)
        texts.append(text)
    return texts


def signature_of(text: list[str], sketched: Mapping[int, MinHash]) -> MinHash:
    return sketched[own_size(len(text))]


def test_it_answers_as_the_index_in_the_process_does(redis_server: RedisServer) -> None:
    texts = texts_with_near_copies(seed=7, count=60)
    sketches = sketch(texts)
    alone, one, other = NearDuplicateIndex(threshold=THRESHOLD), shared(redis_server), shared(redis_server)
    found = 0
    for number, (text, sketched) in enumerate(zip(texts, sketches, strict=True)):
        expected = alone.find(sketched)
        assert one.find(sketched) == other.find(sketched) == expected
        found += expected is not None
        for index in (alone, one, other):  # as two curators do that read the same shard
            index.add_group(f"shard-{number}", {f"sample-{number}": signature_of(text, sketched)})
    assert 5 < found < 55, "the texts must have near-duplicates, and others"
    assert len(one) == len(other) == len(alone)


def test_what_this_curator_has_not_read_counts_for_nothing(redis_server: RedisServer) -> None:
    """A curator that is ahead, a stranger, work whose manifest lost its race: in Redis, but in no shard read here."""
    [text] = texts_with_near_copies(seed=1, count=1)
    [sketched] = sketch([text])
    ahead, here = shared(redis_server), shared(redis_server)
    ahead.add_group("lost", {"sample": signature_of(text, sketched)})
    assert ahead.find(sketched) == ("sample", 1.0)
    assert here.find(sketched) is None
    assert "sample" not in here
    here.add_group("shard", {"another": signature_of(text, sketched)})
    assert here.find(sketched) == ("another", 1.0)
    assert here.without({"another"}).find(sketched) is None


def test_domains_and_thresholds_do_not_meet(redis_server: RedisServer) -> None:
    [text] = texts_with_near_copies(seed=2, count=1)
    [sketched] = sketch([text])
    shared(redis_server).add_group("shard", {"sample": signature_of(text, sketched)})
    keys = {bytes(key) for key in redis_server.client().scan_iter()}
    shared(redis_server, "another").add_group("shard", {"sample": signature_of(text, sketched)})
    new = {bytes(key) for key in redis_server.client().scan_iter()} - keys
    assert len(new) == len(keys), "two domains share a key"


@pytest.mark.parametrize("loss", ["restarted", "emptied", "killed and its disk lost"])
def test_every_loss_is_noticed_and_the_index_filled_again(loss: str, redis_server: RedisServer, tmp_path: Path) -> None:
    [text] = texts_with_near_copies(seed=3, count=1)
    [sketched] = sketch([text])
    signatures = {"sample": signature_of(text, sketched)}
    index = shared(redis_server)
    index.add_group("shard", signatures)
    whole_before = index.intact
    if loss == "emptied":
        redis_server.client().flushall()
    else:
        redis_server.kill9()
        with pytest.raises(Unavailable, match="Redis at 127"):
            index.find(sketched)
        if "disk" in loss:
            for file in tmp_path.glob("appendonly*"):
                file.unlink()
        redis_server.start()
    assert (whole_before, index.intact) == (True, False)
    again = shared(redis_server)
    assert again.intact
    again.add_group("shard", signatures)
    assert again.find(sketched) == ("sample", 1.0)
    late = shared(redis_server)
    late.add_group("shard", signatures)  # marked by now: nothing is written, everything is found
    assert late.find(sketched) == ("sample", 1.0)


def test_a_shard_half_written_is_written_again(redis_server: RedisServer) -> None:
    """A curator killed before the mark leaves signatures and some buckets; the next one completes them."""
    texts = texts_with_near_copies(seed=4, count=8)
    sketches = sketch(texts)
    signatures = {
        f"sample-{n}": signature_of(text, sketched)
        for n, (text, sketched) in enumerate(zip(texts, sketches, strict=True))
    }
    shared(redis_server).add_group("shard", signatures)
    client = redis_server.client()
    [marks] = client.keys("*:groups")
    client.delete(marks)
    for key in sorted(client.keys("*:lsh*"))[::2]:
        client.delete(key)
    again = shared(redis_server)
    again.add_group("shard", signatures)
    assert all(again.find(sketched) is not None for sketched in sketches)


def test_a_server_that_evicts_is_refused(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, evicts=True)
    server.start()
    try:
        with pytest.raises(Retry, match="set maxmemory-policy noeviction"):
            shared(server)
    finally:
        server.stop()


def test_the_password_is_in_no_message(redis_server: RedisServer) -> None:
    url = redis_server.url.replace("redis://", "redis://:secret-word@")
    redis_server.stop()
    with pytest.raises(Unavailable, match="127") as refused:
        SharedStore(url, domain="made_up", threshold=THRESHOLD)
    assert "secret-word" not in str(refused.value)
