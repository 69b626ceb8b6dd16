"""Writes a tiny random model of each family: python tests/families.py FOLDER."""

import sys
from pathlib import Path

from support.families import make_families

if __name__ == "__main__":
    make_families(Path(sys.argv[1]))
