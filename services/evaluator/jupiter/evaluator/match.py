"""What is compared with what, on which benchmark.

Owns: the facts of one comparison, fixed before the first answer and never changed by a later flip, and the ids and
places that follow from them. Does not know: how it is scored, or which half.
"""

from __future__ import annotations

from dataclasses import dataclass

from jupiter import keys
from jupiter.evaluator.benchmarks import FrozenBenchmark
from jupiter.events import CheckpointSaved
from jupiter.ledger import LedgerEntry
from jupiter.records import digest_of
from jupiter.reports import EvaluationReport

__all__ = ["Match", "evaluation_id_of"]


def evaluation_id_of(*, checkpoint_sha256: str, generator_sha256: str, benchmark_digest: str) -> str:
    """Return the id of a comparison: the digests of both manifests and of the benchmark decide it."""
    return digest_of(checkpoint_sha256, generator_sha256, benchmark_digest)


@dataclass(frozen=True, kw_only=True)
class Match:
    """A checkpoint against a generator version on the frozen benchmark."""

    domain: str
    checkpoint_id: str
    run: str
    step: int
    checkpoint_manifest_key: str
    checkpoint_manifest_sha256: str
    generator: LedgerEntry
    """The entry that made the version live: it names its manifest."""
    frozen: FrozenBenchmark

    @classmethod
    def of_checkpoint(cls, event: CheckpointSaved, *, generator: LedgerEntry, frozen: FrozenBenchmark) -> Match:
        """Return the match of a new checkpoint."""
        return cls(
            domain=event.domain,
            checkpoint_id=event.checkpoint_id,
            run=event.run,
            step=event.step,
            checkpoint_manifest_key=event.manifest_key,
            checkpoint_manifest_sha256=event.manifest_sha256,
            generator=generator,
            frozen=frozen,
        )

    @classmethod
    def of_report(cls, report: EvaluationReport, *, generator: LedgerEntry, frozen: FrozenBenchmark) -> Match:
        """Return the match that a report is about. It is that report's only if the evaluation ids are the same."""
        return cls(
            domain=report.domain,
            checkpoint_id=report.checkpoint_id,
            run=report.run,
            step=report.step,
            checkpoint_manifest_key=report.checkpoint_manifest_key,
            checkpoint_manifest_sha256=report.checkpoint_manifest_sha256,
            generator=generator,
            frozen=frozen,
        )

    @property
    def evaluation_id(self) -> str:
        return evaluation_id_of(
            checkpoint_sha256=self.checkpoint_manifest_sha256,
            generator_sha256=self.generator.manifest_sha256,
            benchmark_digest=self.frozen.digest,
        )

    @property
    def prefix(self) -> str:
        return keys.evaluation_prefix(self.domain, self.evaluation_id)

    @property
    def candidate_name(self) -> str:
        """Return what the candidate is called in messages."""
        return f"checkpoint {self.checkpoint_id[:12]} (run {self.run}, step {self.step})"

    @property
    def detail(self) -> str:
        """Return the comparison in a few words, for the status."""
        return f"step {self.step} against generator v{self.generator.version}"
