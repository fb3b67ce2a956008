"""Which processes there are, and how they share the cores."""

from __future__ import annotations

import os

import pytest

from jupiter.config import ClusterConfig
from jupiter.config.loading import load_cluster
from jupiter.local.services import instances, service_spec, threads_of

PORTS = {"trainer": 1, "curator": 2}


def config_of(**local: int) -> ClusterConfig:
    return ClusterConfig.model_validate({"local": local})


def test_several_generators_have_names_of_their_own() -> None:
    assert list(instances(config_of(generators=2))) == [
        *("controller", "curator", "generator-1", "generator-2", "trainer", "evaluator")
    ]
    assert "generator" in instances(config_of())


def test_with_one_slot_a_heavy_service_has_all_cores_and_a_light_one_a_single() -> None:
    cores = len(os.sched_getaffinity(0))
    assert threads_of("trainer", config_of(compute_slots=1)) == cores
    assert threads_of("curator", config_of(compute_slots=1)) == 1
    assert threads_of("trainer", config_of(compute_slots=0)) == max(1, cores // 3)
    assert threads_of("trainer", config_of(threads=7)) == 7


async def test_a_service_sees_exactly_the_configuration_of_its_supervisor() -> None:
    config = ClusterConfig.model_validate({"trainer": {"seed": 7}, "controller": {"sampling": {"temperature": 0.1}}})
    spec = service_spec("trainer", "trainer", config=config, ports=PORTS, extra={"JUPITER_TRAINER__SEED": "8"})
    settings = {name: value for name, value in spec.environment.items() if name.startswith("JUPITER_")}
    seen = load_cluster(environ=settings)
    assert seen.trainer.seed == 8
    assert seen.controller.sampling.temperature == 0.1
    assert seen.instance == "trainer"
    assert seen.telemetry.port == 1


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"])
def test_waiting_threads_do_not_spin_and_no_library_takes_more_cores(name: str) -> None:
    spec = service_spec("curator", "curator", config=config_of(), ports=PORTS, extra={})
    assert spec.environment[name] == "1"
    assert spec.environment["OMP_WAIT_POLICY"] == "PASSIVE"
    assert spec.environment["KMP_BLOCKTIME"] == "0"
