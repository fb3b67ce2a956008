"""A clean clone on one engine: from nothing to a verdict, a promotion and a rollback, and to nothing again."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator

import httpx
import nats
import pytest
from minio import Minio
from minio.error import S3Error

from jupiter.local.endpoints import choose_ports
from tests.compose.stack import CYCLE_S, DOMAIN, PROOF, SERVICES, UP_S, Api, Stack, clone, publish, scraped, until

pytestmark = pytest.mark.timeout(UP_S + CYCLE_S)

VOLUMES = ("nats", "s3")
"""What a backup holds."""
PORTS = ("api", "nats", "s3", "prometheus")


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    return choose_ports(PORTS, remembered={}, wanted={})


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, ports: dict[str, int]) -> Iterator[Stack]:
    """The whole cluster, healthy, by the lines of docs/cluster.md.

    MinIO's stand-in has no users of its own, so there SeaweedFS takes its place.
    """
    root = clone(tmp_path_factory.mktemp("clone"))
    stack = Stack(
        project="jupiter-test",
        root=root,
        directory=root / "compose",
        environment={f"{name.upper()}_PORT": str(port) for name, port in ports.items()},
    )
    stack.make_secrets()
    if PROOF:
        (root / "compose" / ".env").write_text("COMPOSE_FILE=compose.yaml:seaweedfs.yaml\n")
    try:
        stack.up()
        yield stack
    finally:
        stack.down()
    assert stack.left() == []


@pytest.fixture(scope="module")
def api(stack: Stack, ports: dict[str, int]) -> Api:
    key = (stack.secrets / "api-key-operate").read_text().strip()
    return Api(url=f"http://127.0.0.1:{ports['api']}", key=key)


@pytest.fixture(scope="module")
def published(stack: Stack, ports: dict[str, int]) -> set[str]:
    """Documents from outside, by a plain NATS client with the publisher's nkey."""
    return publish(f"nats://127.0.0.1:{ports['nats']}", (stack.secrets / "publisher.nkey").read_text().strip())


def test_every_container_is_healthy_and_the_init_step_has_ended_well(stack: Stack) -> None:
    states = stack.states()
    assert states.pop("provision") == "exited 0"
    assert set(SERVICES) <= set(states)
    assert set(states.values()) == {"healthy"}


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_nobody_and_writes_only_its_own_place(stack: Stack, service: str) -> None:
    done = stack.inside(service, "import os; print(os.getuid()); open('/app/x', 'w')")
    assert done.stdout.strip() == "10001"
    assert "Read-only file system" in done.stderr


@pytest.mark.parametrize("service", ["controller", "curator"])
def test_the_light_images_hold_no_torch(stack: Stack, service: str) -> None:
    assert "No module named 'torch'" in stack.inside(service, "import torch").stderr


@pytest.mark.parametrize("service", ["curator", "evaluator"])
def test_model_written_code_can_be_enclosed(stack: Stack, service: str) -> None:
    done = stack.inside(service, "from jupiter.sandbox import available; print(available())")
    assert done.stdout.strip() == "None", done.stdout + done.stderr


LOADED = """
import ctypes, os, pathlib, subprocess, sysconfig
place = pathlib.Path(os.environ["TRITON_CACHE_DIR"], "test")
place.mkdir(parents=True)
source, library = pathlib.Path("/tmp/launcher.c"), place / "launcher.so"
source.write_text("#include <Python.h>\\nint launched(void) { return PY_MAJOR_VERSION; }")
headers = sysconfig.get_path("include")
subprocess.run(["gcc", "-shared", "-fPIC", f"-I{headers}", "-o", library, source], check=True)
print(ctypes.CDLL(str(library)).launched())
"""


def test_the_trainer_can_load_what_is_compiled_at_run_time(stack: Stack) -> None:
    """What triton does for a kernel: compile a launcher with Python's headers into its cache and load it there."""
    done = stack.inside("trainer", LOADED)
    assert done.stdout.strip() == "3", done.stdout + done.stderr


def test_prometheus_reads_the_metrics_of_every_service(stack: Stack, ports: dict[str, int]) -> None:
    wanted = {f"{service}:9100": "1" for service in SERVICES}
    until(lambda: scraped(f"http://127.0.0.1:{ports['prometheus']}") == wanted, what="all scraped", timeout_s=UP_S)


def test_without_a_key_the_api_tells_nothing(api: Api) -> None:
    with pytest.raises(httpx.HTTPStatusError, match="401"):
        Api(url=api.url).get("/status")


