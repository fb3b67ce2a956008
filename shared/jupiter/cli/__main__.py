"""`python -m jupiter.cli` is `jupiter`."""

from jupiter.cli import main

main()
