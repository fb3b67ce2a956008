"""The generator as a process: `python -m jupiter.generator [--config FILE] [--set KEY=VALUE]`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the configuration before torch is imported, then run until told to stop."""
    from jupiter.generator.config import load

    config = load(arguments)

    from jupiter.generator.wiring import setup
    from jupiter.service import run_service

    asyncio.run(run_service(name="generator", config=config, setup=setup))


if __name__ == "__main__":
    main()