def test_a_curators_credentials_neither_promote_nor_write_the_ledger(stack: Stack, ports: dict[str, int]) -> None:
    seed = (stack.secrets / "curator.nkey").read_text().strip()

    async def refusals() -> list[str]:
        heard: list[str] = []

        async def hear(error: Exception) -> None:
            heard.append(str(error))

        url = f"nats://127.0.0.1:{ports['nats']}"
        client = await nats.connect(url, nkeys_seed_str=seed, inbox_prefix="_INBOX.curator", error_cb=hear)
        await client.publish("generators.python_stdlib", b"{}")
        await client.flush()
        await asyncio.sleep(0.1)
        await client.close()
        return heard

    assert any("permissions violation" in text.lower() for text in asyncio.run(refusals()))
    with pytest.raises(S3Error, match="AccessDenied"):
        client_of("curator", stack, ports).put_object(
            "jupiter", "ledger/python_stdlib/00000009.json", io.BytesIO(b"{}"), 2
        )


def client_of(service: str, stack: Stack, ports: dict[str, int]) -> Minio:
    key = (stack.secrets / f"{service}.s3").read_text().strip()
    endpoint = f"127.0.0.1:{ports['s3']}"
    return Minio(endpoint, access_key=f"jupiter-{service}", secret_key=key, secure=False, region="us-east-1")


def test_a_document_from_outside_comes_into_a_shard(
    api: Api, published: set[str], stack: Stack, ports: dict[str, int]
) -> None:
    samples = until(
        lambda: api.get("/samples?accepted=true&origin=real&limit=20"), what="a shard with real text", timeout_s=CYCLE_S
    )
    curator = client_of("curator", stack, ports)
    for document in {sample["sample"]["document_id"] for sample in samples}:
        stored = json.loads(curator.get_object("jupiter", f"documents/{DOMAIN}/{document}").read())
        assert stored["title"] in published


def test_the_cycle_comes_to_a_verdict(api: Api, published: set[str]) -> None:
    decided = until(
        lambda: [one for one in api.get("/evaluations") if one["decision"]], what="a verdict", timeout_s=CYCLE_S
    )
    assert decided[0]["decision"] in ("PROMOTE", "HOLD", "REJECT")


def test_promotion_and_rollback_over_the_api(api: Api, published: set[str]) -> None:
    evaluation = next(one for one in api.get("/evaluations") if one["decision"])
    flip = {"evaluation_id": evaluation["evaluation_id"], "expected_version": 1, "force": True}
    assert api.post("/promote", flip)["version"] == 2
    until(lambda: served(api) == 2, what="version 2 served", timeout_s=CYCLE_S)
    assert api.post("/rollback", {"expected_version": 2})["version"] == 1
    until(lambda: served(api) == 1, what="version 1 served again", timeout_s=CYCLE_S)
    assert [entry["action"] for entry in api.get("/history")["entries"]][-2:] == ["promoted", "rolled_back"]


def served(api: Api) -> int:
    version: int = api.get("/status")["generator"]["instances"].get("generator", 0)
    return version


def test_nobody_was_refused_what_its_work_needs_and_nothing_was_buried(stack: Stack, api: Api) -> None:
    refused = [line for line in stack.compose("logs", "nats").stdout.splitlines() if "Violation" in line]
    # The one that the test above provoked.
    assert [line for line in refused if 'Subject "generators.python_stdlib"' not in line] == []
    assert api.get("/status")["dead_letters"] == 0
    assert stack.states()["prometheus"] == "healthy"


def test_a_backup_brings_everything_back(stack: Stack, api: Api, published: set[str]) -> None:
    """By the lines of docs/cluster.md: stop, copy both volumes, delete them all, lay the copies in place, start."""
    backup = stack.directory / "backup"
    backup.mkdir()
    before = api.get("/history")["entries"]
    stack.compose("stop")
    for volume in VOLUMES:
        stack.with_volume(volume, backup, "tar", "-C", "/volume", "-cf", f"/backup/{volume}.tar", ".")
    stack.down()
    assert stack.left() == []

    stack.compose("create")
    for volume in VOLUMES:
        stack.with_volume(volume, backup, "tar", "-C", "/volume", "-xf", f"/backup/{volume}.tar")
    stack.up()
    assert api.get("/history")["entries"][: len(before)] == before
    until(lambda: served(api) == 1, what="version 1 served again", timeout_s=CYCLE_S)
    steps = [one["step"] for one in api.get("/evaluations")]
    assert steps
    until(
        lambda: [one for one in api.get("/evaluations") if one["decision"] and one["step"] > max(steps)],
        what="the cycle to go on",
        timeout_s=CYCLE_S,
    )
    assert api.get("/status")["dead_letters"] == 0
