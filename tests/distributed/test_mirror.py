"""Machines that share no disk begin from the same files, proven byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from jupiter.modeling.golden import file_digests
from tests.distributed.launch import in_processes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# Each rank is a machine of its own: another home, and the model's directory only on rank 0's.
PROGRAM = """
import sys
from pathlib import Path
from torch import distributed
from jupiter.trainer import mirror
from jupiter.trainer.mirror import mirror as bring
mirror.CHUNK_BYTES = 1000
distributed.init_process_group("gloo")
rank = distributed.get_rank()
model, home = Path(sys.argv[1]), Path(sys.argv[2]) / str(rank)
place = bring(model if rank == 0 else Path("/nonexistent"), home=home, writes=True)
sys.stdout.write(f"{rank} {place}\\n")  # in one piece: print writes a line in several, between those of the other rank
distributed.destroy_process_group()
"""


def places(model: Path, home: Path) -> dict[int, Path]:
    """Return which directory each rank was given."""
    program = home.with_suffix(".py")
    program.write_text(PROGRAM)
    done = in_processes(2, str(program), str(model), str(home))
    assert done.returncode == 0, done.stderr[-3000:]
    return {int(line.split()[0]): Path(line.split()[1]) for line in done.stdout.strip().splitlines()}


def test_a_machine_without_the_model_or_with_another_is_sent_it(tiny: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    first = places(tiny, home)
    assert first[0] == tiny
    assert first[1].parent == home / "1"
    assert file_digests(first[1]) == file_digests(tiny)
    assert not any(home.glob("1/*.arriving"))
    (first[1] / "config.json").write_text("{}")  # no longer what rank 0 has
    second = places(tiny, home)
    assert file_digests(second[1]) == file_digests(tiny)
