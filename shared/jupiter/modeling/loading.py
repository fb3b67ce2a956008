"""Load a causal language model from a directory, trusting nothing in it.

Owns: which files are acceptable (safetensors, no code), their sizes and shapes before anything is allocated, and that
every weight really came from the file. Does not know: which version it is (`attestation` proves that).
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupiter.errors import JupiterError

__all__ = [
    "ModelFiles",
    "NoRoom",
    "UnfitModel",
    "available_memory_bytes",
    "inspect_files",
    "load_model",
    "load_tokenizer",
    "resolve_device",
]

# A safetensors header is a few KB per hundred tensors; the format's own reader stops at 100 MB too.
_HEADER_BYTES_MAX = 100_000_000
# Loading holds the weights once, plus a shard's worth while they are placed.
_MEMORY_FACTOR = 1.2


# transformers changes settings of the whole process while it builds a model. Of two models that two threads loaded at
# once (a generator that reloads while it is lent to a candidate), both were found to lack their tied weights.
_ONE_AT_A_TIME = threading.Lock()


class UnfitModel(JupiterError):
    """The directory does not hold a model that may be loaded; the text says which file and why."""


class NoRoom(UnfitModel):
    """The model may be a good one, but this machine has not the memory for it now."""


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """What the headers of the weight files say."""

    weight_files: tuple[Path, ...]
    shapes: Mapping[str, tuple[int, ...]]
    size_bytes: int

    @property
    def parameters(self) -> int:
        total = 0
        for shape in self.shapes.values():
            count = 1
            for side in shape:
                count *= side
            total += count
        return total


def resolve_device(name: str) -> str:
    """Return the torch device for a configured name; `auto` is cuda, else mps, else cpu."""
    if name != "auto":
        return name
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def inspect_files(directory: Path) -> ModelFiles:
    """Read config and weight headers, allocating nothing. Raises UnfitModel."""
    config = _read_json(directory / "config.json")
    if "auto_map" in config:
        raise UnfitModel(
            f"{directory / 'config.json'} names its own code (auto_map); Jupiter never runs a model's code"
        )
    if (directory / "adapter_config.json").exists():
        raise UnfitModel(
            f"{directory / 'adapter_config.json'} would add an adapter to the weights unasked, where peft is "
            "installed; merge the adapter into the weights and remove the file"
        )
    weight_files = _weight_files(directory)
    shapes: dict[str, tuple[int, ...]] = {}
    size_bytes = 0
    for path in weight_files:
        for name, shape, length in _safetensors_header(path):
            shapes[name] = shape
            size_bytes += length
    return ModelFiles(weight_files=weight_files, shapes=shapes, size_bytes=size_bytes)


def load_model(
    directory: Path, *, dtype: str = "bfloat16", device: str = "cpu", inference: bool = True
) -> tuple[Any, Any]:
    """Return `(model, tokenizer)` in evaluation mode on `device`. Raises UnfitModel.

    `dtype` is a torch dtype's name. Left padding is set, as batched generation needs it. For `inference` on a CPU the
    model's attention is `attention.grouped_attention` where that computes the same.
    """
    import torch

    files = inspect_files(directory)
    tokenizer = load_tokenizer(directory)
    _check_memory(files, dtype=dtype, device=device, directory=directory)
    with _ONE_AT_A_TIME, _quiet_loading():
        _check_architecture(files, directory)
        try:
            model, loading = _auto_model().from_pretrained(
                directory,
                dtype=getattr(torch, dtype),
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            raise UnfitModel(f"{directory} cannot be loaded: {type(error).__name__}: {error}") from error
    incomplete = {name: sorted(map(str, keys)) for name, keys in loading.items() if keys}
    if incomplete:
        raise UnfitModel(f"weights and config of {directory} disagree: {_brief(incomplete)}")
    model = model.to(device).eval()
    if inference and device == "cpu":
        from jupiter.modeling.attention import use_grouped_attention

        use_grouped_attention(model)
    return model, tokenizer


def _auto_model() -> Any:
    """Return transformers' entry point, whose own annotations do not fit its documented use."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM


