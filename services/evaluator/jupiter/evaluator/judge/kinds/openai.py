"""A judge behind any OpenAI-compatible chat-completions endpoint (vLLM, llama.cpp, Ollama, OpenAI, …).

Owns: the request, the verdict's JSON schema, time limits, one second try. Does not know: probes, pairs.

The client is httpx, a dependency of the project already: one POST needs no SDK, and its limits are ours to set.
The verdict is structured output that pydantic parses; what does not parse is asked once more and then counts as failed.
Nothing is ever read out of free text.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jupiter.config import ClusterConfig
from jupiter.errors import ConfigError
from jupiter.evaluator.judge.comparing import Comparison, Failed, Progress, Winner
from jupiter.evaluator.judge.parties import Party, plain_name
from jupiter.evaluator.judge.wording import ASK_JSON, CRITERIA, material

__all__ = ["OpenAIJudge", "create"]

ATTEMPTS = 2
CONNECT_TIMEOUT_S = 5.0
RESPONSE_BYTES_MAX = 1 << 20
"""A verdict with its envelope has about 1 KB."""
PROMPT_CHARS_MAX = 24_000
"""Of one pair: about 6,000 tokens, which every model that can judge takes."""
RETRY_PAUSE_S, RETRY_PAUSE_MAX_S = 0.2, 10.0
"""Before the second try; the longer one when the server asks for it (Retry-After)."""
SIGN_OF_LIFE_S = 0.5
"""While answers are awaited, `progress` is called so often: it notices when the service stops."""
ERROR_CHARS_MAX = 200


class _Verdict(BaseModel):
    """What the judge must answer."""

    model_config = ConfigDict(extra="forbid", strict=True)

    winner: Winner


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Completion(BaseModel):
    """The part of a chat completion that is read."""

    choices: tuple[_Choice, ...] = Field(min_length=1)
    model: str | None = None
    system_fingerprint: str | None = None


def create(config: ClusterConfig, environ: Mapping[str, str]) -> OpenAIJudge:
    """Return the judge at `judge.url`; nothing is sent yet. Raises ConfigError."""
    settings = config.judge
    url = _checked_url(settings.url)
    if not settings.model:
        raise ConfigError("judge.kind is 'openai', but judge.model is empty: name the model at the endpoint")
    return OpenAIJudge(
        url=url,
        model=settings.model,
        key=_key(settings.api_key_env, environ),
        seed=config.evaluator.seed,
        timeout_s=settings.timeout_s,
        max_tokens=settings.max_tokens,
        requests_in_flight_max=settings.requests_in_flight_max,
        pairs_max=settings.pairs_max,
    )


def _checked_url(text: str) -> str:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise ConfigError(f"judge.url is not an address: {error}") from error
    if url.userinfo or url.query:
        raise ConfigError("judge.url holds a user, a password or a query; name the key's variable in judge.api_key_env")
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError(f"judge.url is {text!r}; an address like http://127.0.0.1:8000/v1 was expected")
    return text.rstrip("/")


def _key(name: str, environ: Mapping[str, str]) -> str:
    """Return the key from the environment, or nothing when none is named. No message repeats what stands there."""
    if not name:
        return ""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or name.startswith("JUPITER_"):
        raise ConfigError(
            "judge.api_key_env is not a name for the key's variable: put the key into a variable such as JUDGE_API_KEY "
            "(not beginning with JUPITER_) and write that name"
        )
    key = environ.get(name, "").strip()
    if not key:
        raise ConfigError(f"judge.api_key_env names the variable {name}, which is not set or empty")
    return key


@dataclass(frozen=True, kw_only=True)
class OpenAIJudge:
    """An endpoint and one model there."""

    url: str
    model: str
    key: str = field(repr=False)
    seed: int
    timeout_s: float
    max_tokens: int
    requests_in_flight_max: int
    pairs_max: int
    computes_here: bool = False

    @property
    def name(self) -> str:
        return f"{self.model} at {self.url}"

    def conflict(self, party: Party) -> str:
        """Compare names: an endpoint shows no weights, so a contestant served under another name is not found out."""
        if plain_name(self.model) not in party.names:
            return ""
        return f"judge.model {self.model!r} is a name of the {party.role} itself; set judge.model to another model"

    @contextmanager
    def sitting(self) -> Iterator[_OpenAISitting]:
        """Open the connections; they are closed after the block."""
        client = httpx.Client(
            timeout=httpx.Timeout(self.timeout_s, connect=min(CONNECT_TIMEOUT_S, self.timeout_s)),
            limits=httpx.Limits(max_connections=self.requests_in_flight_max),
            headers={"Authorization": f"Bearer {self.key}"} if self.key else {},
            # A proxy of the environment is for the world outside, not for a server on this machine.
            trust_env=not _is_here(self.url),
        )
        with client:
            yield _OpenAISitting(self, client)


class _Again(Exception):
    """An attempt failed in a way that another one may mend."""

    def __init__(self, reason: str, *, pause_s: float = RETRY_PAUSE_S) -> None:
        super().__init__(reason)
        self.pause_s = pause_s


class _Hopeless(Exception):
    """The same request would fail again."""


class _OpenAISitting:
    """Open connections to the endpoint."""

    def __init__(self, judge: OpenAIJudge, client: httpx.Client) -> None:
        self._judge, self._client = judge, client
        self._answered_as: set[str] = set()

    @property
    def identity(self) -> str:
        return f"answered as {', '.join(sorted(self._answered_as))}" if self._answered_as else ""

    def compare(self, comparisons: Sequence[Comparison], progress: Progress) -> list[Winner | Failed]:
        """See `Sitting`. When `progress` raises, what is under way is waited for, `timeout_s` at most."""
        stopped = threading.Event()
        with ThreadPoolExecutor(self._judge.requests_in_flight_max, thread_name_prefix="judge") as pool:
            futures = [pool.submit(self._answer, comparison, stopped) for comparison in comparisons]
            awaited = set(futures)
            try:
                while awaited:
                    done, awaited = wait(awaited, timeout=SIGN_OF_LIFE_S, return_when=FIRST_COMPLETED)
                    progress(len(done))
            finally:
                stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
        return [future.result() for future in futures]

    def _answer(self, comparison: Comparison, stopped: threading.Event) -> Winner | Failed:
        text = material(comparison)
        if len(text) > PROMPT_CHARS_MAX:
            return Failed(f"the pair has {len(text)} characters, {PROMPT_CHARS_MAX} are the most")
        reason = ""
        for attempt in range(ATTEMPTS):
            try:
                return self._attempt(text, attempt)
            except _Hopeless as error:
                return Failed(str(error))
            except _Again as error:
                reason = str(error)
                if attempt + 1 < ATTEMPTS and stopped.wait(error.pause_s):
                    break
        return Failed(reason)

    def _attempt(self, text: str, attempt: int) -> Winner:
        completion = _parsed(self._post(self._body(text, attempt)))
        if completion.model:
            fingerprint = f" ({completion.system_fingerprint})" if completion.system_fingerprint else ""
            self._answered_as.add(completion.model + fingerprint)
        choice = completion.choices[0]
        if choice.message.refusal:
            raise _Again(f"the judge refuses to answer: {_brief(choice.message.refusal)}")
        try:
            return _Verdict.model_validate_json(choice.message.content or "").winner
        except ValidationError:
            seen = _brief(choice.message.content or "")
            cut = " (cut off by judge.max_tokens)" if choice.finish_reason == "length" else ""
            raise _Again(f'the answer is not {{"winner": "first" | "second" | "tie"}} but {seen!r}{cut}') from None

    def _body(self, text: str, attempt: int) -> dict[str, Any]:
        return {
            "model": self._judge.model,
            "messages": [
                {"role": "system", "content": CRITERIA},
                {"role": "user", "content": f"{text}\n\n{ASK_JSON}"},
            ],
            "temperature": 0,
            # The same request would get the same malformed answer: the second try draws anew, and is as reproducible.
            "seed": self._judge.seed + attempt,
            "max_tokens": self._judge.max_tokens,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "verdict", "strict": True, "schema": _Verdict.model_json_schema()},
            },
        }

    def _post(self, body: Mapping[str, Any]) -> bytes:
        """Return the body of a successful response within time and size. Raises _Again or _Hopeless."""
        deadline = time.monotonic() + self._judge.timeout_s
        received = bytearray()
        try:
            with self._client.stream("POST", f"{self._judge.url}/chat/completions", json=body) as response:
                for part in response.iter_bytes():
                    received += part
                    if len(received) > RESPONSE_BYTES_MAX:
                        raise _Hopeless(f"the response is longer than {RESPONSE_BYTES_MAX} bytes")
                    # httpx limits each read: a server that sends a byte now and then must not hold us.
                    if time.monotonic() > deadline:
                        raise _Again(f"the answer took longer than {self._judge.timeout_s:g} s (judge.timeout_s)")
        except httpx.TimeoutException:
            raise _Again(f"no answer within {self._judge.timeout_s:g} s (judge.timeout_s)") from None
        except httpx.HTTPError as error:
            raise _Again(f"the endpoint did not answer: {error or type(error).__name__}") from None
        if not response.is_success:
            self._raise_for(response, bytes(received))
        return bytes(received)

    def _raise_for(self, response: httpx.Response, received: bytes) -> None:
        said = received.decode("utf-8", "replace")
        # Some servers repeat the key they refuse.
        said = said.replace(self._judge.key, "…") if self._judge.key else said
        reason = f"HTTP {response.status_code}: {_brief(said)}"
        if response.status_code == httpx.codes.TOO_MANY_REQUESTS or response.is_server_error:
            raise _Again(reason, pause_s=_pause_asked_for(response))
        raise _Hopeless(reason)


def _parsed(received: bytes) -> _Completion:
    try:
        return _Completion.model_validate_json(received)
    except ValidationError:
        raise _Again(f"the response is no chat completion: {_brief(received.decode('utf-8', 'replace'))!r}") from None


def _pause_asked_for(response: httpx.Response) -> float:
    """Return the seconds of Retry-After, bounded; a date there is not worth reading."""
    seconds = response.headers.get("Retry-After", "")
    return min(max(float(seconds), RETRY_PAUSE_S), RETRY_PAUSE_MAX_S) if seconds.isdecimal() else RETRY_PAUSE_S


def _brief(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= ERROR_CHARS_MAX else text[:ERROR_CHARS_MAX] + " …"


def _is_here(url: str) -> bool:
    host = httpx.URL(url).host
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"
