"""Accuracy: the term or figure that a held-out sentence ends with, by exact answer.

What plain prose offers of facts, without reference entries or examples. The answer ends its sentence, so that nothing
may follow, and is a word of the domain: other documents use it, but not most of them. Nothing shown holds it or a word
that begins like it. A sentence that the training documents hold too, in nearly the same words, is left out.

Measured with SmolLM2-135M on Python's reference as plain files: cut anywhere, before words that at most one document in
ten uses, it knew none of 52; cut as here it knows 14 of 40.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from jupiter.evaluator.items.item import Corpus, Item, PromptSetting, half_of, item_id_of
from jupiter.evaluator.items.passages import paragraphs
from jupiter.evaluator.items.titles import word_jaccard
from jupiter.records import Document

DOCUMENTS_MIN, DOCUMENT_SHARE_MAX = 2, 1 / 2
"""A word of the domain: of prose documents, at least two hold it (no typing error) and at most half (no common word).
"""
SHOWN_CHARS_MIN = 40
"""Of the sentence itself: a shorter beginning goes on in too many ways."""
STEM_CHARS = 5
"""Words that begin with the same so many characters count as one word (`schedule`, `scheduler`)."""
ITEMS_PER_DOCUMENT_MAX = 12
"""Twice that of the other kinds of prose: this one alone carries 40 % of the score."""
ITEMS_PER_ANSWER_MAX = 3
"""So that no favourite word of a domain is worth guessing."""
WORD_JACCARD_MAX = 0.6
"""Above it a sentence counts as the trained one (DESIGN §9)."""
_SENTENCE_GAP = re.compile(r"(?<=[.!?])\s+(?=[\"'(]?[A-Z0-9])")
_WORD = re.compile(r"\w+(?:[-.:/]\w+)*")
# A word of five letters or more, or a figure of two digits or more: shorter ones can be guessed. It may be quoted.
_LAST = re.compile(r"(?<= )([\"'`*]*)(?P<word>[A-Za-z][\w.:/-]{4,}|\d[\d.,:]*\d)\1\.$")

Exposure = Literal["recall", "unseen"]


@dataclass(frozen=True)
class _Cut:
    """A sentence of a held-out document, without its last word."""

    group: str
    before: str
    """The sentence before it."""
    beginning: str
    answer: str
    """The last word as it stands there, its quotes and the full stop with it."""
    word: str
    """The last word, folded."""

    @property
    def sentence(self) -> str:
        return f"{self.beginning} {self.answer}"


@dataclass(frozen=True)
class ProseFact:
    name: str = "prose_fact"
    dimension: str = "accuracy"
    method: str = "exact"
    weight: float = 0.5
    terminator: str = "\n"
    templates: tuple[str, ...] = ("{before}\n{beginning}", "Context: {before}\nComplete sentence: {beginning}")
    settings: tuple[PromptSetting, ...] = (PromptSetting(1, 3), PromptSetting(0, 3))

    def build(self, corpus: Corpus, rng: random.Random) -> list[Item]:
        held_out = [doc for doc in corpus.held_out if doc.kind == "text"]
        known = _words_of_the_domain([*held_out, *(doc for doc in corpus.training if doc.kind == "text")])
        cuts = [cut for doc in held_out for cut in _cuts_of(doc, known, rng)]
        trained = _sentences_with({cut.word for cut in cuts}, corpus.training)
        rng.shuffle(cuts)
        items: list[Item] = []
        asked: Counter[str] = Counter()
        for cut in cuts:
            exposure = _exposure(cut, trained.get(cut.word, ()), known)
            if exposure is not None and asked[cut.word] < ITEMS_PER_ANSWER_MAX:
                asked[cut.word] += 1
                items.append(self._item(cut, exposure))
        # What nobody was told tells two models apart the least, so it only fills up.
        return sorted(items, key=lambda item: item.exposure != "recall")

    def _item(self, cut: _Cut, exposure: Exposure) -> Item:
        return Item(
            item_id=item_id_of(self.name, cut.sentence),
            kind=self.name,
            dimension="accuracy",
            cluster=cut.group,
            half=half_of(cut.group),
            fields={"before": cut.before, "beginning": cut.beginning},
            answer=f" {cut.answer}",
            exposure=exposure,
            texts=(cut.sentence,),
        )


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _words_of_the_domain(documents: Sequence[Document]) -> frozenset[str]:
    counts = Counter(word for doc in documents for word in set(_words(doc.text)))
    most = max(DOCUMENTS_MIN, int(DOCUMENT_SHARE_MAX * len(documents)))
    return frozenset(word for word, count in counts.items() if DOCUMENTS_MIN <= count <= most)


def _cuts_of(doc: Document, known: frozenset[str], rng: random.Random) -> Iterator[_Cut]:
    """Yield up to ITEMS_PER_DOCUMENT_MAX cuts of one document."""
    found: list[_Cut] = []
    sentences = [sentence for line in paragraphs(doc.text) for sentence in _SENTENCE_GAP.split(line)]
    for before, sentence in pairwise(sentences):
        last = _LAST.search(sentence)
        if last and last.start() >= SHOWN_CHARS_MIN and (word := last["word"].lower()) in known:
            beginning = sentence[: last.start()].rstrip()
            if not _given_away(word, f"{before} {beginning}"):
                found.append(_Cut(group=doc.group, before=before, beginning=beginning, answer=last.group(), word=word))
    yield from rng.sample(found, min(len(found), ITEMS_PER_DOCUMENT_MAX))


def _given_away(word: str, shown: str) -> bool:
    return any(other.startswith(word[:STEM_CHARS]) for other in _words(shown))


def _sentences_with(answers: set[str], training: Sequence[Document]) -> Mapping[str, Sequence[str]]:
    """Return answer to the sentences of the training documents that hold it."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for doc in training:
        for sentence in _SENTENCE_GAP.split(" ".join(doc.text.split())):
            for answer in answers.intersection(_words(sentence)):
                found[answer].append(sentence)
    return found


def _exposure(cut: _Cut, trained: Sequence[str], known: frozenset[str]) -> Exposure | None:
    """Say whether a trained sentence relates the answer to another word of this one; None: it is this very one."""
    if any(word_jaccard(cut.sentence, sentence) > WORD_JACCARD_MAX for sentence in trained):
        return None
    others = (set(_words(cut.sentence)) & known) - {cut.word}
    return "recall" if any(others & set(_words(sentence)) for sentence in trained) else "unseen"


KIND = ProseFact()
