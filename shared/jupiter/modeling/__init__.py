"""What generator, trainer and evaluator share about causal language models on disk.

Owns: loading a Hugging Face directory safely (`loading`), the golden outputs recorded with a model (`golden`) and the
proof that a loaded model is the one that was recorded (`attestation`).
Does not know: versions, manifests, events. Imported only where torch is installed.
"""

from jupiter.modeling.attestation import Answer, AttestationError, attest, attest_answer, attest_record
from jupiter.modeling.golden import (
    GOLDEN_FILE,
    GOLDEN_PROMPTS,
    Golden,
    GoldenOutput,
    golden,
    read_golden,
    record_golden,
)
from jupiter.modeling.loading import (
    NoRoom,
    UnfitModel,
    available_memory_bytes,
    inspect_files,
    load_model,
    load_tokenizer,
    resolve_device,
)
from jupiter.modeling.tokenizers import chat_template_digest, tokenizer_digest

__all__ = [
    "GOLDEN_FILE",
    "GOLDEN_PROMPTS",
    "Answer",
    "AttestationError",
    "Golden",
    "GoldenOutput",
    "NoRoom",
    "UnfitModel",
    "attest",
    "attest_answer",
    "attest_record",
    "available_memory_bytes",
    "chat_template_digest",
    "golden",
    "inspect_files",
    "load_model",
    "load_tokenizer",
    "read_golden",
    "record_golden",
    "resolve_device",
    "tokenizer_digest",
]
