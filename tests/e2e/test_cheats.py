"""Planted cheats: each is refused by the real services, by the check that is there for it, and nothing is promoted.

The services are real processes on real servers; only what lies where their checkpoints lie was put there. On the same
stack an honest candidate goes all the way, so that no check here refuses everybody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from jupiter import keys, manifests
from jupiter.controller.gate import Verdict
from jupiter.evaluator.benchmarks import FrozenBenchmark, find_frozen
from jupiter.events import BatchGenerated, CheckpointSaved, DocumentAccepted
from jupiter.orchestrator import SelfImprover
from jupiter.records import canonical_json, digest_of
from jupiter.reports import EvaluationReport
from jupiter.trainer.checkpoints import event_of
from tests.e2e.candidates import Candidates
from tests.e2e.places import leaked_documents, place_documents
from tests.e2e.trial import MIN_STEPS, Trial, unpassed
from tests.servers import NatsServer, S3Server
from tests.unit.curator.material import commit_batch, sample
from tests.unit.judge.endpoint import Asked, character, endpoint, honest, swapped_arguments

pytestmark = [pytest.mark.connected, pytest.mark.slow, pytest.mark.timeout(1200)]

LEAKED = 8
ELSEWHERE = 99
"""A version that the ledger does not know: a batch from outside is nobody's to repeat."""


class Court:
    """The stack, with its benchmark frozen and a first shard to say that one was trained on."""

    def __init__(self, trial: Trial, candidates: Candidates) -> None:
        self.trial, self.candidates = trial, candidates
        self.frozen = trial.until(self._find_frozen, what="a frozen benchmark")
        self.shard = trial.until(self._first_shard, what="a shard").manifest.work_id

    def _find_frozen(self) -> FrozenBenchmark | None:
        return find_frozen(self.trial.blobs, self.trial.domain)

    def _first_shard(self) -> manifests.Committed | None:
        return next(iter(self.trial.manifests("shards")), None)

    def plant(self, model: Path, run: str, *, step: int = MIN_STEPS, shards: tuple[str, ...] = ()) -> CheckpointSaved:
        return self.trial.plant(model, run=run, step=step, shards=(self.shard, *shards))

    def evaluation_of(self, checkpoint: CheckpointSaved) -> str:
        return digest_of(checkpoint.manifest_sha256, self.trial.live().manifest_sha256, self.frozen.digest)

    def judged(self, checkpoint: CheckpointSaved, **sections: Mapping[str, Any]) -> Verdict:
        """Announce the checkpoint, and return what the controller decided; `sections` configure the evaluator."""
        evaluation_id = self.evaluation_of(checkpoint)
        self.trial.have("evaluator", **sections)
        self.trial.publish(checkpoint)
        return self.trial.verdict(evaluation_id)

    def refuses(
        self, checkpoint: CheckpointSaved, decision: str, checks: Mapping[str, str], **sections: Mapping[str, Any]
    ) -> Verdict:
        """Assert that the checkpoint is refused for these reasons and no other, and that version 1 serves on."""
        verdict = self.judged(checkpoint, **sections)
        reasons = unpassed(verdict)
        if "development improvement" in reasons:
            # Whether the gain that is missing is ruled out as well, or needs more items, hangs on an item or two.
            reasons.pop("development resolution", None)
        assert (verdict.decision, reasons) == (decision, checks), verdict.reasons
        assert verdict.evaluation_id not in self.trial.promoted()
        assert self.trial.live().version == 1
        return verdict

    def report(self, evaluation_id: str) -> EvaluationReport:
        prefix = keys.evaluation_prefix(self.trial.domain, evaluation_id)
        manifest = manifests.read(self.trial.blobs, keys.manifest_key(prefix)).manifest
        data = manifests.download_bytes(self.trial.blobs, manifest.file("report.json"))
        return EvaluationReport.model_validate_json(data)


