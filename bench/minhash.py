"""MinHash signatures: datasketch's bulk path, as the curator uses it, against the plain loop.

    python bench/minhash.py [--texts 3000] [--rounds 3]

Both sketch the same word 5-gram sets (docstrings of this interpreter's library, 20 words and more) with 128
permutations, in one process, the rounds alternating so that a busy machine slows both alike. The plain loop is what
datasketch's documentation shows: a MinHash per text, SHA-1, one `update` per shingle.
"""

from __future__ import annotations

import argparse
import ast
import statistics
import sysconfig
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from datasketch import MinHash

from jupiter.overlap.signatures import PERMUTATIONS, shingles, signatures_of
from jupiter.overlap.wording import words

WORDS_MIN = 20
SHINGLE_SIZE = 5


def docstrings() -> Iterator[str]:
    """Yield the docstrings of the standard library's source, in a fixed order."""
    warnings.simplefilter("ignore")
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        if "site-packages" in path.parts:
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = ast.get_docstring(node)
                if text and len(text.split()) >= WORDS_MIN:
                    yield text


def plain(shingled: Sequence[Sequence[bytes]]) -> list[MinHash]:
    made = []
    for shingle_set in shingled:
        signature = MinHash(num_perm=PERMUTATIONS)
        for shingle in shingle_set:
            signature.update(shingle)
        made.append(signature)
    return made


def seconds(sketch: Callable[[Sequence[Sequence[bytes]]], object], shingled: Sequence[Sequence[bytes]]) -> float:
    started = time.perf_counter()
    sketch(shingled)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description="MinHash signatures: bulk against the plain loop.")
    parser.add_argument("--texts", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    texts = [text for text, _ in zip(docstrings(), range(arguments.texts), strict=False)]
    shingled = [shingles(words(text), SHINGLE_SIZE) for text in texts]
    print(f"{len(texts)} texts, {sum(len(words(text)) for text in texts) / len(texts):.0f} words on average")
    took: dict[str, list[float]] = {"bulk": [], "plain": []}
    for _ in range(arguments.rounds):
        took["bulk"].append(seconds(signatures_of, shingled))
        took["plain"].append(seconds(plain, shingled))
    for name, times in took.items():
        print(f"{name:<6} {len(texts) / statistics.median(times):>8.0f} signatures/s (median of {arguments.rounds})")
    print(f"ratio  {statistics.median(took['plain']) / statistics.median(took['bulk']):>8.1f}")


if __name__ == "__main__":
    main()
