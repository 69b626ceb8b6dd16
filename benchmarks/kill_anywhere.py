"""Kill -9 at random moments over the whole path, resume each time, and compare with an undisturbed run.

    python benchmarks/kill_anywhere.py DOCUMENTS [--kills 10] [--seed 0] [--out benchmarks/results/kill_anywhere.json]

The teacher is the embedded model behind a proxy of this script, so that every call that is sent is counted, also those
that a kill cuts short. Three things are recorded: adapter and verdict equal those of the undisturbed run; teacher calls
in excess; and how long a second, unchanged run takes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

import urllib3

from tunewright.models.source import gguf_path
from tunewright.storage import file_digest
from tunewright.teacher.teacher import serve_embedded

RECIPE = """
[documents]
paths = ["{documents}"]
chunk_tokens = 128
[exam]
learned_per_document = 1
unseen_per_document = 1
[teacher]
url = "{url}"
model = "embedded"
concurrency = 1
[synthesis]
samples_per_document = 8
refusal_share = 0.1
[training]
epochs = 1
batch_size = 8
learning_rate = 1e-3
checkpoint_steps = 5
[retrieval]
passages = 1
[evaluation]
few_shot = 1
max_new_tokens = 24
"""


@contextmanager
def counting_proxy(upstream: str) -> Iterator[tuple[str, list[float]]]:
    """Forward chat calls to the embedded server; yield the address and the list of the calls' times."""
    calls: list[float] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            calls.append(time.time())
            reply = urllib3.request("POST", upstream + self.path, body=body, timeout=120)
            try:
                self.send_response(reply.status)
                self.send_header("Content-Length", str(len(reply.data)))
                self.end_headers()
                self.wfile.write(reply.data)
            except ConnectionError:
                pass  # the caller was killed meanwhile

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1", calls
    server.shutdown()


def start(recipe: Path, folder: Path, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tunewright", "run", str(recipe), "--dir", str(folder), *more]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)


def run_whole(recipe: Path, folder: Path, *more: str) -> float:
    began = time.monotonic()
    if start(recipe, folder, *more).wait() != 0:
        raise SystemExit(f"the run in {folder} failed; look with: tunewright status {folder}")
    return time.monotonic() - began


def run_killed(recipe: Path, folder: Path, moments: list[float]) -> list[dict[str, object]]:
    """Run with a kill after each of these seconds of work; a kill hits the whole process group."""
    kills = []
    for seconds in moments:
        process = start(recipe, folder)
        try:
            process.wait(timeout=seconds)
            raise SystemExit(f"the run ended before kill {len(kills) + 1}: nothing was proven; try another --seed")
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        kills.append({"after_s": round(seconds, 1), "stage": stage_under_way(folder)})
        print(kills[-1], flush=True)
    run_whole(recipe, folder)
    return kills


def stage_under_way(folder: Path) -> str:
    journal = folder / "journal.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []
    return (
        str(lines[-1]["stage"]) + ("" if lines[-1]["event"] == "start" else " (between stages)") if lines else "start"
    )


def verdict(folder: Path) -> dict[str, object]:
    """The verdict without how long the answers took."""
    content = json.loads((folder / "verdict.json").read_text())
    for arm in content["results"]["arms"]:
        del arm["duration_s"]
    return content


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("documents", type=Path)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/kill_anywhere.json"))
    options = parser.parse_args()
    with (
        TemporaryDirectory() as work,
        serve_embedded(gguf_path()) as upstream,
        counting_proxy(upstream) as (url, calls),
    ):
        recipe = Path(work) / "recipe.toml"
        recipe.write_text(RECIPE.format(documents=options.documents.absolute(), url=url))
        whole, killed = Path(work) / "whole", Path(work) / "killed"
        took = run_whole(recipe, whole)
        undisturbed = len(calls)
        print(f"undisturbed: {took:.0f} s, {undisturbed} calls", flush=True)
        again = run_whole(recipe, whole)
        calls_again = len(calls) - undisturbed
        dice = random.Random(options.seed)
        chosen = sorted(dice.uniform(0, took) for _ in range(options.kills))
        gaps = [later - earlier for earlier, later in zip([0.0, *chosen], chosen, strict=False)]
        before = len(calls)
        kills = run_killed(recipe, killed, [gap + 2.0 for gap in gaps])  # 2 s: each start's own imports
        disturbed = len(calls) - before
        result = {
            "date": time.strftime("%Y-%m-%d"),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "documents": len(list(options.documents.iterdir())),
            "seed": options.seed,
            "kills": kills,
            "undisturbed_s": round(took, 1),
            "second_run_s": round(again, 2),
            "second_run_calls": calls_again,
            "calls_undisturbed": undisturbed,
            "calls_disturbed": disturbed,
            "calls_in_excess_percent": round(100 * (disturbed / undisturbed - 1), 2),
            "same_adapter": file_digest(whole / "adapter") == file_digest(killed / "adapter"),
            "same_training_set": file_digest(whole / "train.jsonl") == file_digest(killed / "train.jsonl"),
            "same_verdict": verdict(whole) == verdict(killed),
            "verdict": verdict(whole)["name"],
        }
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    if not (result["same_adapter"] and result["same_verdict"] and disturbed <= 1.02 * undisturbed):
        raise SystemExit("the disturbed run differs")


if __name__ == "__main__":
    main()