@pytest.fixture(scope="module")
def court(tmp_path_factory: pytest.TempPathFactory, nats_server: NatsServer, s3_server: S3Server) -> Iterator[Court]:
    place = tmp_path_factory.mktemp("trial")
    candidates = Candidates(place)
    trial = Trial(place, nats=nats_server, s3=s3_server, base=candidates.base)
    documents = list(place_documents())
    try:
        for service in ("curator", "controller", "generator"):
            trial.have(service)
        trial.publish(documents=documents)
        trial.until(partial(accepted, trial, len(documents)), what="the documents to be accepted")
        trial.have("evaluator")
        yield Court(trial, candidates)
    finally:
        trial.stop()


def accepted(trial: Trial, count: int) -> bool | None:
    return len(trial.told(DocumentAccepted)) >= count or None


@pytest.fixture(scope="module")
def young(court: Court) -> Verdict:
    """The control: the honest candidate a step too early, of which all else that is asked at first is good enough."""
    checkpoint = court.plant(court.candidates.honest, "young", step=MIN_STEPS - 1)
    return court.refuses(checkpoint, "HOLD", {"minimum steps": "hold"})


def test_a_candidate_identical_to_the_incumbent(court: Court, young: Verdict) -> None:
    copied = court.plant(court.candidates.base, "copied")
    court.refuses(copied, "INVALID", {"models told apart": "invalid"})


def test_the_weights_of_the_incumbent_in_another_file(court: Court, young: Verdict, tmp_path: Path) -> None:
    model = court.candidates.base
    disguised = tmp_path / "disguised"
    disguised.mkdir()
    for path in model.iterdir():
        (disguised / path.name).write_bytes(path.read_bytes())
    weights = disguised / "model.safetensors"
    save_file(load_file(weights), weights, metadata={"format": "pt", "trained_by": "nobody"})
    verdict = court.refuses(court.plant(disguised, "disguised"), "INVALID", {"models told apart": "invalid"})
    assert "the same likelihood of every general text" in verdict.reasons[0]


def test_constant_scores(court: Court, young: Verdict) -> None:
    """A candidate that learned the very items by heart is right everywhere: nothing varies that could be believed."""
    perfect = court.candidates.perfect(court.frozen.benchmark.half("development"))
    verdict = court.refuses(court.plant(perfect, "perfect"), "INVALID", {"development items sound": "invalid"})
    assert "every score of the candidate is the same" in verdict.reasons[0]
    assert {item.candidate for item in court.report(verdict.evaluation_id).items} == {1.0}


def test_a_candidate_that_repeats_one_memorised_answer(court: Court, young: Verdict) -> None:
    """It is fluent, so its answers look healthy; they are right nowhere."""
    verdict = court.refuses(court.plant(court.candidates.parrot, "parrot"), "HOLD", {"development improvement": "hold"})
    report = court.report(verdict.evaluation_id)
    assert report.candidate.accuracy == 0
    assert report.candidate.coherence > report.generator.coherence


def test_a_candidate_that_lost_general_ability(court: Court, young: Verdict) -> None:
    lost = {"general text": "reject", "general code": "reject"}
    verdict = court.refuses(court.plant(court.candidates.forgetful, "forgetful"), "REJECT", lost)
    assert "development sign-flip test" in {check.name for check in verdict.checks}


def test_one_good_at_answers_and_useless_as_a_generator(court: Court) -> None:
    verdict = court.refuses(
        court.plant(court.candidates.useless_generator, "useless"), "REJECT", {"shadow acceptance": "reject"}
    )
    assert "sealed sign-flip test" in {check.name for check in verdict.checks}


