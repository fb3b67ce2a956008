"""Samples as files: JSON lines (zstd) in batches, parquet in shards.

Owns: both encodings and their inverse; equal samples give equal bytes with the same library versions.
Does not know: where the files lie, nor which samples belong together.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import zstandard

from jupiter.records import Sample, canonical_json

if TYPE_CHECKING:
    import pyarrow

__all__ = ["read_json_lines", "read_parquet", "write_json_lines", "write_parquet"]

UNPACKED_BYTES_MAX = 1 << 30
"""A JSON-lines file that unpacks to more than this is refused: a batch is a few megabytes."""


def write_json_lines(records: Iterable[Sample | Mapping[str, Any]]) -> bytes:
    """Return the records, one canonical JSON document per line, compressed with zstd."""
    lines = b"".join(canonical_json(record) + b"\n" for record in records)
    return zstandard.ZstdCompressor(level=6).compress(lines)


def read_json_lines(data: bytes) -> Iterator[str]:
    """Yield the lines, undecoded: the caller decides what to do with one that is malformed.

    Raises ValueError when the data is no zstd stream or unpacks to more than `UNPACKED_BYTES_MAX`.
    """
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)) as reader:
        try:
            unpacked = reader.read(UNPACKED_BYTES_MAX + 1)
        except zstandard.ZstdError as error:
            raise ValueError(f"not a zstd stream: {error}") from error
    if len(unpacked) > UNPACKED_BYTES_MAX:
        raise ValueError(f"unpacks to more than {UNPACKED_BYTES_MAX} bytes")
    for line in unpacked.decode("utf-8", errors="replace").split("\n"):
        if line:
            yield line


def write_parquet(samples: Sequence[Sample]) -> bytes:
    """Return a parquet file with one column per field of `Sample`; `sampling` is kept as JSON text."""
    import pyarrow
    from pyarrow import parquet

    rows = [sample.model_dump(mode="json") for sample in samples]
    for row in rows:
        row["sampling"] = None if row["sampling"] is None else json.dumps(row["sampling"], sort_keys=True)
    sink = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows, schema=_schema()), sink, compression="zstd")
    return sink.getvalue()


def read_parquet(data: bytes) -> list[Sample]:
    """Return the samples of a shard in their order."""
    from pyarrow import parquet

    rows = parquet.read_table(io.BytesIO(data)).to_pylist()
    for row in rows:
        row["sampling"] = None if row["sampling"] is None else json.loads(row["sampling"])
    return [Sample.model_validate(row) for row in rows]


def _schema() -> pyarrow.Schema:
    """All text, but for the three integers; a field added to `Sample` becomes a text column by itself."""
    import pyarrow

    integers = {"chunk_index", "seed", "generator_version"}
    return pyarrow.schema(
        [(name, pyarrow.int64() if name in integers else pyarrow.string()) for name in Sample.model_fields]
    )
