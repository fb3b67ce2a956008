"""The built-in domain's benchmark does not change by a kind of item that is added: its kinds are named."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from jupiter.config.loading import load_domain
from jupiter.curator.intake import document_from
from jupiter.domains import source
from jupiter.evaluator.benchmark import build_benchmark
from jupiter.evaluator.items import Corpus, item_kinds
from jupiter.evaluator.items import prose_fact as added
from jupiter.records import Document, canonical_json

ROOT = Path(__file__).parents[3]
SAMPLES = 60
# Builds the benchmark of every kind that there is in the package at sys.argv[1], of the documents at sys.argv[2].
BUILD_OF_ALL_KINDS = f"""
import json, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from jupiter.evaluator.benchmark import build_benchmark
from jupiter.evaluator.items import Corpus, item_kinds
from jupiter.records import Document

documents = [Document.model_validate_json(line) for line in Path(sys.argv[2]).read_text().splitlines()]
corpus = Corpus(
    held_out=tuple(one for one in documents if one.split == "held_out"),
    training=tuple(one for one in documents if one.split == "training"),
    run_session=None,
)
benchmark = build_benchmark(corpus, domain="python_stdlib", samples={SAMPLES}, seed=0)
print(json.dumps([benchmark.digest, sorted(item_kinds())]))
"""


def _documents() -> list[Document]:
    published = source("python_stdlib", entries_max=60)
    return [document_from(canonical_json(one), domain="python_stdlib", held_out_fraction=0.2) for one in published]


def _digest(documents: list[Document], *, only_kinds: tuple[str, ...] = ()) -> str:
    corpus = Corpus(
        held_out=tuple(one for one in documents if one.split == "held_out"),
        training=tuple(one for one in documents if one.split == "training"),
        run_session=None,
    )
    return build_benchmark(corpus, domain="python_stdlib", samples=SAMPLES, seed=0, only_kinds=only_kinds).digest


def test_the_new_kind_leaves_the_digest_as_it_was(tmp_path: Path) -> None:
    package = tmp_path / "jupiter" / "evaluator"
    shutil.copytree(Path(added.__file__).parents[1], package)
    (package / "items" / Path(added.__file__).name).unlink()
    documents = _documents()
    lines = tmp_path / "documents.jsonl"
    lines.write_text("\n".join(document.model_dump_json() for document in documents))

    command = [sys.executable, "-c", BUILD_OF_ALL_KINDS, str(tmp_path), str(lines)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    before, kinds_before = json.loads(answer.stdout)

    named = load_domain("python_stdlib", ROOT / "config" / "domains").benchmark_kinds
    assert set(kinds_before) == set(named) == set(item_kinds()) - {added.KIND.name}
    assert _digest(documents, only_kinds=named) == before
    assert _digest(documents) != before, "of all kinds that there are now it would be another one"
