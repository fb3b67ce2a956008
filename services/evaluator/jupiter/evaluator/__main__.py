"""`python -m jupiter.evaluator`: held-out documents into one frozen benchmark, checkpoints into evaluations."""

from __future__ import annotations

import asyncio

from jupiter.evaluator.config import load


def main() -> None:
    config = load()  # before torch: `--help` and a wrong setting answer at once

    from jupiter.evaluator.wiring import setup
    from jupiter.service import run_service

    asyncio.run(run_service(name="evaluator", config=config, setup=setup))


if __name__ == "__main__":
    main()
