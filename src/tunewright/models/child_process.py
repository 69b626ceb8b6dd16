"""A program that ends with its parent: ``python -m tunewright.models.child_process PROGRAM ...``."""

from __future__ import annotations

import os
import signal
import sys

from tunewright import operating_system

if __name__ == "__main__":
    operating_system.end_with_parent(os.getppid(), signal.SIGTERM)
    operating_system.replace_process(sys.argv[1:])
