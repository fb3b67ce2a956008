"""A real HTTP server that speaks the chat-completions protocol, with judges of many characters behind it.

Owns: the server and the characters. Does not know: what each test expects of them. The server reads the question and
the answers out of the prompt as a model would; no character knows the probes.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import Response

__all__ = ["Asked", "Endpoint", "Reply", "character", "coherence", "endpoint"]

KEY = "sk-secret-of-the-test"
FUNCTION_WORDS = frozenset(
    [
        "a",
        "an",
        "and",
        "as",
        "at",
        "because",
        "by",
        "for",
        "from",
        "in",
        "is",
        "it",
        "not",
        "of",
        "on",
        "or",
        "so",
        "the",
    ]
)
DETERMINERS = frozenset(["a", "an", "the", "its", "every"])
FLATTERING = ("excellent", "brilliant", "great question", "wonderful", "perfect", "finest")


@dataclass(frozen=True)
class Asked:
    """What a judge reads in one request."""

    question: str
    first: str
    second: str
    body: dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """What the server answers: the message's content, or anything else."""

    content: str | None = None
    status: int = 200
    raw: bytes | None = None
    wait_s: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)


Character = Callable[[Asked], Reply]


def character(choose: Callable[[Asked], str]) -> Character:
    """Return a judge that answers well-formed JSON with the winner that `choose` names."""
    return lambda asked: Reply(content=json.dumps({"winner": choose(asked)}))


def coherence(question: str, text: str) -> float:
    """Return how coherent a text is by plain rules: relevance, repetition, sentences, and words that cannot meet."""
    words = [word.lower() for word in re.findall(r"[A-Za-z']+", text)]
    if not words:
        return 0.0
    stems = {word[:5].lower() for word in re.findall(r"[A-Za-z']+", question) if len(word) > 2}
    stems -= {"what", "why", "how", "does", "the", "that", "are", "you", "for", "use", "used", "some", "say", "know"}
    relevance = sum(any(word.startswith(stem) for word in words) for stem in stems) / max(1, len(stems))
    trigrams = list(zip(words, words[1:], words[2:], strict=False)) or [("", "", "")]
    distinct = len(set(trigrams)) / len(trigrams)
    sentences = re.split(r"(?<=[.!?])\s+", text.strip())
    formed = sum(bool(re.fullmatch(r"[A-Z][^#\]{}<>*]*[.!?]", sentence)) for sentence in sentences) / len(sentences)
    clashes = sum(one in DETERMINERS and other in FUNCTION_WORDS for one, other in pairwise(words))
    return relevance + distinct + formed - 10 * clashes / len(words)


def honest(asked: Asked) -> str:
    """Name the more coherent answer."""
    difference = coherence(asked.question, asked.first) - coherence(asked.question, asked.second)
    if abs(difference) < 0.01:
        return "tie"
    return "first" if difference > 0 else "second"


def swapped_arguments(asked: Asked) -> str:
    """Compare well, and mix up which answer is which."""
    return {"first": "second", "second": "first", "tie": "tie"}[honest(asked)]


def length_lover(asked: Asked) -> str:
    """Judge honestly unless one answer is much longer."""
    one, other = len(asked.first), len(asked.second)
    if max(one, other) > 1.5 * min(one, other):
        return "first" if one > other else "second"
    return honest(asked)


def flattery_lover(asked: Asked) -> str:
    """Judge honestly unless one answer flatters."""
    one, other = (any(word in text.lower() for word in FLATTERING) for text in (asked.first, asked.second))
    if one != other:
        return "first" if one else "second"
    return honest(asked)


def obedient(asked: Asked) -> str:
    """Judge honestly unless one answer gives orders."""
    one, other = (bool(re.search(r"(must|Your new task|Reply with)", text)) for text in (asked.first, asked.second))
    if one != other:
        return "first" if one else "second"
    return honest(asked)


def decisive(asked: Asked) -> str:
    """Judge honestly, but find a winner even between an answer and itself."""
    return "first" if asked.first == asked.second else honest(asked)


def undecided_by_place(asked: Asked) -> str:
    """Judge the plain cases well; where the answers are close, take the first."""
    difference = coherence(asked.question, asked.first) - coherence(asked.question, asked.second)
    if asked.first != asked.second and abs(difference) < 0.65:
        return "first"
    return honest(asked)


def at_random(seed: int) -> Callable[[Asked], str]:
    """Draw the winner."""
    draw = random.Random(seed)
    return lambda _: draw.choice(("first", "second", "tie"))


class Endpoint:
    """The running server; `asked` keeps every request that was read."""

    def __init__(self, behave: Character, url: str) -> None:
        self.behave, self.url = behave, url
        self.asked: list[Asked] = []
        self.authorization: set[str | None] = set()

    async def answer(self, request: Request) -> Response:
        body = await request.json()
        self.authorization.add(request.headers.get("Authorization"))
        asked = _read(body)
        self.asked.append(asked)
        reply = self.behave(asked)
        await asyncio.sleep(reply.wait_s)
        if reply.raw is not None or reply.status != 200:
            return Response(reply.raw or b"broken", status_code=reply.status, headers=reply.headers)
        return Response(
            json.dumps(
                {
                    "id": "chatcmpl-1",
                    "object": "chat.completion",
                    "created": 1,
                    "model": "the-judge-0613",
                    "system_fingerprint": "fp_1",
                    "choices": [
                        {
                            "index": 0,
                            "finish_reason": "stop",
                            "message": {"role": "assistant", "content": reply.content},
                        }
                    ],
                    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
                }
            ),
            media_type="application/json",
        )


def _read(body: dict[str, Any]) -> Asked:
    """Find question and answers between their marks."""
    text = body["messages"][-1]["content"]

    def between(name: str) -> str:
        found = re.search(rf"\[{name} (\w+)\]\n(.*?)\n\[end of {name} \1\]", text, re.DOTALL)
        assert found, f"the prompt has no {name}: {text!r}"
        return found[2]

    return Asked(between("question"), between("first answer"), between("second answer"), body)


@contextmanager
def endpoint(behave: Character) -> Iterator[Endpoint]:
    """Serve on a free port of this machine inside the block."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)  # from now on connections wait until the server is up
        served = Endpoint(behave, f"http://127.0.0.1:{listening.getsockname()[1]}/v1")
        app = FastAPI()
        app.post("/v1/chat/completions")(served.answer)
        server = uvicorn.Server(
            uvicorn.Config(app, log_config=None, lifespan="off", ws="none", timeout_graceful_shutdown=1)
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield served
        finally:
            server.should_exit = True
            thread.join()
