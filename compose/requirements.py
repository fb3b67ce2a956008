"""Print what given extras of pyproject.toml need, one requirement a line: the dependency layer of an image.

Owns: nothing but this reading, so that code that changes does not install the dependencies again. Needs no package.

    python compose/requirements.py controller sandbox > requirements.txt
"""

import re
import sys
import tomllib
from pathlib import Path


def main() -> None:
    with Path(__file__).resolve().parent.joinpath("../pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    extras = project["optional-dependencies"]
    own = re.compile(rf"{re.escape(project['name'])}\[(.+)\]")
    found, waiting = list(project["dependencies"]), sys.argv[1:]
    while waiting:
        name = waiting.pop()
        if name not in extras:
            sys.exit(f"pyproject.toml has no extra {name!r}; it has {', '.join(sorted(extras))}")
        for requirement in extras[name]:
            nested = own.fullmatch(requirement)
            if nested:
                waiting += [part.strip() for part in nested[1].split(",")]
            else:
                found.append(requirement)
    print("\n".join(sorted(set(found))))


if __name__ == "__main__":
    main()
