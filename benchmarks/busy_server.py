"""Is a teacher with many slots kept busy? Measures the share of slots in use at the server.

    python benchmarks/busy_server.py [--calls 12000] [--out benchmarks/results/busy_server.json]

A server with 50 ms latency and 64 slots gets calls from the code of a run: one thread per open call,
adaptive concurrency from 8 up, every reply on disk (fsync) before its thread continues. Counted over the middle half of
the calls. Then the same journal is opened again, as a restart does.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from slow_teacher import calls_of, slow_teacher

from tunewright.records import Message
from tunewright.run_folder import RunFolder
from tunewright.settings import TeacherSettings
from tunewright.teacher import Request, open_teacher
from tunewright.teacher.protocol import Reply

LATENCY_S, SLOTS = 0.05, 64
PROMPT = (
    "You write questions about the facts of a text, in plain words, without naming the text itself.\n\n"
    "Barley in the northern valleys\nWrite a question that this sentence answers: Farmers of the valley number {number} sell their barley at a "
    "market that opens each Thursday between October and the end of March."
)


def busy_share(calls: list[tuple[float, float]], slots: int) -> float:
    """Return the mean share of the slots in use between the starts of the first and the last quarter's calls."""
    starts = sorted(start for start, _ in calls)
    low, high = starts[len(starts) // 4], starts[3 * len(starts) // 4]
    used = sum(max(0.0, min(end, high) - max(start, low)) for start, end in calls)
    return used / (slots * (high - low))


def restart_s(folder: Path, number: int) -> float:
    """Return how long it takes to open a journal of that many replies and find all of them in it."""
    run = RunFolder.create(folder)
    settings = TeacherSettings(url="http://127.0.0.1:9/v1", model="m")
    requests = [Request((Message(role="user", content=PROMPT.format(number=n)),), 64, 0.0, 0) for n in range(number)]
    reply = Reply("What do the farmers of the valley sell at the market that opens each Thursday?", "stop", 90, 18)
    with open_teacher(run.journal("teacher.jsonl"), settings, "synth") as teacher:
        model = teacher._models[0]
        lines = [
            {
                "key": request.key(model),
                "stage": "synth",
                "model": model,
                "text": reply.text,
                "finish": reply.finish,
                "num_prompt_tokens": 90,
                "num_tokens": 18,
                "seconds": 0.05,
            }
            for request in requests
        ]
        run.journal("teacher.jsonl").append(*lines)
    start = time.monotonic()
    with open_teacher(run.journal("teacher.jsonl"), settings, "synth") as teacher:
        replies = teacher.ask_all(requests, "asking")
    took = time.monotonic() - start
    assert replies == [reply] * number
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=12000)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/busy_server.json"))
    options = parser.parse_args()
    requests = [
        Request((Message(role="user", content=PROMPT.format(number=n)),), 64, 0.0, 0) for n in range(options.calls)
    ]
    with TemporaryDirectory(dir=".") as work, slow_teacher(LATENCY_S, SLOTS) as url:
        settings = TeacherSettings(url=url, model="m", concurrency=SLOTS)
        run = RunFolder.create(Path(work) / "run")
        start, cpu = time.monotonic(), time.process_time()
        with open_teacher(run.journal("teacher.jsonl"), settings, "synth") as teacher:
            replies = teacher.ask_all(requests, "asking")
        took, cpu = time.monotonic() - start, time.process_time() - cpu
        calls = calls_of(url)
        result = {
            "date": time.strftime("%Y-%m-%d"),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "load_average": round(os.getloadavg()[0], 1),
            "latency_s": LATENCY_S,
            "slots": SLOTS,
            "calls": len(calls),
            "answered": sum(reply is not None for reply in replies),
            "journalled": len(run.journal("teacher.jsonl").entries),
            "seconds": round(took, 2),
            "calls_per_second": round(len(calls) / took, 1),
            "busy_share_middle_half": round(busy_share(calls, SLOTS), 4),
            "client_cpu_ms_per_call": round(1000 * cpu / len(calls), 3),
            "restart_s_100k_calls": round(restart_s(Path(work) / "restart", 100_000), 2),
        }
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    if result["answered"] != options.calls or result["busy_share_middle_half"] < 0.9:
        raise SystemExit("the server was not kept busy")


if __name__ == "__main__":
    main()
