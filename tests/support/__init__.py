"""What several tests share: tiny models, servers on the loopback, finished run folders."""

from pathlib import Path

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
ABSTRACTS = ROOT / "src/tunewright/examples/abstracts"