def test_a_report_replayed_for_another_checkpoint(court: Court, young: Verdict) -> None:
    """A good report lies where the evaluator would put that of another checkpoint, so that it announces it as its own.

    First as it was written, then with the other checkpoint's names in it, but for the digest of the weights.
    """
    good = court.report(young.evaluation_id)
    other = court.plant(court.candidates.base, "replayed")
    replay(court, good, other)
    verdict = court.refuses(other, "INVALID", {"evidence": "invalid"})
    assert f"it is about evaluation {young.evaluation_id}" in verdict.reasons[0]

    other = court.plant(court.candidates.base, "renamed")
    names = {"evaluation_id": court.evaluation_of(other), "checkpoint_id": other.checkpoint_id, "run": other.run}
    replay(court, good.model_copy(update={**names, "step": other.step}), other)
    verdict = court.refuses(other, "INVALID", {"evidence": "invalid"})
    assert f"it is about checkpoint manifest {good.checkpoint_manifest_sha256}" in verdict.reasons[0]


def replay(court: Court, report: EvaluationReport, other: CheckpointSaved) -> None:
    """Commit the report as the evaluation of the other checkpoint."""
    trial, evaluation_id = court.trial, court.evaluation_of(other)
    prefix = keys.evaluation_prefix(trial.domain, evaluation_id)
    details = {
        "checkpoint_id": other.checkpoint_id,
        "checkpoint_manifest_key": other.manifest_key,
        "run": other.run,
        "step": other.step,
        "generator_version": report.generator_version,
        "benchmark_digest": report.benchmark_digest,
        "items": len(report.items),
        "candidate_score": report.candidate.composite,
        "generator_score": report.generator.composite,
        "difference": report.difference,
        "ci_low": report.ci_low,
        "ci_high": report.ci_high,
    }
    file = manifests.upload_bytes(trial.blobs, prefix=prefix, name="report.json", data=canonical_json(report))
    manifests.commit(
        trial.blobs,
        prefix=prefix,
        kind="evaluation",
        domain=trial.domain,
        work_id=evaluation_id,
        files=(file,),
        details=details,
    )


def test_answers_shuffled_among_the_questions(court: Court) -> None:
    """Two trainers on the same shard, one of them the negative control: only the other one's student has learned."""
    straight = trained(court, "straight", control="none", steps=MIN_STEPS - 1)
    learned = court.refuses(straight, "HOLD", {"minimum steps": "hold"})
    shuffled = trained(court, "shuffled", control="shuffled", steps=MIN_STEPS)
    details = manifests.read(court.trial.blobs, shuffled.manifest_key).manifest.details
    assert details["control"] == "shuffled"
    assert details["samples"]["shuffled"] > 0
    unlearned = court.judged(shuffled)
    # It is refused for being no better. Some shuffled students give the incumbent's answer to every question, and some
    # are worse than the incumbent beyond doubt: that is a REJECT, and it hangs on an item or two.
    nothing_learned = {"development improvement", "development resolution", "models told apart"}
    reasons = unpassed(unlearned)
    assert unlearned.decision in {"HOLD", "REJECT"}, unlearned.reasons
    assert set(reasons.values()) == {unlearned.decision.lower()}, unlearned.reasons
    assert set(reasons) <= nothing_learned, unlearned.reasons
    assert court.trial.live().version == 1
    right = [court.report(verdict.evaluation_id).candidate.accuracy for verdict in (learned, unlearned)]
    assert right[0] > right[1]


def trained(court: Court, run: str, *, control: str, steps: int) -> CheckpointSaved:
    """Return the first checkpoint of a real trainer."""
    settings: Mapping[str, Any] = {"run": run, "control": control}
    court.trial.have("trainer", trainer=settings, self_improvement={"eval_every_steps": steps})
    prefix = keys.checkpoint_prefix(court.trial.domain, run, steps)
    find = partial(manifests.find, court.trial.blobs, prefix)
    committed = court.trial.until(find, what=f"a checkpoint of run {run}")
    court.trial.stop("trainer")
    return event_of(committed)


