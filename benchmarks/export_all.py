"""Times every export of a run, one after the other, and records its certificate.

    python benchmarks/export_all.py RUN [-o FILE]

RUN is a finished run folder of the demo (tunewright demo --dir RUN). Each export is a command of its own, as its user
types it, into a folder that is thrown away. The two GGUF files are loaded by llama.cpp (xllamacpp) for their
certificates, and answer exam questions there; the adapter's on top of the base's own GGUF.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

COMMAND = "import sys; from tunewright.cli import main; main(sys.argv[1:])"
TARGETS = ("adapter", "merged", "gguf", "gguf-adapter", "ollama")


def exported(run: Path, target: str, folder: Path) -> dict[str, Any]:
    """Export once; return its seconds and the figures of its certificate."""
    start = time.monotonic()
    words = [sys.executable, "-c", COMMAND, "export", str(run), "--to", target, "-o", str(folder)]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - start
    certificate = json.loads((folder / "certificate.json").read_text(encoding="utf-8"))
    prompts, nearness, exam = (certificate[name] for name in ("prompts", "distributions", "exam"))
    return {
        "seconds": round(seconds, 1),
        "type": certificate["dtype"],
        "computed_by": certificate["exported"],
        "prompts_identical": f"{prompts['identical']} of {prompts['conversations']}",
        "likeliest_token_same": f"{nearness['same']} of {nearness['positions']}, {nearness['ties']} tie(s)",
        "floor": certificate["floor"],
        "kl_mean_nats": nearness["mean_kl"],
        "exam": exam,
        "bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
    }


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/export_all.json"))
    options = parser.parse_args()
    machine = f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores"
    result: dict[str, Any] = {"date": datetime.date.today().isoformat(), "machine": machine, "exports": {}}
    with tempfile.TemporaryDirectory() as scratch:
        for target in TARGETS:
            result["exports"][target] = exported(options.run, target, Path(scratch) / target)
            result["minutes"] = round(sum(export["seconds"] for export in result["exports"].values()) / 60, 2)
            options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
            print(target, result["exports"][target], flush=True)


if __name__ == "__main__":
    main()
