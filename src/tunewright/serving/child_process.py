"""A program that ends with its parent: ``python -m tunewright.serving.child_process PROGRAM ...``."""

from __future__ import annotations

import os
import signal
import sys

from tunewright.models.llama_cpp_process import die_with_parent

if __name__ == "__main__":
    die_with_parent(signal.SIGTERM)
    os.execvp(sys.argv[1], sys.argv[1:])