def test_the_benchmark_leaked_into_training_data(court: Court, young: Verdict) -> None:
    """Documents quote the benchmark, and a batch asks its very questions.

    The curator drops all of it. When that is switched off, the same candidate is refused that is good enough otherwise.
    """
    texts = sorted({text for item in court.frozen.benchmark.items for text in item.texts})[: 2 * LEAKED]
    documents = list(leaked_documents(texts))
    before = len(court.trial.told(DocumentAccepted))
    court.trial.publish(documents=documents)
    court.trial.until(partial(accepted, court.trial, before + LEAKED), what="the leak to be accepted")
    ids = {event.title: event.document_id for event in court.trial.told(DocumentAccepted)}
    leak = [
        sample(
            "exam",
            f"{text} Where does this belong?",
            document_id=ids[document.title],
            task="locate",
            template="locate/1",
        )
        for document, text in zip(documents, texts[::2], strict=True)
    ]
    details = curated(court, commit_batch(court.trial.blobs, leak, sequence=901, domain=court.trial.domain))
    assert details["dropped"] == {"contaminated_item": LEAKED}
    # Of the four that every entry gives, the one that asks for the name's place alone quotes nothing.
    assert details["real_dropped"] == {"contaminated_item": 3 * LEAKED}

    batch = commit_batch(court.trial.blobs, leak, sequence=902, domain=court.trial.domain)
    details = curated(court, batch, curator={"decontaminate": False})
    assert details["contamination"]["synthetic"] == LEAKED
    court.trial.have("curator")
    fed = court.plant(court.candidates.honest, "fed", shards=(batch.batch_id,))
    court.refuses(fed, "INVALID", {"training data clean of the benchmark": "invalid"})


def curated(court: Court, batch: BatchGenerated, **sections: Mapping[str, Any]) -> Mapping[str, Any]:
    """Announce the batch, and return what the curator says of its shard; `sections` configure it."""
    court.trial.have("curator", **sections)
    court.trial.publish(batch.model_copy(update={"generator_version": ELSEWHERE}))

    def committed() -> manifests.Committed | None:
        return manifests.find(court.trial.blobs, keys.shard_prefix(court.trial.domain, batch.batch_id))

    return court.trial.until(committed, what="the batch to be curated").manifest.details


def test_an_honest_candidate_passes_every_check_and_is_promoted(court: Court) -> None:
    """Then it is taken back, so that the cheats meet the same incumbent whichever test comes first."""
    verdict = court.judged(court.plant(court.candidates.honest, "honest"))
    assert (verdict.decision, unpassed(verdict)) == ("PROMOTE", {})
    assert "shadow diversity" in {check.name for check in verdict.checks}
    court.trial.until(lambda: verdict.evaluation_id in court.trial.promoted() or None, what="the promotion")
    asyncio.run(SelfImprover(court.trial.config).rollback_generator())
    assert court.trial.live().version == 1


def always_the_first(_: Asked) -> str:
    return "first"


def test_a_judge_that_mixes_up_its_arguments(court: Court) -> None:
    """What it would have decided is left out: all that the candidate is better at is what a judge is asked about.

    A judge that can be believed lifts the same weights over everything but the minimum of steps.
    """
    model = court.candidates.eloquent
    with endpoint(character(honest)) as served:
        judge = {"kind": "openai", "url": served.url, "model": "the-judge"}
        early = court.plant(model, "praised", step=MIN_STEPS - 1)
        praised = court.refuses(early, "HOLD", {"minimum steps": "hold"}, judge=judge)
        assert [item for item in court.report(praised.evaluation_id).items if item.kind == "judged"]
        for step, behave in enumerate((swapped_arguments, always_the_first), start=MIN_STEPS):
            served.behave = character(behave)
            left_out = {"judge": "left_out", "development improvement": "hold"}
            verdict = court.refuses(court.plant(model, "praised", step=step), "HOLD", left_out, judge=judge)
            assert any(line.startswith("judge: INVALID: ") for line in verdict.reasons)
            assert not [item for item in court.report(verdict.evaluation_id).items if item.kind == "judged"]
