"""Tiny versions for the vllm engine, engines for them, and what a test asks of both.

Owns: what the tests of this folder share. In float32, where the neighbours of a sample move its probabilities by a
millionth: a text is then that of its weights alone.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from jupiter.config.sections import VllmSection
from jupiter.generator.engines import Completion, EngineSettings, Prompt, create_engine
from jupiter.generator.engines.vllm import VllmEngine
from jupiter.generator.engines.vllm.weights import Weights
from jupiter.modeling import GOLDEN_FILE, Golden, read_golden, record_golden
from jupiter.modeling.golden import file_digests
from jupiter.records import Sampling, canonical_json
from tests.tiny_model import make_tiny_model, tiny_texts

TOLERANCE = 0.05
GREEDY = Sampling(temperature=0, max_new_tokens=24)
WIDTH, OTHER_WIDTH = 128, 256


class Versions:
    """Model directories with golden outputs, and the engines that were made for them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._engines: list[tuple[VllmEngine, list[Weights]]] = []

    def make(self, name: str, *, seed: int, hidden: int = WIDTH, layers: int = 2, tied: bool = True) -> Path:
        """Return a version; the same name again is the same directory."""
        directory = self._directory / name
        if not directory.exists():
            make_tiny_model(directory, seed=seed, hidden=hidden, layers=layers, tied=tied)
            write_golden(directory, record_golden(directory, dtype="float32"))
        return directory

    @property
    def a(self) -> Path:
        return self.make("a", seed=1)

    @property
    def b(self) -> Path:
        return self.make("b", seed=2)

    def copy(self, of: Path, name: str) -> Path:
        """Return a copy to spoil."""
        return Path(shutil.copytree(of, self._directory / name))

    def engine(self, *, dtype: str = "float32", batch_size: int = 8, **own: Any) -> Tenants:
        section = VllmSection.model_validate({"kv_cache_gib": 0.1, "max_model_len": 1024, **own})
        engine = create_engine("vllm", EngineSettings(dtype=dtype, device="auto", batch_size=batch_size, own=section))
        assert isinstance(engine, VllmEngine)
        tenants = Tenants(engine)
        self._engines.append((engine, tenants.loaded))
        return tenants

    def release(self) -> None:
        for engine, loaded in self._engines:
            for weights in loaded:
                engine.release(weights)


class Tenants:
    """An engine that remembers what it loaded."""

    def __init__(self, engine: VllmEngine) -> None:
        self.engine = engine
        self.loaded: list[Weights] = []

    def load(self, directory: Path) -> Weights:
        weights = self.engine.load(directory)
        self.loaded.append(weights)
        return weights

    def attest(self, weights: Weights) -> None:
        self.engine.attest(weights, weights.directory, tolerance=TOLERANCE)

    def serve(self, directory: Path) -> Weights:
        """Load and attest, as a promotion does."""
        weights = self.load(directory)
        self.attest(weights)
        return weights

    def lend(self, directory: Path) -> None:
        """Load, attest and release, as a shadow batch does."""
        weights = self.load(directory)
        try:
            self.attest(weights)
        finally:
            self.release(weights)

    def release(self, weights: Weights) -> None:
        self.loaded.remove(weights)
        self.engine.release(weights)

    def complete(self, weights: Weights, prompts: Sequence[Prompt], sampling: Sampling = GREEDY) -> list[Completion]:
        return self.engine.generate(weights, prompts, sampling=sampling, progress=lambda *_: None)

    def texts(self, weights: Weights, prompts: Sequence[Prompt], sampling: Sampling = GREEDY) -> list[str]:
        return [completion.text for completion in self.complete(weights, prompts, sampling)]


class Working:
    """A batch in a thread of its own: `with Working(...) as work: …` waits for its first sample, then for its end."""

    def __init__(
        self, tenants: Tenants, weights: Weights, prompts: Sequence[Prompt], sampling: Sampling, *, after: int = 1
    ) -> None:
        self.completions: list[Completion] = []
        self.samples = self.tokens = 0
        self._begun = threading.Event()
        self._after = after
        self._error: BaseException | None = None

        def work() -> None:
            try:
                self.completions = tenants.engine.generate(weights, prompts, sampling=sampling, progress=self._progress)
            except BaseException as error:  # noqa: BLE001 - raised again where the block ends
                self._error = error
            self._begun.set()

        self._thread = threading.Thread(target=work)

    @property
    def busy(self) -> bool:
        return self._thread.is_alive()

    @property
    def texts(self) -> list[str]:
        return [completion.text for completion in self.completions]

    def _progress(self, samples: int, tokens: int) -> None:
        self.samples += samples
        self.tokens += tokens
        if self.samples >= self._after:
            self._begun.set()

    def __enter__(self) -> Working:
        self._thread.start()
        assert self._begun.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(120)
        assert not self.busy
        if self._error is not None:
            raise self._error


def prompts(count: int) -> list[Prompt]:
    """Return prompts of different lengths."""
    words = " ".join(tiny_texts()).split()
    return [Prompt(text=" ".join(words[7 * n : 7 * n + 5 + n % 11]), seed=n) for n in range(count)]


def write_golden(directory: Path, golden: Golden) -> None:
    (directory / GOLDEN_FILE).write_bytes(canonical_json(golden))


def sign_again(directory: Path) -> None:
    """Make the record name the files as they are now: only the model itself can still give the change away."""
    golden = read_golden(directory / GOLDEN_FILE)
    write_golden(directory, golden.model_copy(update={"files": file_digests(directory)}))


def engine_processes(*, expected: int | None = None) -> list[psutil.Process]:
    """Return the engines that this process has started and that live; of those that end, wait for the end."""
    deadline = time.monotonic() + 30
    while expected is not None and len(_engine_processes()) > expected and time.monotonic() < deadline:
        time.sleep(0.1)
    return _engine_processes()


def worker_processes() -> list[psutil.Process]:
    """Return the processes that hold the weights, each the child of an engine."""
    return _children("VLLM::Worker")


def _engine_processes() -> list[psutil.Process]:
    return _children("VLLM::EngineCor")


def _children(name: str) -> list[psutil.Process]:
    children = psutil.Process().children(recursive=True)
    return [child for child in children if child.name().startswith(name) and child.status() != psutil.STATUS_ZOMBIE]
