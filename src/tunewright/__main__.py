"""Lets ``python -m tunewright`` stand for the command."""

from tunewright.cli import main

main()
