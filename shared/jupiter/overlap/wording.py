"""Words, figures and shingles of a text: the units that every filter counts.

Owns: how text is cut into words, and which words carry no content. Does not know: any threshold.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

__all__ = ["STOP_WORDS", "content_words", "figures", "ngrams", "stem", "words"]

STEM_CHARS = 5
_WORD = re.compile(r"\w+", re.UNICODE)
_FIGURE = re.compile(r"(?<![\w.])[-+]?\d+(?:[.,_]\d+)*(?![\w])")

# Function words of English; none of them says what a passage is about.
STOP_WORDS = frozenset(
    """a about above after again against all also although am an and another any are as at be because been before
    being below between both but by can cannot could did do does doing done down during each either else etc even
    every few for from further get gets given gives had has have having he her here hers him his how however i if in
    instead into is it its itself just let like made make makes many may me might mine more most much must my neither
    no nor not now of off often on once one only or other our ours out over own per rather s same she should since so
    some such t than that the their theirs them then there these they this those through thus to too under until up
    upon us use used useful user users uses using very via want wants was we well were what when where whether which
    while who whom whose why will with within without would yes you your yours""".split()  # noqa: SIM905
)


def words(text: str) -> tuple[str, ...]:
    """Return the words in lower case: runs of letters, digits and underscores (`json.dumps` is two words)."""
    return tuple(_WORD.findall(text.lower()))


def stem(word: str) -> str:
    """Return the first five letters, so that `serialize`, `serializing` and `serialization` agree.

    Blunt on purpose: grounding asks whether a word has a relative in the passage, not for its lemma.
    """
    return word[:STEM_CHARS]


def content_words(text: str) -> tuple[str, ...]:
    """Return the stems of the words that carry content, in order, figures left out."""
    return tuple(stem(word) for word in words(text) if word not in STOP_WORDS and not word.isdigit() and len(word) > 1)


def figures(text: str) -> frozenset[str]:
    """Return the numbers, spelled alike: `1,000` and `1_000` are `1000`; digits inside names do not count."""
    return frozenset(match.group().replace(",", "").replace("_", "").lstrip("+") for match in _FIGURE.finditer(text))


def ngrams(tokens: Sequence[str], n: int) -> Iterator[tuple[str, ...]]:
    """Yield the runs of `n` tokens; none when there are fewer."""
    return (tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1))
