"""The metronome: how much is to be generated next, and from which documents.

Owns: the plan. A pure function of the projection, the ledger and the configuration; two controllers that see the same
streams plan the same requests with the same ids, and the bus keeps one of each.
Does not know: how a request is fulfilled, nor when it is asked (`conductor`).

Documents are taken least recently used first, so every document comes before any repeats, and one that arrives late
comes next and then waits its turn like the others.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from jupiter.config import ClusterConfig, DomainConfig
from jupiter.controller.projection import Projection
from jupiter.events import DocumentAccepted, GenerationItem, GenerationRequested
from jupiter.ledger import LedgerEntry
from jupiter.records import digest_of

__all__ = ["Plan", "plan", "request_id"]

SEED_BITS = 31


@dataclass(frozen=True)
class Plan:
    """Requests to publish now, and, when there are none, what is being waited for."""

    requests: tuple[GenerationRequested, ...] = ()
    waits_for: tuple[str, ...] = ()


def plan(state: Projection, live: LedgerEntry | None, config: ClusterConfig, domain: DomainConfig) -> Plan:
    """Return the requests that fill the allowance, none while something is missing or the trainer is behind."""
    waits = _missing(state, live)
    if live is None or waits:
        return Plan(waits_for=waits)
    ahead = state.shards_ahead()
    if ahead >= config.controller.shards_ahead_max:
        return Plan(waits_for=(f"the trainer: {ahead} shards are ahead of it",))
    # Requests of a version that is no longer live are void, or about to be: they hold nobody up.
    in_flight = sum(1 for issued in state.open_requests() if issued.generator_version == live.version)
    room = config.controller.in_flight_requests_max - in_flight
    if room <= 0:
        return Plan(waits_for=(f"{in_flight} generation requests in flight",))
    return Plan(requests=_requests(state, live, config, domain, room))


def request_id(live: LedgerEntry, sequence: int) -> str:
    """Return the id of a request: it says under which flip it was made."""
    return digest_of(live.domain, live.version, live.sequence, sequence)


def _missing(state: Projection, live: LedgerEntry | None) -> tuple[str, ...]:
    waits = []
    if live is None:
        waits.append("a generator to import the base model")
    elif live.version not in state.serving.values():
        waits.append(f"a generator to load version {live.version}")
    if state.benchmark is None:
        waits.append("the benchmark to be frozen")
    if not state.training_documents():
        waits.append("documents to train on")
    return tuple(waits)


def _requests(
    state: Projection, live: LedgerEntry, config: ClusterConfig, domain: DomainConfig, count: int
) -> tuple[GenerationRequested, ...]:
    documents = state.training_documents()
    uses = {document.document_id: list(state.uses.get(document.document_id, ())) for document in documents}
    first = 1 + max((issued.sequence for issued in state.requests.values()), default=0)
    requests = []
    for sequence in range(first, first + count):
        chosen = _least_recently_used(documents, uses, config.controller.samples_per_request, sequence)
        requests.append(
            GenerationRequested(
                domain=domain.name,
                request_id=request_id(live, sequence),
                generator_version=live.version,
                sequence=sequence,
                items=tuple(
                    _item(document, use, domain, f"{sequence}/{place}") for place, (document, use) in enumerate(chosen)
                ),
                sampling=config.controller.sampling,
            )
        )
    return tuple(requests)


def _least_recently_used(
    documents: Sequence[DocumentAccepted], uses: dict[str, list[int]], count: int, sequence: int
) -> list[tuple[DocumentAccepted, int]]:
    """Return `count` documents, each with how often it was used before, and note their use under `sequence`.

    Among equals the one used less often comes first, then the digest of the id decides, so that neighbours in the
    corpus do not come together. Documents repeat within a request only when there are fewer of them than `count`.
    """

    def turn(document: DocumentAccepted) -> tuple[int, int, str]:
        before = uses[document.document_id]
        return max(before, default=0), len(before), _scatter(document)

    order = sorted(documents, key=turn)
    chosen = []
    for place in range(count):
        document = order[place % len(order)]
        chosen.append((document, len(uses[document.document_id])))
        uses[document.document_id].append(sequence)
    return chosen


def _scatter(document: DocumentAccepted) -> str:
    return digest_of("metronome", document.document_id)


def _item(document: DocumentAccepted, use: int, domain: DomainConfig, place: str) -> GenerationItem:
    """Choose passage, task, audience and difficulty: the passage in turn, the rest by a seed of the place."""
    rng = random.Random(digest_of(domain.name, place, document.document_id))  # noqa: S311 — reproducible, not secret
    tasks = [mix.task for mix in domain.tasks]
    return GenerationItem(
        document_id=document.document_id,
        chunk_index=use % document.chunks,
        task=rng.choices(tasks, weights=[mix.weight for mix in domain.tasks])[0],
        audience=rng.choice(domain.audiences),
        difficulty=rng.choice(domain.difficulties),
        seed=rng.getrandbits(SEED_BITS),
    )
