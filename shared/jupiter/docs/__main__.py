"""Write the generated documents into the current directory's repository."""

from __future__ import annotations

import sys

from jupiter.docs import generators


def main() -> None:
    for path, generate in generators().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(generate(), encoding="utf-8")
        sys.stdout.write(f"wrote {path}\n")


if __name__ == "__main__":
    main()
