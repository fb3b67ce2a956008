"""The compose files as they are put together (docs/cluster.md), read by the compose tool: no service is cut short."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.compose.stack import ROOT, compose_command

CONTROL = {"nats", "minio", "provision", "controller", "curator", "evaluator", "prometheus"}
EVERYTHING = CONTROL | {"generator", "trainer"}
COMBINATIONS = [
    ("compose", EVERYTHING),
    ("compose gpu", EVERYTHING),
    ("compose seaweedfs", EVERYTHING),
    ("node-control", CONTROL),
    ("node-control seaweedfs", CONTROL),
    ("node-control gpu-evaluator", CONTROL),
    ("node-control nats-cluster", CONTROL),
    ("node-nats nats-cluster", {"nats"}),
    ("node-generator", {"generator"}),
    ("node-generator gpu-generator", {"generator"}),
    ("node-trainer", {"trainer"}),
    ("node-trainer gpu-trainer", {"trainer"}),
    ("node-trainer several-trainers gpu-trainer", {"trainer"}),
    ("node-evaluator gpu-evaluator", {"evaluator"}),
    ("node-curator", {"curator"}),
]
GIVEN = {
    "BIND_ADDRESS": "10.0.0.3",
    "NATS_URL": "nats://10.0.0.1:4222",
    "S3_ENDPOINT": "10.0.0.1:9000",
    "REDIS_ADDRESS": "10.0.0.1",
    "NATS_SERVER_NAME": "nats-2",
    "NATS_PEERS": "10.0.0.1 10.0.0.2 10.0.0.3",
    "TRAINER_NODES": "2",
    "TRAINER_RENDEZVOUS": "10.0.0.3:29500",
    **{f"{role}_INSTANCE": "one" for role in ("GENERATOR", "TRAINER", "EVALUATOR", "CURATOR")},
}


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("combinations") / "secrets"
    subprocess.run([sys.executable, "-I", ROOT / "compose" / "make-secrets", folder], check=True)
    return folder


def read(files: str, secrets: Path, *options: str, **changes: str) -> Mapping[str, Any]:
    chosen = [part for name in files.split() for part in ("-f", f"{name}.yaml")]
    done = subprocess.run(
        [*compose_command(), *chosen, *options, "config", "--format", "json"],
        cwd=ROOT / "compose",
        env={**os.environ, **GIVEN, "SECRETS_DIR": str(secrets), **changes},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    services: Mapping[str, Any] = json.loads(done.stdout)["services"]
    return services


@pytest.mark.parametrize(("files", "services"), COMBINATIONS, ids=[files for files, _ in COMBINATIONS])
def test_files_together_start_whole_services_and_no_others(files: str, services: set[str], secrets: Path) -> None:
    found = read(files, secrets)
    assert found.keys() == services
    assert [name for name, service in found.items() if not (service.get("command") or service.get("build"))] == []
    assert [name for name, service in found.items() if "image" not in service or "healthcheck" not in service] == []


def test_each_service_sees_the_gpus_that_are_chosen_for_it(secrets: Path) -> None:
    found = read("compose gpu", secrets, GENERATOR_GPU_IDS="0", EVALUATOR_GPU_IDS="1", TRAINER_PROCESSES="gpu")
    chosen = {
        name: found[name]["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"]
        for name in ("generator", "evaluator", "trainer")
    }
    assert chosen == {"generator": ["0"], "evaluator": ["1"], "trainer": ["all"]}


def test_the_recipe_for_nvidia_builds_the_nvidia_engine(secrets: Path) -> None:
    dockerfile = "services/generator/Dockerfile.vllm"
    generator = read(
        "node-generator gpu-generator",
        secrets,
        GENERATOR_DOCKERFILE=dockerfile,
        VLLM_PACKAGE="vllm",
        GENERATOR_ENGINE="vllm",
    )["generator"]
    assert (generator["build"]["dockerfile"], generator["build"]["args"]["VLLM"]) == (dockerfile, "vllm")
    assert generator["environment"]["JUPITER_GENERATOR__ENGINE"] == "vllm"


def test_redis_comes_with_its_profile_only_and_is_not_open(secrets: Path) -> None:
    (redis,) = (
        service for name, service in read("node-control", secrets, "--profile", "redis").items() if name == "redis"
    )
    assert "requirepass" in redis["command"][-1]
    assert [secret["source"] for secret in redis["secrets"]] == ["redis_password"]
