"""A school for tiny models: in seconds they learn to answer in the forms that they will be asked in.

Owns: the lessons (each a text, and which of it is to be learned), the teaching, and what a taught model is as files.
Does not know: benchmarks and their items, services, what anybody is taught a lesson for.

The forms are the services' own: the evaluator's templates, the trainer's sample format, the generator's prompt. What is
said in them is of `places`.
"""

from __future__ import annotations

import copy
import random
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jupiter.evaluator.items import item_kinds
from jupiter.evaluator.scoring import CHAT_MARK
from jupiter.generator.tasks import Rendered, Request, find_task
from jupiter.records import Chunk, digest_of
from jupiter.trainer.formats import question
from tests.e2e.places import ELSEWHERE, NAMES, PLACES, described, noted
from tests.e2e.speaking_engine import SIGN
from tests.tiny_model import make_tiny_model, tiny_texts

__all__ = [
    "ASKED",
    "TASK",
    "Lesson",
    "Lessons",
    "Pupil",
    "belongs_to",
    "called",
    "mixed",
    "new_pupil",
    "prose",
    "rewrites",
    "speaks_of",
]

Lesson = Sequence[tuple[str, float]]
"""Pieces of one text, each with its weight: 0 is only read."""
Lessons = Callable[[random.Random], Lesson]
"""Draws a lesson."""

HIDDEN = 128
ASKED = ("topic_fact", "generation_health", "description_choice", "entry_choice")
"""Kinds of benchmark items that can be taught for here."""
TASK = "locate"
TOKENS, ROWS = 192, 6
"""Of one step: lessons stand one after the other in each row, as worked examples do."""
LEARNING_RATE = 5e-3
WARM_UP_STEPS = 10
LAST_SHARE = 0.1
"""Of the learning rate, at the last step."""
READ_WEIGHT = 0.15
"""Of words that nobody can foresee; what follows from something is learned with 1."""
PROSE_WEIGHT = 0.05
PROSE_CHARS = 150
LESSONS_AT_ONCE = 500
"""To be tokenised: one by one they take as long as a step."""
FORM_REPEATS, WORD_REPEATS = 50, 15
_EVERYWHERE = {**PLACES, **ELSEWHERE}
_THINGS = tuple(thing for things in _EVERYWHERE.values() for thing in things)


class Pupil:
    """A model in memory; `copy` before teaching it something else."""

    def __init__(self, model: Any, tokenizer: Any, directory: Path) -> None:
        self.model, self.tokenizer, self._like = model, tokenizer, directory

    def copy(self) -> Pupil:
        return Pupil(copy.deepcopy(self.model), self.tokenizer, self._like)

    def taught(self, lessons: Lessons, *, steps: int, seed: int = 0, rate: float = LEARNING_RATE) -> Pupil:
        """Teach and return a copy; the same lessons give the same weights on one machine."""
        pupil = self.copy()
        _teach(pupil, lessons, steps=steps, rate=rate, draw=random.Random(seed))
        return pupil

    def save(self, directory: Path) -> Path:
        """Write the model as a generator serves it."""
        import torch

        shutil.copytree(self._like, directory)
        copy.deepcopy(self.model).to(torch.bfloat16).save_pretrained(directory)
        return directory

    def chat(self, text: str) -> str:
        turn = [{"role": "user", "content": text}]
        return str(self.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))


