"""MinHash signatures of training texts, and an index of near-duplicates over them.

Owns: shingle sizes, the hash functions, the signature file of a shard, the LSH index and its store in the process.
Does not know: the store that several curators share (`shared_index`), nor which texts are compared with which (the
filters and `history` decide).

Word 5-grams are what GPT-3, RefinedWeb and FineWeb shingle web pages by. One changed word touches k shingles, so two
texts of n words that differ in one word have a Jaccard similarity of (n-2k+1)/(n+1): with k=5, .85 needs 66 words.
Most samples here have 10-60 words, and at that length 5-grams would call nothing a near-duplicate. So the shingle
shrinks with the text: k=2 up to 29 words (one change in 26 words is .85), k=3 up to 59 (one in 39), else 5. Single
words are never shingles: they lose the order, and `a to b` is not `b to a`. Texts near a boundary are looked up with
both sizes, so a duplicate one word longer is still found.
"""

from __future__ import annotations

import copy
import io
import zipfile
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from typing import Protocol

import numpy as np
import xxhash
from datasketch import MinHash, MinHashLSH

from jupiter.overlap import wording

__all__ = [
    "PERMUTATIONS",
    "SCHEME",
    "InProcess",
    "NearDuplicateIndex",
    "Store",
    "bands",
    "from_values",
    "own_size",
    "pack",
    "shingles",
    "signatures_of",
    "sizes_for",
    "sketch",
    "unpack",
]

PERMUTATIONS = 128
"""Standard error of the estimated similarity at .85: sqrt(.85 * .15 / 128) = .03."""
SCHEME = "affine32"
_SEED = 1
# Longest text in words -> shingle size in words.
_SIZES = ((29, 2), (59, 3))
_LONG_SIZE = 5
_LENGTH_RATIO = 0.85
"""Texts whose lengths differ by more than this cannot reach the default similarity."""
_PROPOSED_MIN = 0.99
# Shared by every signature: datasketch would otherwise draw the permutations anew for each.
_BLANK = MinHash(num_perm=PERMUTATIONS, seed=_SEED, scheme=SCHEME, hashfunc=xxhash.xxh32_intdigest)


def own_size(word_count: int) -> int:
    """Return the shingle size under which a text of so many words is indexed."""
    for longest, size in _SIZES:
        if word_count <= longest:
            return size
    return _LONG_SIZE


def sizes_for(word_count: int) -> tuple[int, ...]:
    """Return the sizes a text is looked up with: its own first, then those of texts about as long."""
    own = own_size(word_count)
    others = {own_size(int(word_count * _LENGTH_RATIO)), own_size(int(word_count / _LENGTH_RATIO) + 1)} - {own}
    return (own, *sorted(others))


def shingles(words: Sequence[str], size: int) -> list[bytes]:
    """Return the distinct word n-grams in a fixed order; a text shorter than one shingle is its own only shingle."""
    grams = {" ".join(gram) for gram in wording.ngrams(words, size)} or {" ".join(words)}
    return [gram.encode() for gram in sorted(grams)]


def signatures_of(shingled: Iterable[Sequence[bytes]]) -> list[MinHash]:
    """Sketch many texts at once with shared permutations: 16 times the speed of the plain loop (bench/minhash.py)."""
    return list(
        MinHash.generator(
            shingled,
            num_perm=PERMUTATIONS,
            seed=_SEED,
            scheme=SCHEME,
            hashfunc=xxhash.xxh32_intdigest,
            permutations=_BLANK.permutations,
        )
    )


def sketch(texts: Sequence[Sequence[str]]) -> list[Mapping[int, MinHash]]:
    """Return for each text (as words) its signature under every size of `sizes_for`, in one bulk pass."""
    plan = [(number, size) for number, words in enumerate(texts) for size in sizes_for(len(words))]
    made = signatures_of(shingles(texts[number], size) for number, size in plan)
    sketches: list[dict[int, MinHash]] = [{} for _ in texts]
    for (number, size), signature in zip(plan, made, strict=True):
        sketches[number][size] = signature
    return list(sketches)


def pack(signatures: Mapping[str, MinHash]) -> bytes:
    """Return an `.npz` of ids and hash values; the archive's dates are constant, so equal input gives equal bytes."""
    ids = sorted(signatures)
    values = np.array([signatures[key].hashvalues for key in ids], dtype=np.uint32).reshape(len(ids), PERMUTATIONS)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, ids=np.array(ids, dtype="U64"), values=values)
    return buffer.getvalue()


