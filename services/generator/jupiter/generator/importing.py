"""The first start: the base model goes into the store, so that it can become version 1.

Owns: uploading it under the commit rule and saying so. Does not know: how it is made (`base_model`), nor who
registers it (the controller).
"""

from __future__ import annotations

from pathlib import Path

from jupiter import keys, manifests
from jupiter.blobs import Blobs
from jupiter.events import BaseModelImported
from jupiter.modeling import GOLDEN_FILE, read_golden
from jupiter.records import digest_of

__all__ = ["MODEL_PREFIX", "store_base_model"]

MODEL_PREFIX = "model/"
"""In manifests the names of model files begin so; golden.json lies beside them."""


def store_base_model(blobs: Blobs, directory: Path, *, domain: str, name: str) -> BaseModelImported:
    """Commit the prepared base model, or find it committed, and return the event that says so.

    The work id is the digest of the model's files, so every machine that imports the same model commits the same.
    """
    golden = read_golden(directory / GOLDEN_FILE)
    digest = digest_of(golden.files)
    prefix = keys.base_model_prefix(domain, digest)
    committed = manifests.find(blobs, prefix)
    if committed is None:
        paths = {MODEL_PREFIX + file: directory / "model" / file for file in golden.files}
        paths[GOLDEN_FILE] = directory / GOLDEN_FILE
        files = tuple(
            manifests.upload_file(blobs, prefix=prefix, name=name, path=path) for name, path in sorted(paths.items())
        )
        committed = manifests.commit(
            blobs,
            prefix=prefix,
            kind="base_model",
            domain=domain,
            work_id=digest,
            files=files,
            details={
                "name": name,
                "architecture": golden.architecture,
                "parameters": golden.parameters,
                "dtype": golden.dtype,
                "tokenizer_sha256": golden.tokenizer_sha256,
                "chat_template_sha256": golden.chat_template_sha256,
            },
        )
    return BaseModelImported(domain=domain, manifest_key=committed.key, manifest_sha256=committed.sha256, name=name)
