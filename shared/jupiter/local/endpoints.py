"""Where the processes of one `data_dir` listen, and with which secret.

Owns: `<data_dir>/endpoints.json` (so that every command finds the running system, and the ports stay over restarts),
`<data_dir>/credentials.json` (0600: the S3 key made at the first start), and the lock that admits one supervisor.
Does not know: what runs there.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from jupiter.config import ClusterConfig
from jupiter.errors import Conflict

__all__ = [
    "HOST",
    "Credentials",
    "Endpoints",
    "api_url",
    "choose_ports",
    "located",
    "only_supervisor",
    "read_endpoints",
    "s3_credentials",
    "write_endpoints",
]

HOST = "127.0.0.1"
_EVERYWHERE = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - addresses that one listens on, and cannot connect to
_THIS_MACHINE = _EVERYWHERE | {HOST, "::1", "localhost"}
# SeaweedFS derives gRPC ports by adding 10,000 where none is given, so ports stay well below 55,535.
PORT_MIN = 20_000
PORT_MAX = 32_000


class Endpoints(BaseModel):
    """What another command needs to find the system; `ports` is what the next start tries first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    api_url: str
    nats_url: str
    s3_endpoint: str
    pid: int
    """Of the supervisor that wrote it; it may be long gone."""
    ports: dict[str, int]


class Credentials(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    access_key: str
    secret_key: str


def endpoints_path(data_dir: Path) -> Path:
    return data_dir / "endpoints.json"


def read_endpoints(data_dir: Path) -> Endpoints | None:
    """Return what the last supervisor of `data_dir` wrote; None when there was none (or the file is damaged)."""
    try:
        return Endpoints.model_validate_json(endpoints_path(data_dir).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def write_endpoints(data_dir: Path, endpoints: Endpoints) -> None:
    temporary = data_dir / f".endpoints-{os.getpid()}.json"
    temporary.write_text(endpoints.model_dump_json(indent=2) + "\n")
    temporary.replace(endpoints_path(data_dir))


def api_url(config: ClusterConfig) -> str:
    """Return the address of the API: of the system that this `data_dir` runs, else the one that is configured.

    The embedded system may have had to take another port. A controller configured on another host is meant itself.
    """
    host, port = config.controller.host, config.controller.port
    endpoints = read_endpoints(config.data_dir) if host in _THIS_MACHINE else None
    if endpoints is not None:
        return endpoints.api_url
    host = HOST if host in _EVERYWHERE else host
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def located(config: ClusterConfig, endpoints: Endpoints) -> ClusterConfig:
    """Return the configuration with the addresses and the secret of the embedded servers of its `data_dir`."""
    secret = s3_credentials(config.data_dir)
    s3 = {
        "endpoint": endpoints.s3_endpoint,
        "secure": False,
        "access_key": secret.access_key,
        "secret_key": secret.secret_key,
    }
    return config.model_copy(
        update={
            "nats": config.nats.model_copy(update={"url": endpoints.nats_url, "replicas": 1}),
            "s3": config.s3.model_copy(update=s3),
            "controller": config.controller.model_copy(update={"host": HOST, "port": endpoints.ports["api"]}),
        }
    )


def s3_credentials(data_dir: Path) -> Credentials:
    """Return the random S3 key of this `data_dir`, made at the first call and readable by its owner only."""
    path = data_dir / "credentials.json"
    if path.exists():
        return Credentials.model_validate_json(path.read_bytes())
    made = Credentials(access_key=f"jupiter-{secrets.token_hex(6)}", secret_key=secrets.token_urlsafe(32))
    temporary = data_dir / f".credentials-{os.getpid()}.json"
    descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(made.model_dump_json())
    temporary.replace(path)
    return made


def choose_ports(names: tuple[str, ...], *, remembered: dict[str, int], wanted: dict[str, int]) -> dict[str, int]:
    """Return a free port per name: the wanted one, else the remembered one, else any; no two the same.

    What somebody configured comes before what we once chose, so a changed setting is not ignored after the first start.
    """
    with ExitStack() as held:
        chosen: dict[str, int] = {}
        for name in names:
            candidates = [port for port in (wanted.get(name), remembered.get(name)) if port]
            chosen[name] = next(port for port in _endless(candidates) if _hold(held, port))
        return chosen


def _endless(candidates: list[int]) -> Iterator[int]:
    yield from candidates
    while True:
        yield PORT_MIN + secrets.randbelow(PORT_MAX - PORT_MIN)


def _hold(held: ExitStack, port: int) -> bool:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()
    except OSError:
        listener.close()
        return False
    held.enter_context(listener)
    return True


@contextmanager
def only_supervisor(data_dir: Path) -> Iterator[None]:
    """Hold the lock of `data_dir`; the kernel releases it with this process. Raises Conflict when another holds it."""
    data_dir.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(data_dir / "supervisor.lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            running = json.loads(os.read(descriptor, 4096) or b"{}")
            raise Conflict(
                f"{data_dir} is in use by another `jupiter up` (process {running.get('pid', 'unknown')}); "
                "stop that one, or choose another data_dir with JUPITER_DATA_DIR"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps({"pid": os.getpid()}).encode())
        yield
    finally:
        os.close(descriptor)
