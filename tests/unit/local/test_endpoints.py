"""Ports, secrets and the supervisor's lock of a data directory."""

from __future__ import annotations

import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from jupiter.errors import Conflict
from jupiter.local.endpoints import (
    Endpoints,
    choose_ports,
    only_supervisor,
    read_endpoints,
    s3_credentials,
    write_endpoints,
)


def test_a_remembered_port_is_taken_again_unless_somebody_else_has_it() -> None:
    first = choose_ports(("nats", "s3"), remembered={}, wanted={})
    assert choose_ports(("nats", "s3"), remembered=first, wanted={}) == first
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first["nats"]))
        taken.listen()
        again = choose_ports(("nats", "s3"), remembered=first, wanted={})
    assert again["nats"] != first["nats"]
    assert again["s3"] == first["s3"]


def test_a_configured_port_comes_before_the_remembered_one() -> None:
    before = choose_ports(("api", "nats"), remembered={}, wanted={})
    configured = choose_ports(("any",), remembered={}, wanted={})["any"]
    assert choose_ports(("api", "nats"), remembered=before, wanted={"api": configured}) == {**before, "api": configured}
    assert choose_ports(("api",), remembered=before, wanted={"api": 0})["api"] == before["api"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", configured))
        taken.listen()
        assert choose_ports(("api",), remembered=before, wanted={"api": configured})["api"] == before["api"]


def test_ports_are_all_different_even_when_the_same_one_is_wanted() -> None:
    wanted = choose_ports(("any",), remembered={}, wanted={})["any"]
    chosen = choose_ports(("a", "b", "c"), remembered={}, wanted={"a": wanted, "b": wanted})
    assert chosen["a"] == wanted
    assert len(set(chosen.values())) == 3


def test_the_secret_is_random_stays_and_is_for_its_owner_only(tmp_path: Path) -> None:
    made = s3_credentials(tmp_path)
    assert s3_credentials(tmp_path) == made
    (tmp_path / "other").mkdir()
    assert s3_credentials(tmp_path / "other").secret_key != made.secret_key
    assert stat.S_IMODE((tmp_path / "credentials.json").stat().st_mode) == 0o600


def test_endpoints_come_back_and_a_damaged_file_counts_as_none(tmp_path: Path) -> None:
    assert read_endpoints(tmp_path) is None
    written = Endpoints(
        api_url="http://127.0.0.1:1", nats_url="nats://127.0.0.1:2", s3_endpoint="127.0.0.1:3", pid=4, ports={"api": 1}
    )
    write_endpoints(tmp_path, written)
    assert read_endpoints(tmp_path) == written
    (tmp_path / "endpoints.json").write_text("{")
    assert read_endpoints(tmp_path) is None


def test_a_second_supervisor_is_refused_and_a_dead_one_is_not_in_the_way(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from jupiter.local.endpoints import only_supervisor
with only_supervisor(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Conflict, match=f"process {holder.pid}"), only_supervisor(tmp_path):
            pass
        holder.kill()
    with only_supervisor(tmp_path):
        pass
