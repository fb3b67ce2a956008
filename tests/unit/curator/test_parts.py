"""Words, figures, tokens, sample files, and what the curator must not import."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from jupiter import keys, manifests
from jupiter.blobs.memory import MemoryBlobs
from jupiter.chunks import chunk
from jupiter.curator.real import real_samples
from jupiter.curator.tokens import read_token_counter
from jupiter.overlap.wording import content_words, figures, words
from jupiter.records import Sampling
from jupiter.sample_files import read_json_lines, read_parquet, write_json_lines, write_parquet
from tests.unit.curator.material import DOMAIN, GOOD, document, register_generator, sample


def test_figures_are_spelled_alike_and_digits_in_names_do_not_count() -> None:
    assert figures("1,000 of 1_000 and -3.5 or +2") == {"1000", "-3.5", "2"}
    assert figures("base64, utf8, x2 and sha256sum") == frozenset()
    assert figures("It ends at 10.") == {"10"}


def test_words_and_content_words() -> None:
    assert words("json.dumps(obj) isn't") == ("json", "dumps", "obj", "isn", "t")
    assert content_words("The serializer is serializing 5 objects") == ("seria", "seria", "objec")


def test_tokens_are_counted_by_the_generators_tokenizer() -> None:
    blobs = MemoryBlobs()
    assert read_token_counter(blobs, DOMAIN) is None
    register_generator(blobs)
    counter = read_token_counter(blobs, DOMAIN)
    assert counter is not None
    assert counter.count(["one two three", "", "a.b"]) == [3, 1, 3]
    assert counter.count([]) == []
    assert (
        counter.sha256
        == manifests.read(blobs, f"{keys.generator_prefix(DOMAIN, 1)}/manifest.json").manifest.files[0].sha256
    )


def test_an_entry_is_learned_in_both_directions_and_prose_as_it_is() -> None:
    entry = document("Serialize obj to a string.")
    there, back, where, whence = real_samples(entry, chunk(entry, 1_200))
    assert (there.instruction, there.response) == ("What is json.dumps?", "Serialize obj to a string.")
    assert (back.instruction, back.response) == ("Serialize obj to a string. What is it called?", "json.dumps")
    assert (where.instruction, where.response) == ("Where does dumps belong?", "json")
    assert (whence.instruction, whence.response) == ("Serialize obj to a string. Where does this belong?", "json")
    assert len({sample.sample_id for sample in (there, back, where, whence)}) == 4
    assert {sample.loss_on for sample in (there, back, where, whence)} == {"response"}
    prose = document("A paragraph about things.\n\nAnother one about others.", title=None, kind="text")
    plain = list(real_samples(prose, chunk(prose, 30)))
    assert [(one.instruction, one.loss_on, one.chunk_index) for one in plain] == [(None, "all", 0), (None, "all", 1)]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), max_size=5))
def test_samples_survive_both_files(texts: list[str]) -> None:
    samples = [
        sample(text, seed=number, sampling=Sampling(temperature=0.5) if number % 2 else None, test="assert x")
        for number, text in enumerate(texts)
    ]
    assert read_parquet(write_parquet(samples)) == samples
    assert write_parquet(samples) == write_parquet(samples)
    lines = list(read_json_lines(write_json_lines(samples)))
    assert [json.loads(line) for line in lines] == [one.model_dump(mode="json") for one in samples]


def test_a_shard_of_a_newer_release_is_read_without_the_column_that_it_adds() -> None:
    written = parquet.read_table(io.BytesIO(write_parquet([sample(GOOD, sampling=Sampling())])))
    wider = io.BytesIO()
    parquet.write_table(written.append_column("language", pyarrow.array(["en"])), wider)
    [read] = read_parquet(wider.getvalue())
    assert (read.response, read.sampling) == (GOOD, Sampling())
    assert parquet.read_table(io.BytesIO(write_parquet([read]))).equals(written)


def test_what_is_no_zstd_stream_is_refused() -> None:
    with pytest.raises(ValueError, match="zstd"):
        list(read_json_lines(GOOD.encode()))


def test_the_curator_imports_neither_torch_nor_transformers() -> None:
    program = (
        "import sys, jupiter.curator.__main__, jupiter.curator.handlers, jupiter.curator.sandboxed\n"
        "from jupiter.curator.filters import filter_types; filter_types()\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