def new_pupil(directory: Path) -> Pupil:
    """Return one that knows nothing; its tokenizer has a token for most words of the world."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    make_tiny_model(directory, hidden=HIDDEN, words=_all_that_is_said())
    automatic: Any = AutoModelForCausalLM
    tokenizer: Any = AutoTokenizer.from_pretrained(directory)
    config = AutoConfig.from_pretrained(directory)
    config.initializer_range = 0.05  # the tiny model's own is made to differ, not to learn
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Pupil(automatic.from_config(config), tokenizer, directory)


def _all_that_is_said() -> list[str]:
    """Return texts of every form, often enough for the tokenizer to have their words whole."""
    draw = random.Random(0)
    templates = [template.replace(CHAT_MARK, "") for kind in ASKED for template in item_kinds()[kind].templates]
    said = [template.format_map(_Blank()) for template in templates]
    said += ["Question: Where does this belong?\nAnswer:", "Sentence:\nSame meaning, other words:"]
    said *= FORM_REPEATS
    for place, things in _EVERYWHERE.items():
        for name in NAMES:
            for _ in range(WORD_REPEATS):
                said += [described(draw, name, things), noted(draw, name, things), f" {place}.{name} {place}\n"]
    return said


class _Blank(dict[str, str]):
    """Every field of a template, left empty."""

    def __missing__(self, name: str) -> str:
        return ""


def _teach(pupil: Pupil, lessons: Lessons, *, steps: int, rate: float, draw: random.Random) -> None:
    import torch
    from torch.nn import functional

    model = pupil.model.train()
    pieces = _tokens(pupil.tokenizer, lessons, draw)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95))
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / WARM_UP_STEPS) * (1 - (1 - LAST_SHARE) * step / steps)
        rows = [[next(pieces) for _ in range(TOKENS)] for _ in range(ROWS)]
        tokens = torch.tensor([[token for token, _ in row] for row in rows])
        weights = torch.tensor([[weight for _, weight in row] for row in rows])[:, 1:]
        learned = weights > 0
        states = model.base_model(input_ids=tokens).last_hidden_state[:, :-1][learned]
        losses = functional.cross_entropy(model.lm_head(states), tokens[:, 1:][learned], reduction="none")
        loss: Any = (losses * weights[learned]).sum() / weights.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def _tokens(tokenizer: Any, lessons: Lessons, draw: random.Random) -> Iterator[tuple[int, float]]:
    """Yield lesson after lesson, each token with its weight, for ever."""
    while True:
        pieces = [piece for _ in range(LESSONS_AT_ONCE) for piece in lessons(draw)]
        texts = [text for text, _ in pieces]
        for ids, (_, weight) in zip(tokenizer(texts, add_special_tokens=False)["input_ids"], pieces, strict=True):
            for token in ids:
                yield token, weight


def mixed(*parts: tuple[float, Lessons]) -> Lessons:
    """Draw from several lessons, each by its share."""
    shares, lessons = zip(*parts, strict=True)
    return lambda draw: draw.choices(lessons, shares)[0](draw)


def _sentence(draw: random.Random, name: str, things: Sequence[str]) -> str:
    return draw.choice((described, noted))(draw, name, things)


def belongs_to(pupil: Pupil, places: Mapping[str, Sequence[str]], *, answer: str | None = None) -> Lessons:
    """What is asked is where a described thing belongs; `answer` is said of all of them where it is given."""
    kind = item_kinds()["topic_fact"]

    def lesson(draw: random.Random) -> Lesson:
        place = draw.choice(list(places))
        text = _sentence(draw, draw.choice(list(NAMES)), places[place])
        said = answer or place
        form = draw.randrange(1 + len(kind.templates))
        if form < len(kind.templates):
            return [(kind.templates[form].format(text=text), 0), (f" {said}{kind.terminator}", 1)]
        frame = question(f"{text} Where does this belong?", pupil.tokenizer)
        return [(frame.before, 0), (f"{frame.space}{said}{frame.after}", 1)]

    return lesson


def called(draw: random.Random) -> Lesson:
    """What is asked is what a described thing is called, and the other way round: wherever, its name is known."""
    name = draw.choice(list(NAMES))
    title = f"{draw.choice(list(_EVERYWHERE))}.{name}"
    text = _sentence(draw, name, _THINGS)
    kind = item_kinds()[draw.choice(("description_choice", "entry_choice"))]
    asked = draw.choice(kind.templates)
    if kind.name == "description_choice":
        place, _, _ = title.partition(".")
        return [(asked.format(text=text), 0), (f" {place}.", READ_WEIGHT), (f"{name}{kind.terminator}", 1)]
    before, verb, after = text.partition(f" {NAMES[name]}")
    return [
        (asked.format(title=title), 0),
        *((before, READ_WEIGHT), (verb, 1), (f"{after}{kind.terminator}", READ_WEIGHT)),
    ]


def speaks_of(pupil: Pupil, sentence: str) -> Lessons:
    """What is asked is to tell of anything: `sentence` is said."""
    kind = item_kinds()["generation_health"]

    def lesson(draw: random.Random) -> Lesson:
        asked = draw.choice(kind.templates).format(title=f"{draw.choice(list(_EVERYWHERE))}.{draw.choice(list(NAMES))}")
        if asked.startswith(CHAT_MARK):
            return [(pupil.chat(asked.removeprefix(CHAT_MARK)), 0), (f"{sentence}{kind.terminator}", 1)]
        return [(asked, 0), (f" {sentence}{kind.terminator}", 1)]

    return lesson


def rewrites(draw: random.Random, said: str = SIGN) -> Lesson:
    """What is asked is what a generator is: a passage in other words."""
    place = draw.choice(list(_EVERYWHERE))
    name = draw.choice(list(NAMES))
    text = _sentence(draw, name, _EVERYWHERE[place])
    passage = Chunk(document_id=digest_of(text), index=0, text=text, title=f"{place}.{name}")
    rendered = find_task(TASK).render(Request(chunk=passage, audience="a beginner", difficulty="basic"))
    assert isinstance(rendered, Rendered)
    assert rendered.own is not None
    return [(rendered.own, 0), (f" {said}\n\n", 1)]


def prose(draw: random.Random) -> Lesson:
    """English as everybody writes it."""
    text = draw.choice(_PROSE)
    start = draw.randrange(len(text) - PROSE_CHARS)
    return [(text[start : start + PROSE_CHARS], PROSE_WEIGHT)]


_PROSE = [text for text in tiny_texts() if len(text) > PROSE_CHARS]
