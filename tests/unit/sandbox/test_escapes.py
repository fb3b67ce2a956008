"""Every attack is really made, inside the real enclosure, and really fails."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jupiter.sandbox import Limits, Sandbox

# Wide, for busy machines: tests that wait for a limit set their own.
PATIENT = Limits(wall_s=60, step_wall_s=20, cpu_s=10)
SOON_S = 30
NAMESPACE = "import ctypes; libc = ctypes.CDLL(None, use_errno=True)\n"


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return Sandbox(limits=PATIENT)


def value_of(sandbox: Sandbox, code: str, expression: str = "seen") -> object:
    """Run an attack and return what it saw; an attack that could not even run fails the test."""
    (outcome,) = sandbox.evaluate(code, [expression])
    assert outcome.status == "returned", outcome
    return outcome.value


def error_of(sandbox: Sandbox, code: str) -> str:
    """Return the error that an attack met."""
    result = sandbox.run_python(code)
    assert not result.passed, result
    return result.reason


def test_plain_code_runs(sandbox: Sandbox) -> None:
    assert value_of(sandbox, "seen = sum(range(10))") == 45


def test_no_listening_port_of_this_machine_is_reachable(sandbox: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        attack = f"import socket\nsocket.create_connection(('127.0.0.1', {port}), timeout=2)"
        assert "ConnectionRefusedError" in error_of(sandbox, attack)


@pytest.mark.parametrize("address", ["169.254.169.254", "10.0.0.1", "8.8.8.8"])
def test_no_network_is_reachable(sandbox: Sandbox, address: str) -> None:
    attack = f"import socket\nsocket.create_connection(('{address}', 80), timeout=1)"
    assert "Network is unreachable" in error_of(sandbox, attack)


def test_the_only_interface_is_its_own_loopback(sandbox: Sandbox) -> None:
    assert value_of(sandbox, "import socket\nseen = [name for _, name in socket.if_nameindex()]") == ["lo"]


def test_abstract_unix_sockets_of_this_machine_are_not_visible(sandbox: Sandbox) -> None:
    name = f"\0jupiter-sandbox-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        server.listen()
        attack = f"import socket\nsocket.socket(socket.AF_UNIX).connect({name!r})"
        assert "ConnectionRefusedError" in error_of(sandbox, attack)


@pytest.mark.parametrize("path", ["/etc/passwd", "/etc/shadow", "/root/.ssh", "/home", "/work", "/var", "/sys", "/run"])
def test_files_of_this_machine_are_not_there(sandbox: Sandbox, path: str) -> None:
    assert value_of(sandbox, f"import os\nseen = os.path.exists({path!r})") is False


def test_this_file_and_the_temporary_files_of_this_machine_are_not_there(sandbox: Sandbox, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    seen = value_of(sandbox, f"import os\nseen = [os.path.exists(p) for p in {[str(secret), __file__]!r}]")
    assert seen == [False, False]
    assert value_of(sandbox, "import os\nseen = os.listdir('/tmp')") == []


def test_the_environment_of_the_service_is_not_visible(sandbox: Sandbox) -> None:
    attack = (
        "import os\nseen = sorted(os.environ)\n"
        "for process in os.listdir('/proc'):\n"
        "    try: seen += open(f'/proc/{process}/environ').read().split('\\0')\n"
        "    except OSError: pass\n"
    )
    seen = value_of(sandbox, attack)
    assert isinstance(seen, list)
    names = {str(entry).split("=")[0] for entry in seen}
    # What bubblewrap sets itself, and nothing of ours.
    assert names <= {"", "HOME", "LANG", "PATH", "PWD", "TZ"}


def test_no_process_of_this_machine_is_visible(sandbox: Sandbox) -> None:
    seen = value_of(sandbox, "import os\nseen = [int(p) for p in os.listdir('/proc') if p.isdigit()]")
    assert isinstance(seen, list)
    assert max(seen) < 10


@pytest.mark.parametrize("path", ["/usr/x", "/x", "/dev/x", "/dev/shm/x", "/proc/sys/kernel/hostname"])
def test_nothing_but_tmp_is_writable(sandbox: Sandbox, path: str) -> None:
    assert "Error" in error_of(sandbox, f"open({path!r}, 'w').write('x')")


def test_a_fork_bomb_is_refused_and_leaves_nothing_behind(sandbox: Sandbox) -> None:
    attack = (
        "import os, time\nseen = 0\n"
        "while seen < 500:\n"
        "    try: child = os.fork()\n"
        "    except OSError: break\n"
        "    seen += 1\n"
        "    if child == 0:\n        time.sleep(60)\n        os._exit(0)\n"
    )
    started = time.monotonic()
    forks = value_of(sandbox, attack)
    assert isinstance(forks, int)
    assert 0 < forks <= sandbox.limits.processes_max
    assert time.monotonic() - started < SOON_S, "the children were waited for instead of killed"


def test_memory_is_bounded(sandbox: Sandbox) -> None:
    assert "MemoryError" in error_of(sandbox, "x = bytearray(2 << 30)")


def test_processor_time_is_bounded() -> None:
    sandbox = Sandbox(limits=Limits(wall_s=90, step_wall_s=80, cpu_s=1))
    started = time.monotonic()
    assert "died" in error_of(sandbox, "while True: pass")
    assert time.monotonic() - started < 60


def test_sleeping_is_bounded_by_the_wall_clock() -> None:
    sandbox = Sandbox(limits=Limits(wall_s=1, step_wall_s=30))
    started = time.monotonic()
    assert "wall-clock" in error_of(sandbox, "import time\ntime.sleep(60)")
    assert time.monotonic() - started < SOON_S


def test_code_that_swallows_its_alarm_is_killed() -> None:
    sandbox = Sandbox(limits=Limits(wall_s=20, step_wall_s=0.3))
    attack = "import time\nwhile True:\n    try: time.sleep(60)\n    except BaseException: pass\n"
    started = time.monotonic()
    assert "died" in error_of(sandbox, attack)
    assert time.monotonic() - started < SOON_S


def test_one_file_and_all_files_together_are_bounded(sandbox: Sandbox) -> None:
    assert "Error" in error_of(sandbox, "f = open('/tmp/a', 'wb')\nwhile True: f.write(b'x' * (1 << 20))")
    many = "for n in range(100):\n    with open(f'/tmp/{n}', 'wb') as f: f.write(b'x' * (4 << 20))"
    assert "No space left" in error_of(sandbox, many)


def test_a_flood_of_prints_is_cut(sandbox: Sandbox) -> None:
    result = sandbox.run_python("for _ in range(300): print('A' * 100_000)")
    assert result.passed
    assert len(result.stdout) <= sandbox.limits.step_output_chars


def test_a_flood_through_the_report_channel_is_killed(sandbox: Sandbox) -> None:
    attack = (
        "import os\n"
        "for fd in range(3, 10):\n"
        "    try:\n        while True: os.write(fd, b'A' * 65536)\n"
        "    except OSError: pass\n"
    )
    assert "output limit" in error_of(sandbox, attack)


def test_no_namespace_can_be_nested(sandbox: Sandbox) -> None:
    attack = NAMESPACE + "seen = [libc.unshare(flag) for flag in (0x10000000, 0x00020000, 0x40000000)]"
    assert value_of(sandbox, attack) == [-1, -1, -1]


def test_nothing_can_be_mounted(sandbox: Sandbox) -> None:
    assert value_of(sandbox, NAMESPACE + "seen = libc.mount(b'none', b'/tmp', b'tmpfs', 0, None)") == -1


def test_no_other_user_can_be_become_and_no_capability_is_left(sandbox: Sandbox) -> None:
    assert "OSError" in error_of(sandbox, "import os\nos.setuid(0)")
    status = "seen = [l.split()[1] for l in open('/proc/self/status') if l.startswith(('Cap', 'NoNewPrivs'))]"
    assert value_of(sandbox, status) == ["0" * 16] * 5 + ["1"]


def test_as_root_the_code_runs_as_nobody_known(sandbox: Sandbox) -> None:
    outside = os.geteuid()
    uid = value_of(sandbox, "import os\nseen = os.getuid()")
    assert isinstance(uid, int)
    assert uid == outside or (outside == 0 and uid >= 60_000)


def test_limits_cannot_be_raised_again(sandbox: Sandbox) -> None:
    attack = "import resource\nresource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))"
    assert "Error" in error_of(sandbox, attack)


def test_killing_the_runner_leaves_no_verdict_but_failure(sandbox: Sandbox) -> None:
    result = sandbox.run_python("import os\nos.kill(os.getppid(), 9)", test="assert 1 == f(1)")
    assert not result.passed


def named(name: str) -> str:
    """Return code that gives its process, and those it starts, a name that can be seen from outside."""
    return NAMESPACE + f"libc.prctl(15, {name.encode()!r}, 0, 0, 0)\n"


def processes_named(name: str) -> list[str]:
    found = []
    for comm in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):
            if comm.read_text().strip() == name:
                found.append(comm.parent.name)
    return found


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


DAEMONS = "import os, time\nfor _ in range(2):\n    if os.fork() == 0:\n        os.setsid()\n        time.sleep(600)\n"


def test_nothing_started_inside_outlives_the_run(sandbox: Sandbox) -> None:
    name = f"sbx-{os.getpid()}-a"
    assert sandbox.run_python(named(name) + DAEMONS).passed
    assert processes_named(name) == []


def test_the_wall_clock_kills_what_left_the_session() -> None:
    name = f"sbx-{os.getpid()}-b"
    sandbox = Sandbox(limits=Limits(wall_s=1, step_wall_s=30))
    assert "wall-clock" in error_of(sandbox, named(name) + DAEMONS + "time.sleep(600)")
    wait_until(lambda: processes_named(name) == [])


def test_what_runs_inside_dies_with_the_service() -> None:
    """Kill -9 of the service: nothing goes on computing inside."""
    name = f"sbx-{os.getpid()}-c"
    code = named(name) + DAEMONS + "time.sleep(600)"
    service = f"from jupiter.sandbox import *\nSandbox(limits=Limits(wall_s=600, step_wall_s=600)).run_python({code!r})"
    with subprocess.Popen([sys.executable, "-c", service]) as process:
        wait_until(lambda: len(processes_named(name)) == 3)
        process.kill()
    wait_until(lambda: processes_named(name) == [])
