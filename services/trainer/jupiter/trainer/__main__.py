"""`python -m jupiter.trainer`: shards in, checkpoints out. `torchrun -m jupiter.trainer`: the same, by many."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from jupiter.trainer.config import load

if TYPE_CHECKING:
    from jupiter.service import Runtime, ServiceParts
    from jupiter.trainer.session import Session


async def setup(runtime: Runtime) -> ServiceParts[Session]:
    """Build everything the trainer is made of."""
    from jupiter.trainer.handlers import parts

    await runtime.status("starting")
    return parts(runtime)


def main() -> None:
    config = load()  # before torch: `--help` and a wrong setting answer at once

    if int(os.environ.get("RANK", "0")) > 0:
        from jupiter.trainer.following import run_follower

        run_follower(config)
        return

    from jupiter.service import run_service

    asyncio.run(run_service(name="trainer", config=config, setup=setup))


if __name__ == "__main__":
    main()