def unpack(data: bytes) -> dict[str, MinHash]:
    """Return the signatures by id. Raises ValueError for anything that `pack` did not write."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            ids, values = archive["ids"], archive["values"]
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"not a signature file: {error}") from error
    if values.shape != (len(ids), PERMUTATIONS):
        raise ValueError(f"signatures have shape {values.shape}; {(len(ids), PERMUTATIONS)} was expected")
    return {str(key): from_values(row) for key, row in zip(ids, values, strict=True)}


def from_values(values: np.ndarray[tuple[int], np.dtype[np.uint32]]) -> MinHash:
    """Return the signature of these hash values."""
    return MinHash(
        num_perm=PERMUTATIONS,
        seed=_SEED,
        scheme=SCHEME,
        hashfunc=xxhash.xxh32_intdigest,
        hashvalues=values,
        permutations=_BLANK.permutations,
    )


def bands(threshold: float) -> tuple[int, int]:
    """Return (bands, rows): the longest rows that still propose 99 % of the pairs that are exactly at the threshold.

    A pair of similarity s is proposed with probability 1-(1-s^rows)^bands. False proposals cost a comparison only.
    """
    for rows in range(PERMUTATIONS, 1, -1):
        count = PERMUTATIONS // rows
        if 1 - (1 - threshold**rows) ** count >= _PROPOSED_MIN:
            return count, rows
    return PERMUTATIONS, 1


class Store(Protocol):
    """Where an index keeps its texts. It may hold more than the index knows of: what else is there is passed over."""

    def insert(self, group: str, signatures: Mapping[str, MinHash]) -> None:
        """Keep the texts of one group, by key; a group that is kept already changes nothing."""
        ...

    def alike(self, signature: MinHash) -> set[str]:
        """Return the keys of texts that share a band with the signature."""
        ...

    def signatures(self, keys: Collection[str]) -> Mapping[str, MinHash]:
        """Return the signatures of stored texts."""
        ...

    def intact(self) -> bool:
        """Tell whether everything that was inserted since this object was made is still there."""
        ...


class InProcess:
    """The store of a curator that is alone: it dies with the process and is read again from the shards."""

    def __init__(self, *, threshold: float) -> None:
        self._lsh = MinHashLSH(num_perm=PERMUTATIONS, params=bands(threshold))
        self._signatures: dict[str, MinHash] = {}

    def insert(self, group: str, signatures: Mapping[str, MinHash]) -> None:  # noqa: ARG002 - nothing is kept by group
        for key, signature in signatures.items():
            if key not in self._signatures:
                self._signatures[key] = signature
                self._lsh.insert(key, signature, check_duplication=False)

    def alike(self, signature: MinHash) -> set[str]:
        return set(self._lsh.query(signature))

    def signatures(self, keys: Collection[str]) -> Mapping[str, MinHash]:
        return {key: self._signatures[key] for key in keys}

    def intact(self) -> bool:
        return True


class NearDuplicateIndex:
    """Texts by signature; `find` says which text that was added is at least `threshold` similar.

    LSH proposes, the full signatures dispose: the bands are tuned for few misses, and each proposal's similarity is
    then estimated from all 128 values.
    """

    def __init__(self, *, threshold: float, store: Store | None = None) -> None:
        self._threshold = threshold
        self._store = store or InProcess(threshold=threshold)
        self._keys: set[str] = set()
        self._left_out: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self._keys - self._left_out)

    def __contains__(self, key: str) -> bool:
        return key in self._keys and key not in self._left_out

    @property
    def intact(self) -> bool:
        """Whether the store still has all that was added; if not, what `find` answered since is worth nothing."""
        return self._store.intact()

    def without(self, keys: Set[str]) -> NearDuplicateIndex:
        """Return a view that finds none of `keys`; read from it, and add to the index itself."""
        view = copy.copy(self)
        view._left_out = self._left_out | keys
        return view

    def add(self, key: str, signature: MinHash) -> None:
        """Index one text under `key`; a key that is already there is left as it is."""
        self.add_group(key, {key: signature})

    def add_group(self, group: str, signatures: Mapping[str, MinHash]) -> None:
        """Index texts that belong together, such as a shard's: the store is asked once for all of them."""
        self._store.insert(group, {key: signatures[key] for key in signatures.keys() - self._keys})
        self._keys |= signatures.keys()

    def find(self, sketch: Mapping[int, MinHash]) -> tuple[str, float] | None:
        """Return the most similar stored text at or over the threshold and its similarity, else None."""
        best: tuple[str, float] | None = None
        for signature in sketch.values():
            proposed = sorted((self._store.alike(signature) & self._keys) - self._left_out)
            known = self._store.signatures(proposed) if proposed else {}
            for key in proposed:
                similarity = float(known[key].jaccard(signature))
                if similarity >= self._threshold and (best is None or similarity > best[1]):
                    best = (key, similarity)
        return best
