"""`SelfImprover` against a running controller, in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

import jupiter.orchestrator
from jupiter import orchestrator
from jupiter.config import ClusterConfig
from jupiter.controller.wiring import application
from jupiter.errors import ConfigError, Conflict, JupiterError, NotFound, Rejected, Unavailable
from jupiter.ledger import flips
from jupiter.local.endpoints import Endpoints, write_endpoints
from jupiter.orchestrator import SelfImprover
from jupiter.orchestrator.improver import ATTEMPTS
from jupiter.service import running
from tests.unit.controller.cycle import Cycle, eventually

URL = "http://controller"


class Trainer:
    """Hears of flips."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, int]] = []

    def on_promotion(self, version: int) -> None:
        self.heard.append(("promotion", version))

    async def on_rollback(self, version: int) -> None:
        self.heard.append(("rollback", version))


@asynccontextmanager
async def promoted(cycle: Cycle) -> AsyncIterator[httpx.ASGITransport]:
    """A running controller that has just made version 2 live."""
    runtime = cycle.runtime()
    parts = await cycle.parts(runtime)
    async with running(runtime, parts):
        await cycle.import_base()
        await eventually(cycle.ledger)
        await cycle.answer(await cycle.evaluate(await cycle.save_checkpoint(100)))
        await eventually(lambda: len(flips(cycle.ledger())) == 2)
        yield httpx.ASGITransport(app=application(parts.deps))


async def test_rollback_promote_status_and_history(tmp_path: Path) -> None:
    cycle, trainer = Cycle(tmp_path), Trainer()
    async with promoted(cycle) as transport:
        improver = SelfImprover(URL, trainer, actor="ada", transport=transport)
        back = await improver.rollback_generator()
        assert (back.version, back.actor, back.action) == (1, "ada", "rolled_back")
        forward = await improver.promote(version=2)
        assert forward.version == 2
        assert trainer.heard == [("rollback", 1), ("promotion", 2)]
        assert [entry.version for entry in await improver.history()] == [1, 2, 1, 2]
        assert (await improver.history(live_at=datetime.now(UTC)))[0].version == 2
        assert await improver.history(live_at=datetime(2020, 1, 1, tzinfo=UTC)) == ()
        assert (await improver.status())["generator"]["version"] == 2
        assert len(await improver.evaluations()) == 1


class Line(httpx.AsyncBaseTransport):
    """Counts what was answered and what was refused; a test may cut it."""

    def __init__(self, through: httpx.AsyncBaseTransport) -> None:
        self.cut, self.answered, self.refused, self._through = False, 0, 0, through

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.cut:
            self.refused += 1
            raise httpx.ConnectError("refused")
        response = await self._through.handle_async_request(request)
        self.answered += 1
        return response

    async def looked_again(self) -> None:
        """Return after two looks at the history: the second began after this was called."""
        before = self.answered
        await eventually(lambda: self.answered >= before + 2)


@asynccontextmanager
async def watching(improver: SelfImprover, line: Line) -> AsyncIterator[asyncio.Task[None]]:
    """The improver's watch as a task that has begun."""
    watch = asyncio.create_task(improver.watch(interval_s=0.01))
    await line.looked_again()
    yield watch
    if not watch.done():
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch


async def test_while_watched_every_flip_is_told_of_once_and_in_order(tmp_path: Path) -> None:
    cycle, trainer = Cycle(tmp_path), Trainer()
    async with promoted(cycle) as transport:
        line = Line(transport)
        improver = SelfImprover(URL, trainer, transport=line)
        somebody = SelfImprover(URL, transport=transport)
        async with watching(improver, line):
            await somebody.rollback_generator()
            await somebody.promote(version=2)
            await eventually(lambda: len(trainer.heard) == 2)
            with pytest.raises(Conflict, match="watching already"):
                await improver.watch()
            await improver.rollback_generator()
            await line.looked_again()  # its own is not told of once more
        assert trainer.heard == [("rollback", 1), ("promotion", 2), ("rollback", 1)]
        await somebody.promote(version=2)
        await improver.rollback_generator()  # no longer watched: only its own
        assert trainer.heard[3:] == [("rollback", 1)]


async def test_a_hook_may_flip_and_what_it_raises_ends_the_watch(tmp_path: Path) -> None:
    class Distrustful(Trainer):
        async def on_rollback(self, version: int) -> None:
            await super().on_rollback(version)
            if len(self.heard) > 2:
                raise RuntimeError("enough")
            await improver.promote(version=2)

    cycle, trainer = Cycle(tmp_path), Distrustful()
    async with promoted(cycle) as transport:
        line = Line(transport)
        improver = SelfImprover(URL, trainer, transport=line)
        somebody = SelfImprover(URL, transport=transport)
        async with watching(improver, line) as watch:
            await somebody.rollback_generator()
            await eventually(lambda: trainer.heard == [("rollback", 1), ("promotion", 2)])
            await somebody.rollback_generator()
            await eventually(watch.done)
            assert str(watch.exception()) == "enough"


