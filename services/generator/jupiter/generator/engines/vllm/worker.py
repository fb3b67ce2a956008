"""What runs inside vLLM's worker process: the methods that `collective_rpc` calls by name.

Owns: loading other weights in place. Does not know: which version they are (`hosting`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

__all__ = ["HotSwap"]

_NAMED_MAX = 3
_PROBES = 4
_RELATIVE_ERROR_MAX = 0.02
"""Of a head that is packed anew, beside a plain multiplication: bfloat16 rounds to 0.4 %, a stale one is all wrong."""


class HotSwap:
    """Mixed into vLLM's worker (`worker_extension_cls`); its names must not meet those of the worker."""

    model_runner: Any
    reload_weights: Any
    jupiter_parameters: frozenset[str] = frozenset()
    """Of the model as it was started: a reload that fails leaves it in parts, a tied head apart from its embedding."""

    def jupiter_answers(self) -> None:
        """Return: whoever is told so knows that this process lives."""

    def jupiter_reload(self, directory: str) -> tuple[Literal["memory", "disk"], str] | None:
        """Load the weights of `directory` over the present ones. Raises when a file is not what it should be.

        What this machine lacks for it is returned: of what is raised, no more than a text reaches the service.
        """
        import torch

        try:
            _reload(self, directory)
        except FileNotFoundError:
            raise
        except (MemoryError, torch.OutOfMemoryError) as error:
            return "memory", f"{type(error).__name__}: {error}"
        except OSError as error:
            return "disk", f"{type(error).__name__}: {error}"
        return None


def _reload(worker: HotSwap, directory: str) -> None:
    model = worker.model_runner.get_model()
    worker.jupiter_parameters = worker.jupiter_parameters or frozenset(name for name, _ in model.named_parameters())
    with _nothing_left_out(model, worker.jupiter_parameters):
        worker.reload_weights(weights_path=directory)
    head = getattr(model, "lm_head", None)
    if head is not None and hasattr(head, "weight") and head.weight.device.type == "cpu":
        _repack(head)


@contextmanager
def _nothing_left_out(model: Any, names: frozenset[str]) -> Iterator[None]:
    """Raise when the block loads weights and leaves some of these as they were: vLLM 0.32.0 only logs it."""
    load_weights = model.load_weights
    left_out: set[str] = set()

    def noting(weights: Any) -> Any:
        loaded = load_weights(weights)
        if loaded is not None:  # some models do not say
            left_out.update(names - loaded)
        return loaded

    model.load_weights = noting
    try:
        yield
    finally:
        del model.load_weights
    if left_out:
        more = f" and {len(left_out) - _NAMED_MAX} more" if len(left_out) > _NAMED_MAX else ""
        raise RuntimeError(f"these weights were not loaded: {', '.join(sorted(left_out)[:_NAMED_MAX])}{more}")


def _repack(head: Any) -> None:
    """Refresh the packed copy that the CPU multiplies with.

    vLLM 0.32.0 packs again what it loads. A head that is tied to the embedding is not loaded itself, so its packed copy
    would stay that of the old weights.
    """
    head.quant_method.process_weights_after_loading(head)
    probes = head.weight[:_PROBES]
    packed = head.quant_method.apply(head, probes).float()
    plain = probes.float() @ head.weight.float().T
    error = float((packed[:, : plain.shape[1]] - plain).norm() / plain.norm().clamp_min(1e-30))
    if not error <= _RELATIVE_ERROR_MAX:
        raise RuntimeError(f"the packed output head is off by {error:.0%} from its weights: it was not refreshed")
