"""Whether the requests that a deployment will send fit into an event.

Owns: the largest request that a domain's texts can make. Does not know: which documents are asked about.
"""

from __future__ import annotations

from collections.abc import Iterable

from pydantic_core import to_json

from jupiter.config import ClusterConfig, DomainConfig
from jupiter.errors import ConfigError
from jupiter.events import EVENT_BYTES_MAX, GenerationItem, GenerationRequested
from jupiter.records import DOCUMENT_CHARS_MAX

__all__ = ["check_request_size"]

DIGEST = "0" * 64
NUMBER_MAX = 2**31


def check_request_size(config: ClusterConfig, domain: DomainConfig) -> None:
    """Raise ConfigError where a request for `controller.samples_per_request` samples may be more than an event."""
    wanted = config.controller.samples_per_request
    size = _request_bytes_max(config, domain, wanted)
    if size <= EVENT_BYTES_MAX:
        return
    first, second = (_request_bytes_max(config, domain, samples) for samples in (1, 2))
    fitting = 1 + (EVENT_BYTES_MAX - first) // (second - first)
    remedy = (
        f"set controller.samples_per_request to {fitting} at most, or shorten them" if fitting > 0 else "shorten them"
    )
    raise ConfigError(
        f"controller.samples_per_request is {wanted}: with the longest task, audience and difficulty of the domain "
        f"{domain.name!r} a request has {size} bytes, and an event may have {EVENT_BYTES_MAX}; {remedy}"
    )


def _request_bytes_max(config: ClusterConfig, domain: DomainConfig, samples: int) -> int:
    """Return the bytes of the largest request for so many samples, written as the bus writes it."""
    item = GenerationItem(
        document_id=DIGEST,
        chunk_index=DOCUMENT_CHARS_MAX,
        task=_longest(mix.task for mix in domain.tasks),
        audience=_longest(domain.audiences),
        difficulty=_longest(domain.difficulties),
        seed=NUMBER_MAX,
    )
    request = GenerationRequested(
        domain=domain.name,
        request_id=DIGEST,
        generator_version=NUMBER_MAX,
        sequence=NUMBER_MAX,
        items=(item,) * samples,
        sampling=config.controller.sampling,
    )
    return len(request.model_dump_json().encode())


def _longest(texts: Iterable[str]) -> str:
    return max(texts, key=lambda text: len(to_json(text)))
