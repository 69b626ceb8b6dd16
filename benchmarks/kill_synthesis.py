"""Kill -9 at random moments of the synthesis, resume each time, and compare with an undisturbed run.

    python benchmarks/kill_synthesis.py [--kills 50] [--seed 0] [--out benchmarks/results/kill_synthesis.json]

Documents of random words, ten sentences each, and an exam of the user's own, so that synthesis is all there is to wait
for. The teacher is a server in a process of its own that counts every call it begins to answer. The kills come at
random numbers of calls, spread over the whole synthesis; after the last one the run is left to finish. Recorded:
samples lost or twice, whether samples.jsonl is the undisturbed run's, and the calls in excess (only those under way at
a kill may be made again).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from kill_anywhere import run_whole, start
from slow_teacher import num_calls, slow_teacher

UNTIL = ("--until", "synth")
NUM_DOCUMENTS, NUM_SENTENCES, CONCURRENCY, LATENCY_S = 600, 10, 2, 0.01
RECIPE = f"""
[documents]
paths = ["documents.jsonl"]
[split]
exam_share = 0.0
[exam]
file = "exam.jsonl"
[teacher]
url = "{{url}}"
model = "slow"
concurrency = {CONCURRENCY}
[synthesis]
tasks = ["answer-first", "refusal"]
samples_per_document = {NUM_SENTENCES}
"""


def write_inputs(folder: Path, url: str, seed: int) -> Path:
    """Write documents, exam and recipe; return the recipe's path."""
    dice = random.Random(seed)
    words = ["".join(dice.choice("bdfgklmnprstvz") + dice.choice("aeiou") for _ in range(3)) for _ in range(4000)]
    with (folder / "documents.jsonl").open("w") as file:
        for number in range(NUM_DOCUMENTS):
            text = " ".join(f"{' '.join(dice.sample(words, 12)).capitalize()}." for _ in range(NUM_SENTENCES))
            file.write(json.dumps({"title": f"Report {number}", "text": text}) + "\n")
    (folder / "exam.jsonl").write_text(
        json.dumps({"question": "What is the color of the clear sky at noon?", "answer": "Blue."}) + "\n"
    )
    path = folder / "recipe.toml"
    path.write_text(RECIPE.format(url=url))
    return path


def run_killed(recipe: Path, folder: Path, url: str, moments: list[int]) -> list[int]:
    """Run, with a kill as soon as each of these numbers of calls is seen; return the replies on disk after each."""
    kept, before = [], num_calls(url)
    for wanted in moments:
        process = start(recipe, folder, *UNTIL)
        moment = max(wanted, num_calls(url) - before + 1)  # at least one new call: the synthesis is under way
        while num_calls(url) - before < moment:
            if process.poll() is not None:
                raise SystemExit(f"the run ended before kill {len(kept) + 1}")
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        kept.append((folder / "teacher.jsonl").read_bytes().count(b"\n"))
        print(f"kill {len(kept)}: {kept[-1]} replies on disk", file=sys.stderr, flush=True)
    run_whole(recipe, folder, *UNTIL)
    return kept


def ids(folder: Path) -> list[str]:
    return [json.loads(line)["id"] for line in (folder / "samples.jsonl").read_text().splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/kill_synthesis.json"))
    options = parser.parse_args()
    dice = random.Random(options.seed)
    with TemporaryDirectory() as work, slow_teacher(LATENCY_S, 64) as url:
        recipe = write_inputs(Path(work), url, options.seed)
        whole, killed = Path(work) / "whole", Path(work) / "killed"
        took = run_whole(recipe, whole, *UNTIL)
        undisturbed = num_calls(url)
        print(f"undisturbed: {took:.0f} s, {undisturbed} calls", file=sys.stderr, flush=True)
        began = time.monotonic()
        kept = run_killed(recipe, killed, url, sorted(dice.sample(range(1, undisturbed), options.kills)))
        disturbed = num_calls(url) - undisturbed
        expected, resumed = ids(whole), ids(killed)
        result = {
            "date": time.strftime("%Y-%m-%d"),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "seed": options.seed,
            "concurrency": CONCURRENCY,
            "kills": len(kept),
            "replies_on_disk_at_kills": kept,
            "undisturbed_s": round(took, 1),
            "disturbed_s": round(time.monotonic() - began, 1),
            "samples": len(expected),
            "samples_lost": len(set(expected) - set(resumed)),
            "samples_twice": len(resumed) - len(set(resumed)),
            "same_samples_file": (whole / "samples.jsonl").read_bytes() == (killed / "samples.jsonl").read_bytes(),
            "calls_undisturbed": undisturbed,
            "calls_disturbed": disturbed,
            "calls_in_excess_percent": round(100 * (disturbed / undisturbed - 1), 2),
        }
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    if not result["same_samples_file"] or disturbed > 1.02 * undisturbed:
        raise SystemExit("the disturbed run differs")


if __name__ == "__main__":
    main()
