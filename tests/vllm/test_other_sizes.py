"""A version of another size (3B → 1B, in small): beside the old engine where memory allows, else in its place."""

from __future__ import annotations

import threading

import pytest

from jupiter.errors import JupiterError
from tests.vllm.versions import OTHER_WIDTH, TOLERANCE, Tenants, Versions, engine_processes, prompts, sign_again

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class Clients:
    """Threads that keep asking one version for batches."""

    def __init__(self, tenants: Tenants, weights: object) -> None:
        self._tenants, self._weights = tenants, weights
        self._stop = threading.Event()
        self.answers: list[list[str]] = []
        self.failures: list[BaseException] = []
        self._thread = threading.Thread(target=self._ask)

    def _ask(self) -> None:
        while not self._stop.is_set():
            try:
                self.answers.append(self._tenants.texts(self._weights, prompts(16)))  # type: ignore[arg-type]
            except BaseException as error:  # noqa: BLE001 - the test looks at it
                self.failures.append(error)

    def __enter__(self) -> Clients:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(120)


@pytest.mark.parametrize("beside", [True, False])
def test_a_version_of_another_size_takes_over_and_no_request_fails(versions: Versions, beside: bool) -> None:
    engine = versions.engine(second_engine=beside)
    old = engine.serve(versions.make("large", seed=5, hidden=OTHER_WIDTH, layers=3))
    expected_old = engine.texts(old, prompts(16))
    with Clients(engine, old) as clients:
        new = engine.serve(versions.a)
        processes = len(engine_processes())
        answered = len(clients.answers)
        expected_new = engine.texts(new, prompts(16))
    assert processes == (2 if beside else 1)
    if beside:
        assert answered > 1  # the old one served on while the new engine came up
    assert clients.failures == []
    assert clients.answers
    assert all(texts == expected_old for texts in clients.answers)
    assert expected_new != expected_old
    assert engine.texts(new, prompts(16)) == expected_new
    engine.release(old)
    assert len(engine_processes(expected=1)) == 1
    assert engine.texts(new, prompts(16)) == expected_new
    engine.release(new)
    assert engine_processes(expected=0) == []


def test_where_the_new_size_is_bad_the_old_engine_is_back_before_anyone_is_served(versions: Versions) -> None:
    engine = versions.engine(second_engine=False)
    old = engine.serve(versions.a)
    expected = engine.texts(old, prompts(8))
    bad = versions.copy(versions.make("large", seed=5, hidden=OTHER_WIDTH, layers=3), "bad_large")
    other = versions.make("large_other", seed=6, hidden=OTHER_WIDTH, layers=3)
    (bad / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    sign_again(bad)
    weights = engine.load(bad)
    with pytest.raises(JupiterError, match="golden prompt"):
        engine.engine.attest(weights, bad, tolerance=TOLERANCE)
    assert engine.engine._host_of[old].resident is old
    (before,) = engine_processes(expected=1)
    assert engine.texts(old, prompts(8)) == expected
    assert engine_processes() == [before]
    engine.release(weights)
    engine.release(old)