async def test_a_controller_that_was_away_is_waited_for(tmp_path: Path) -> None:
    cycle, trainer = Cycle(tmp_path), Trainer()
    async with promoted(cycle) as transport:
        line = Line(transport)
        async with watching(SelfImprover(URL, trainer, transport=line, pause_s=0), line):
            line.cut = True
            await SelfImprover(URL, transport=transport).rollback_generator()
            await eventually(lambda: line.refused > ATTEMPTS)
            assert trainer.heard == []
            line.cut = False
            await eventually(lambda: trainer.heard == [("rollback", 1)])


async def test_refusals_are_errors_of_ours(tmp_path: Path) -> None:
    async with promoted(Cycle(tmp_path)) as transport:
        improver = SelfImprover(URL, transport=transport)
        with pytest.raises(NotFound, match="no version 9"):
            await improver.rollback_generator(9)
        with pytest.raises(Conflict, match="live already"):
            await improver.promote(version=2)
        with pytest.raises(Rejected, match="names 0"):
            await improver.promote()


async def test_any_trainer_will_do(tmp_path: Path) -> None:
    async with promoted(Cycle(tmp_path)) as transport:
        assert (await SelfImprover(URL, object(), transport=transport).rollback_generator()).version == 1


async def test_flip_whose_answer_was_lost_happens_once(tmp_path: Path) -> None:
    cycle = Cycle(tmp_path)

    class Lossy(httpx.AsyncBaseTransport):
        """Delivers the request and loses the first answer to a POST."""

        def __init__(self, through: httpx.AsyncBaseTransport) -> None:
            self.lost, self._through = 0, through

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            response = await self._through.handle_async_request(request)
            if request.method == "POST" and not self.lost:
                self.lost += 1
                raise httpx.ReadError("connection reset")
            return response

    async with promoted(cycle) as transport:
        lossy = Lossy(transport)
        entry = await SelfImprover(URL, transport=lossy).rollback_generator()
        assert lossy.lost == 1
        assert entry.action == "rolled_back"
        assert len(flips(cycle.ledger())) == 3


async def test_no_controller_is_one_clear_line() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    improver = SelfImprover("http://127.0.0.1:9", transport=httpx.MockTransport(refuse), pause_s=0)
    with pytest.raises(Unavailable, match="jupiter up"):
        await improver.status()


async def test_an_answer_that_is_not_the_controllers_is_no_traceback() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(418, text="a teapot"))
    with pytest.raises(JupiterError, match="418: a teapot"):
        await SelfImprover(URL, transport=transport).status()


async def test_config_may_be_a_model_a_dict_a_file_or_an_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        return httpx.Response(200, json={})

    path = tmp_path / "cluster.yaml"
    path.write_text("controller: {host: 0.0.0.0, port: 8111}\n")
    configs: dict[str, Any] = {
        "http://127.0.0.1:8400": ClusterConfig(),
        "http://10.0.0.1:8402": {"controller": {"host": "10.0.0.1", "port": 8402}},
        "http://127.0.0.1:8111": path,
        "https://example.test": "https://example.test/",
    }
    for config in configs.values():
        await SelfImprover(config, transport=httpx.MockTransport(answer)).status()
    assert seen == [f"{expected}/v1/status" for expected in configs]
    with pytest.raises(ConfigError, match="neither"):
        SelfImprover("nowhere.yaml")
    with pytest.raises(
        ConfigError, match=r"^the configuration given: unknown key controler; did you mean controller\?$"
    ):
        SelfImprover({"controler": {}})
    with pytest.raises(
        ConfigError, match=r"^the configuration given: trainer.seed: Input should be .* \(it is 'one'\)$"
    ):
        SelfImprover({"trainer": {"seed": "one"}})
    wrong: Any = 5
    with pytest.raises(ConfigError, match="5 is no configuration: give a ClusterConfig, a dict, a YAML file or"):
        SelfImprover(wrong)
    with pytest.raises(ConfigError, match="temprature"):
        SelfImprover({"controller": {"sampling": {"temprature": 1}}})


async def test_the_running_system_is_found_whatever_port_it_got(tmp_path: Path) -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url.copy_with(path="/")))
        return httpx.Response(200, json={})

    def runs_at(url: str) -> None:
        write_endpoints(tmp_path, Endpoints(api_url=url, nats_url="n", s3_endpoint="s", pid=1, ports={}))

    transport = httpx.MockTransport(answer)
    improver = SelfImprover({"data_dir": tmp_path, "controller": {"port": 8400}}, transport=transport)
    runs_at("http://127.0.0.1:8411")
    await improver.status()
    runs_at("http://127.0.0.1:8422")  # it was started again
    await improver.status()
    elsewhere = {"data_dir": tmp_path, "controller": {"host": "10.0.0.1"}}
    await SelfImprover(elsewhere, transport=transport).status()
    assert seen == ["http://127.0.0.1:8411/", "http://127.0.0.1:8422/", "http://10.0.0.1:8400/"]


def test_public_names() -> None:
    assert sorted(jupiter.orchestrator.__all__) == ["OnPromotion", "OnRollback", "SelfImprover"]
    assert all(hasattr(orchestrator, name) for name in orchestrator.__all__)
