"""What every engine offers, and how one is found: the module of its name in this package.

Owns: the engine interface (DESIGN §5) and the registry. Does not know: any engine.

To add one, write `engines/<name>.py` with `create(settings: EngineSettings) -> Engine`; nothing else changes.
One of your own may lie in any module: `generator.engine: my_package.my_engine`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from jupiter.errors import ConfigError
from jupiter.records import Sampling

__all__ = ["Completion", "Engine", "EngineSettings", "Progress", "Prompt", "create_engine", "engine_names"]

Progress = Callable[[int, int], None]
"""Called from the generating thread after every step with (samples finished, tokens made) since the last call.
It may block, to let others compute, or raise, to stop."""


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """What the configuration says to every engine."""

    dtype: str
    device: str
    batch_size: int
    own: Any = None
    """The configuration's section `generator.<name of the engine>`, where there is one."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What the model is to continue or answer, how that may end early, and the seed of its draws."""

    text: str
    seed: int
    stop: tuple[str, ...] = ()
    """The completion ends before the first of these."""
    chat: bool = False
    """True: `text` is a user's turn, put into the model's chat template if it has one. False: it is continued as is."""
    template: str = ""
    """Prompts of one template begin alike; an engine may compute that beginning once."""


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What the model wrote."""

    prompt: str
    """The prompt as the model saw it, chat template included."""
    text: str
    tokens: int
    finish_reason: Literal["stop", "length"]
    """`stop`: the model ended it, or a stop string did. `length`: it ran into `max_new_tokens`."""


class Engine(Protocol):
    """Loads versions side by side and generates with each. All methods block; they are called in worker threads.

    An engine may hold one set of weights at a time and change them in place: a handle is then a promise that `attest`,
    `activate` and `generate` keep, each for as long as it runs.

    UnfitModel and AttestationError are a verdict on the version. A fault of this machine, which may pass, is none:
    NoRoom where memory is short, Retry where the engine itself was lost.
    """

    def load(self, directory: Path) -> Any:
        """Return a handle on the model in `directory`, which stays as it is until `release`. Raises UnfitModel."""
        ...

    def attest(self, handle: Any, directory: Path, *, tolerance: float) -> None:
        """Prove that the loaded model is the one recorded in `directory`. Raises AttestationError or UnfitModel."""
        ...

    def activate(self, handle: Any) -> None:
        """Make a version that was attested before ready again, for a rollback. Raises what `attest` raises.

        Nothing to do for an engine that keeps every loaded version in memory.
        """
        ...

    def generate(
        self, handle: Any, prompts: Sequence[Prompt], *, sampling: Sampling, progress: Progress
    ) -> list[Completion]:
        """Complete every prompt, in order. The same prompts and seeds give the same completions on the same machine.

        Raises what `attest` raises, in an engine that has to bring the weights in first.
        """
        ...

    def release(self, handle: Any) -> None:
        """Free the memory of a version that will not be used again."""
        ...


def engine_names() -> list[str]:
    """Return the engines that exist."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def create_engine(name: str, settings: EngineSettings) -> Engine:
    """Return the engine called `name`; one of your own by its module, `package.module`. Raises ConfigError."""
    own = "." in name
    if not own and name not in engine_names():
        raise ConfigError(f"generator.engine is {name!r}; this installation has: {', '.join(engine_names())}")
    try:
        module = importlib.import_module(name if own else f"{__name__}.{name}")
    except ImportError as error:
        raise ConfigError(f"generator.engine {name!r} cannot be imported ({error}): install what it needs") from error
    engine: Engine = module.create(settings)
    return engine
