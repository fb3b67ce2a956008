"""What runs inside vLLM's worker process: the methods that `collective_rpc` calls by name.

Owns: loading other weights in place. Does not know: which version they are (`hosting`).
"""

from __future__ import annotations

from typing import Any

__all__ = ["HotSwap"]

_PROBES = 4
_RELATIVE_ERROR_MAX = 0.02
"""Of a head that is packed anew, beside a plain multiplication: bfloat16 rounds to 0.4 %, a stale one is all wrong."""


class HotSwap:
    """Mixed into vLLM's worker (`worker_extension_cls`); its names must not meet those of the worker."""

    model_runner: Any
    reload_weights: Any

    def jupiter_answers(self) -> None:
        """Return: whoever is told so knows that this process lives."""

    def jupiter_reload(self, directory: str) -> None:
        """Load the weights of `directory` over the present ones. Raises when a file is not what it should be."""
        self.reload_weights(weights_path=directory)
        head = getattr(self.model_runner.get_model(), "lm_head", None)
        if head is not None and hasattr(head, "weight") and head.weight.device.type == "cpu":
            _repack(head)


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
