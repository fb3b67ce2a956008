"""The controller as a process: `python -m jupiter.controller [--config FILE] [--set KEY=VALUE]`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the configuration before anything slow is imported, then run until told to stop."""
    from jupiter.controller.config import load

    config = load(arguments)

    from jupiter.controller.wiring import setup
    from jupiter.service import run_service

    asyncio.run(run_service(name="controller", config=config, setup=setup))


if __name__ == "__main__":
    main()
