"""The small HTTP server of every service: /metrics, /healthz, /readyz.

Owns: what alive and ready mean. Does not know: what the service does.

Ready means that the bus stored a canary and the object store took a PUT just now: a server's own health page says ok
on a full disk (measured), so it is not asked.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from jupiter.blobs import Blobs
from jupiter.bus import Bus
from jupiter.config.sections import TelemetrySection
from jupiter.errors import ConfigError, Unavailable
from jupiter.telemetry import Telemetry

__all__ = ["QuietServer", "health_app", "probe_app", "serving"]

log = logging.getLogger(__name__)

# A probe that takes longer than this is an answer too: not ready.
READY_TIMEOUT_S = 10


async def _refusal(bus: Bus, blobs: Blobs) -> str | None:
    """Return why the service is not ready, or None."""
    try:
        async with asyncio.timeout(READY_TIMEOUT_S):
            await bus.ready()
            await asyncio.to_thread(blobs.ready)
    except Unavailable as error:
        return str(error)
    except TimeoutError:
        return f"no answer from the bus or the object store within {READY_TIMEOUT_S} s"
    return None


def health_app(*, bus: Bus, blobs: Blobs, telemetry: Telemetry, started: asyncio.Event) -> FastAPI:
    """Return the app of a service; `started` is set once the service's own setup is done."""

    async def refusal() -> str | None:
        return await _refusal(bus, blobs) if started.is_set() else "the service is still starting"

    return probe_app(refusal, telemetry=telemetry)


def probe_app(refusal: Callable[[], Awaitable[str | None]], *, telemetry: Telemetry) -> FastAPI:
    """Return the app of a process that is ready unless `refusal` returns why not."""
    app = FastAPI(title="Jupiter service", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        reason = await refusal()
        telemetry.ready.set(reason is None)
        if reason:
            return JSONResponse({"status": "unavailable", "reason": reason}, status_code=503)
        return JSONResponse({"status": "ok"})

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(telemetry.registry), media_type=CONTENT_TYPE_LATEST)

    return app


class QuietServer(uvicorn.Server):
    """A uvicorn server that leaves SIGTERM and SIGINT to the service."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(app: FastAPI, section: TelemetrySection, *, what: str = "telemetry") -> AsyncIterator[int]:
    """Serve `app` on the section's host and port while the block runs; yields the port."""
    listener = _listen(section.host, section.port)
    port = int(listener.getsockname()[1])
    server = QuietServer(uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=2))
    task = asyncio.create_task(server.serve(sockets=[listener]), name=f"{what}-http")
    log.info("%s listens on http://%s:%d", what, section.host, port, extra={"port": port})
    try:
        yield port
    finally:
        server.should_exit = True
        await task
        listener.close()


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()  # from here on a client waits instead of being refused
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"telemetry.host {host} and telemetry.port {port} cannot be listened on: {error.strerror}; "
            "choose another port, or 0 for a free one"
        ) from error
    return listener
