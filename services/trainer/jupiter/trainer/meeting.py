"""How the processes of one start find each other, and nobody else.

Owns: a part of torchrun's store that no earlier start has written to. Does not know: process groups.

torchrun keeps one store over all restarts, and torch's process groups find each other by fixed names in it: a process
that is quick after a restart reads the address of one that is dead. So each start gets a name of its own. A follower
asks under a word that it has just made up, and only rank 0 of the same start answers to that.
"""

from __future__ import annotations

import time
import uuid
from datetime import timedelta
from typing import Any

from torch._C._distributed_c10d import PrefixStore

from jupiter.errors import Unavailable

__all__ = ["meet"]

POLL_S = 0.1


def meet(store: Any, *, rank: int, size: int, wait_s_max: float) -> Any:
    """Return the store for this start alone, once all ranks are there. Raises Unavailable when they do not come."""
    if rank == 0:
        name = _invite(store, size=size, wait_s_max=wait_s_max)
    else:
        word = uuid.uuid4().hex
        store.set(_asks(rank), word)
        store.wait([_answer(word)], timedelta(seconds=wait_s_max))
        name = store.get(_answer(word)).decode()
        store.set(_came(name, rank), "")
    return PrefixStore(name, store)


def _invite(store: Any, *, size: int, wait_s_max: float) -> str:
    """Answer whoever asks, again and again: what stands there first may be a word of an earlier start."""
    name = uuid.uuid4().hex
    deadline = time.monotonic() + wait_s_max
    missing = list(range(1, size))
    while missing := [rank for rank in missing if not store.check([_came(name, rank)])]:
        if time.monotonic() > deadline:
            raise Unavailable(f"of {size} processes, ranks {missing} did not come within {wait_s_max:.0f} s")
        for rank in missing:
            if store.check([_asks(rank)]):
                store.set(_answer(store.get(_asks(rank)).decode()), name)
        time.sleep(POLL_S)
    return name


def _asks(rank: int) -> str:
    return f"jupiter/asks/{rank}"


def _answer(word: str) -> str:
    return f"jupiter/answer/{word}"


def _came(name: str, rank: int) -> str:
    return f"jupiter/came/{name}/{rank}"
