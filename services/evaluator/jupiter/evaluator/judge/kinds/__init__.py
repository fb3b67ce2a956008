"""The kinds of judges, and how one is found: the module of its name in this package.

Owns: the registry. Does not know: any kind.

To add one, write `kinds/<name>.py` with `create(config, environ) -> Judge`; nothing else changes. One of your own may
lie in any module: `judge.kind: my_package.my_judge`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping

from jupiter.config import ClusterConfig
from jupiter.errors import ConfigError
from jupiter.evaluator.judge.comparing import Judge

__all__ = ["create_judge", "judge_kinds"]


def judge_kinds() -> list[str]:
    """Return the kinds that exist."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def create_judge(config: ClusterConfig, environ: Mapping[str, str]) -> Judge:
    """Return the judge that `config.judge` describes. Raises ConfigError."""
    name = config.judge.kind
    own = "." in name
    if not own and name not in judge_kinds():
        raise ConfigError(
            f"judge.kind is {name!r}; it must be none, {', '.join(judge_kinds())} or a module of your own"
        )
    try:
        module = importlib.import_module(name if own else f"{__name__}.{name}")
    except ImportError as error:
        raise ConfigError(f"judge.kind {name!r} cannot be imported ({error}): install what it needs") from error
    judge: Judge = module.create(config, environ)
    return judge