def load_tokenizer(directory: Path) -> Any:
    """Return the tokenizer of a model directory, padding on the left. Raises UnfitModel."""
    from transformers import AutoTokenizer

    if not (directory / "tokenizer.json").is_file():
        raise UnfitModel(f"{directory} has no tokenizer.json")
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the Rust tokenizers library raises plain Exception for a damaged file
        raise UnfitModel(f"tokenizer of {directory} cannot be loaded: {type(error).__name__}: {error}") from error
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UnfitModel(f"{path.parent} has no {path.name}") from None
    except ValueError as error:
        raise UnfitModel(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise UnfitModel(f"{path} holds a {type(value).__name__}, an object was expected")
    return value


def _weight_files(directory: Path) -> tuple[Path, ...]:
    """Return `model.safetensors`, or the shards that its index names (plain names only, so none lies elsewhere)."""
    index = directory / "model.safetensors.index.json"
    if not index.exists():
        if not (directory / "model.safetensors").is_file():
            raise UnfitModel(f"{directory} has no model.safetensors; only the safetensors format is accepted")
        return (directory / "model.safetensors",)
    names = sorted(set(_read_json(index).get("weight_map", {}).values()))
    for name in names:
        if Path(name).name != name or not (directory / name).is_file():
            raise UnfitModel(f"{index} names the shard {name!r}, which is not a file of the directory")
    return tuple(directory / name for name in names)


def _safetensors_header(path: Path) -> Iterator[tuple[str, tuple[int, ...], int]]:
    """Yield name, shape and length in bytes of each tensor, having checked them against the file's real size."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        prefix = stream.read(8)
        header_bytes = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 0 < header_bytes <= min(_HEADER_BYTES_MAX, size):
            raise UnfitModel(f"{path} is not a safetensors file or is truncated ({size} bytes)")
        try:
            header = json.loads(stream.read(header_bytes))
            tensors = [
                (name, tuple(map(int, entry["shape"])), *map(int, entry["data_offsets"]))
                for name, entry in header.items()
                if name != "__metadata__"
            ]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UnfitModel(f"{path} has a damaged safetensors header: {error}") from error
    expected = 8 + header_bytes + max((end for *_, end in tensors), default=0)
    if size != expected:
        raise UnfitModel(f"{path} is {size} bytes, its header describes {expected}: the file is truncated or padded")
    for name, shape, start, end in tensors:
        yield name, shape, end - start


def _check_memory(files: ModelFiles, *, dtype: str, device: str, directory: Path) -> None:
    """Refuse weights that cannot fit, before the first byte is allocated."""
    import torch

    item_bytes = torch.empty((), dtype=getattr(torch, dtype)).element_size()
    needed = int(files.parameters * item_bytes * _MEMORY_FACTOR)
    free = available_memory_bytes(device)
    if needed > free:
        raise NoRoom(
            f"{directory} needs {needed >> 20} MiB as {dtype}, {free >> 20} MiB are free on {device}:"
            " use a smaller model, a smaller dtype or a larger machine"
        )


def available_memory_bytes(device: str) -> int:
    """Return what is free on `device`; of the machine's own memory, what can be allocated without swapping."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _check_architecture(files: ModelFiles, directory: Path) -> None:
    """Build the configured architecture on the meta device and compare names and shapes with the file's headers.

    Where transformers maps checkpoint names to others (old formats), only its own loading report can tell; names that
    the meta model does not know are therefore left to `load_model`, wrong shapes are refused here.
    """
    import torch
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            blank = _auto_model().from_config(config, trust_remote_code=False)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError) as error:
        raise UnfitModel(f"{directory / 'config.json'} is not a causal language model we can build: {error}") from error
    expected = {name: tuple(tensor.shape) for name, tensor in blank.state_dict().items()}
    wrong = {
        name: f"file {shape}, config {expected[name]}"
        for name, shape in files.shapes.items()
        if name in expected and shape != expected[name]
    }
    if wrong:
        raise UnfitModel(f"weights and config of {directory} disagree: {_brief(wrong)}")
    if not set(files.shapes) & set(expected):
        raise UnfitModel(f"no weight of {directory} belongs to a {config.model_type} model: wrong architecture")


@contextlib.contextmanager
def _quiet_loading() -> Iterator[None]:
    """Keep transformers from drawing progress bars and loading reports into our logs; we read its report instead."""
    import transformers.utils.logging

    logging: Any = transformers.utils.logging
    level = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _brief(findings: Mapping[str, Any]) -> str:
    text = "; ".join(f"{name}: {finding}" for name, finding in findings.items())
    return text if len(text) <= 400 else text[:400] + " …"
