"""The near-duplicate index that several curators share: datasketch's LSH in Redis, the signatures beside it.

Owns: the keys in Redis, what is written in which order, noticing that Redis lost something.
Does not know: which texts are compared (`signatures`), nor how a lost index is filled again (`knowledge`).

Redis is a cache of the shards, never the truth. A curator writes a shard here only when it has read the shard's event,
so after its manifest was created: work that lost the race for a manifest never comes near it. And it believes a
proposal only of shards that it has read itself, so a curator that is ahead, or a stranger's entry, changes nothing.
What Redis must not do is forget in silence. A shard is marked after its texts, so whatever part of the log a restart
keeps, a mark means that the texts are there; a restart shows by the server's run id, an emptied database by an epoch
that is gone. Either makes the index not `intact`, and the shards are read again. Eviction would show by neither, so a
server that evicts is refused.

Keys are stored as they are (`prepickle=False`): who can write to Redis must not be able to run code in a curator.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import redis
from datasketch import MinHash, MinHashLSH
from redis.connection import parse_url

from jupiter.errors import Retry, Unavailable
from jupiter.overlap.signatures import PERMUTATIONS, SCHEME, bands, from_values

__all__ = ["SharedStore"]

CONNECT_S = 3.0
ANSWER_S = 10.0
IDLE_S = 30
"""A connection that was idle for so long is tried with a ping before it is used."""
REFUSED_S = 15.0
"""Before a server that evicts is looked at again."""
NO_EVICTION = "noeviction"


class SharedStore:
    """See `signatures.Store`. Every curator of a domain with the same threshold finds the same keys."""

    def __init__(self, url: str, *, domain: str, threshold: float) -> None:
        """Connect. Raises Unavailable, or Retry where the server is set to evict."""
        options = _options(url)
        self._redis = redis.Redis(**options)
        settings = f"{SCHEME}:{PERMUTATIONS}:{bands(threshold)}"
        name = f"jupiter:{domain}:near_duplicates:{hashlib.sha256(settings.encode()).hexdigest()[:16]}"
        self._groups, self._values, self._epoch_key = f"{name}:groups", f"{name}:signatures", f"{name}:epoch"
        with _answering(url):
            self._refuse_eviction()
            self._lsh = MinHashLSH(
                num_perm=PERMUTATIONS,
                params=bands(threshold),
                storage_config={"type": "redis", "basename": f"{name}:lsh".encode(), "redis": options},
                prepickle=False,
            )
            self._redis.set(self._epoch_key, secrets.token_hex(16), nx=True)
            self._seen = self._now()
        self._url = url

    def insert(self, group: str, signatures: Mapping[str, MinHash]) -> None:
        """Write signatures, then buckets, then the mark; killed in between, the next curator writes the same again."""
        with _answering(self._url):
            if self._redis.sismember(self._groups, group):
                return
            if signatures:
                values = {key: _bytes_of(signature) for key, signature in signatures.items()}
                self._redis.hset(self._values, mapping=values)
                with self._lsh.insertion_session() as session:
                    for key, signature in signatures.items():
                        session.insert(key.encode(), signature, check_duplication=False)
            self._redis.sadd(self._groups, group)

    def alike(self, signature: MinHash) -> set[str]:
        with _answering(self._url):
            return {bytes(key).decode() for key in self._lsh.query(signature)}

    def signatures(self, keys: Collection[str]) -> Mapping[str, MinHash]:
        """Raises Retry where Redis proposed a text and has no signature of it: it is losing data just now."""
        with _answering(self._url):
            found = self._redis.hmget(self._values, list(keys))
        if None in found:
            raise Retry("Redis lost signatures while they were read; looking again", delay_s=CONNECT_S, counts=False)
        return {key: _signature_of(data) for key, data in zip(keys, found, strict=True)}

    def intact(self) -> bool:
        with _answering(self._url):
            return self._now() == self._seen

    def _now(self) -> tuple[str, bytes | None]:
        """Return what changes when the server restarts, fails over or is emptied."""
        return str(self._redis.info("server")["run_id"]), self._redis.get(self._epoch_key)

    def _refuse_eviction(self) -> None:
        policy = self._redis.info("memory").get("maxmemory_policy", NO_EVICTION)
        if policy != NO_EVICTION:
            raise Retry(
                f"the Redis of curator.redis_url evicts keys (maxmemory-policy {policy}), so duplicates would pass "
                f"unseen; set maxmemory-policy {NO_EVICTION}",
                delay_s=REFUSED_S,
                counts=False,
            )


def _options(url: str) -> dict[str, Any]:
    """Return the arguments of `redis.Redis` for a redis:// or rediss:// address; datasketch wants them apart too."""
    options: dict[str, Any] = dict(parse_url(url))
    options.pop("connection_class", None)
    options["ssl"] = url.startswith("rediss://")
    return {
        "socket_connect_timeout": CONNECT_S,
        "socket_timeout": ANSWER_S,
        "health_check_interval": IDLE_S,
        **options,
    }


@contextmanager
def _answering(url: str) -> Iterator[None]:
    """Say which server failed, without the password in its address."""
    try:
        yield
    except redis.RedisError as error:
        place = url.rsplit("@", 1)[-1].removeprefix("redis://").removeprefix("rediss://")
        raise Unavailable(f"Redis at {place}: {error}") from error


def _bytes_of(signature: MinHash) -> bytes:
    return np.asarray(signature.hashvalues, dtype="<u4").tobytes()


def _signature_of(data: bytes) -> MinHash:
    return from_values(np.frombuffer(data, dtype="<u4").astype(np.uint32))
