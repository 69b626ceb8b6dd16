"""Kill -9 in each stage, 20 times, resume each time, and compare with the undisturbed stage.

    TMPDIR=/dev/shm PYTHONPATH=tests python benchmarks/kill_stages.py [--kills 20] [--seed 0] [STAGE ...]

On the tiny model of the tests, with a teacher on the loopback. A stage starts from the files of the stages before it, is
killed in turn at a random change of the run folder and at a random time, and continues with the same command. When it
gets through, its files are compared, and it starts again, until it was killed often enough. A kill counts when the
journal says that the stage had started and not ended. Compared are the files that two undisturbed runs of the stage
write alike; durations count for nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.crash_machine import ONE_THREAD
from support.faulty_server import Answer, FakeTeacher, Seen, completion, fake_teacher
from support.tiny import make_model
from support.warm_process import WarmProcess
from support.whole_path import asks, write_recipe
from tunewright.examples import abstracts_folder
from tunewright.recipe import load_recipe
from tunewright.run_folder import RunFolder
from tunewright.stages import Stage, stages_of
from tunewright.storage import file_digest

RESULTS = Path(__file__).parent / "results/kill_stages.json"
DOCUMENTS, CONCURRENCY = 12, 4
ENVIRONMENT = {**os.environ, **ONE_THREAD}


def replies(seen: Seen) -> Answer:
    """Answer as teacher and as judge."""
    prompt = seen.body["messages"][-1]["content"]
    if "Answer A: " in prompt:
        return Answer(body=completion(json.dumps({"better": "A" if len(prompt) % 2 else "B"})))
    if "claim" in prompt and "Sentence: " not in prompt:
        return Answer(body=completion(json.dumps({"claims": [{"claim": "c", "verdict": "supported"}]})))
    return asks(seen)


def write_pairs(folder: Path) -> Path:
    rows = [
        {"prompt": f"Which group had risk {n}?", "chosen": f"Group {n}, of all.", "rejected": "Nobody can say."}
        for n in range(24)
    ]
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def document_recipe(folder: Path, student: Path, url: str) -> Path:
    """A recipe of all stages from documents to the report."""
    (folder / "docs").mkdir(parents=True)
    for path in sorted(abstracts_folder().glob("*.md"))[:DOCUMENTS]:
        shutil.copy(path, folder / "docs")
    return write_recipe(
        folder,
        student,
        url,
        folder / "docs",
        teacher={"url": url, "model": "fake", "concurrency": CONCURRENCY},
        judge={"url": url, "model": "arbiter", "forced": True},
        preference={"data": [str(write_pairs(folder))], "learning_rate": 0.003},
        training={"epochs": 2, "rank": 4, "learning_rate": 0.01, "checkpoint_steps": 2, "batch_size": 4, "seeds": 2},
        evaluation={"max_new_tokens": 8, "few_shot": 2, "arms": ["base", "few-shot", "rag", "tuned", "placebo"]},
    )


def chat_recipe(folder: Path, student: Path, url: str) -> Path:
    """A recipe whose exam is held out of the user's own chats."""
    folder.mkdir()
    rows = [{"question": f"What is kept in room {n}?", "answer": f"In room {n}: {40 + n} crates."} for n in range(200)]
    (folder / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return write_recipe(
        folder,
        student,
        url,
        folder / "docs",
        documents={"paths": []},
        exam={"held_out_share": 0.25, "retention_items": 0},
        synthesis={"samples_per_document": 0, "data": [str(folder / "chats.jsonl")]},
    )


def untimed(value: Any) -> Any:
    """Return a JSON value without durations."""
    if isinstance(value, dict):
        return {key: untimed(own) for key, own in value.items() if not key.endswith(("_s", "seconds"))}
    return [untimed(item) for item in value] if isinstance(value, list) else value


def contents(run: Path, stage: Stage) -> dict[str, str]:
    """Return what each file of a stage holds: a digest, of JSON without durations."""
    held = {}
    for name in (*stage.writes, "rejected.jsonl"):
        for path in sorted([run / name] if (run / name).is_file() else (run / name).rglob("*")):
            if path.suffix in (".json", ".jsonl"):
                held[str(path.relative_to(run))] = json.dumps(
                    [untimed(json.loads(line)) for line in path.read_text("utf-8").splitlines()]
                    if path.suffix == ".jsonl"
                    else untimed(json.loads(path.read_text("utf-8")))
                )
            elif path.is_file():
                held[str(path.relative_to(run))] = file_digest(path)
    return held


@dataclass
class Bench:
    """A recipe's run, at one path throughout, and the process that starts its commands."""

    process: WarmProcess
    recipe: Path
    teacher: FakeTeacher
    draw: random.Random
    run: Path = field(init=False)

    def __post_init__(self) -> None:
        self.run = self.recipe.parent / "run"

    def command(self, until: str, fault: str = "none", number: int = 0) -> tuple[int, str]:
        arguments = [fault, number, self.run, "run", self.recipe, "--dir", self.run, "--until", until]
        ended = self.process.run(arguments, ENVIRONMENT, module="support.crashing_command")
        if ended.returncode not in (0, -signal.SIGKILL):
            raise SystemExit(f"{until}: {ended.returncode}\n{ended.stdout}{ended.stderr}")
        return ended.returncode, ended.stderr

    def restore(self, before: Path) -> None:
        shutil.rmtree(self.run, ignore_errors=True)
        if before.exists():
            shutil.copytree(before, self.run)

    def is_under_way(self, stage: str) -> bool:
        """Return whether the journal's last entry is the start of this stage."""
        path = self.run / "journal.jsonl"
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        last = json.loads(lines[-1]) if lines else {}
        return (last.get("event"), last.get("stage")) == ("start", stage)

    def undisturbed(self, stage: Stage, before: Path) -> tuple[dict[str, str], list[str], int, float, int]:
        """Return a stage's files, those that two runs write differently, its changes, seconds and calls."""
        held = []
        for _ in range(2):
            self.restore(before)
            calls, start = len(self.teacher.seen), time.perf_counter()
            shown = self.command(stage.name, "count")[1]
            seconds, calls = time.perf_counter() - start, len(self.teacher.seen) - calls
            held.append(contents(self.run, stage))
        differ = sorted(name for name in held[0] if held[0][name] != held[1].get(name))
        return held[0], differ, int(shown.rsplit("changes: ", 1)[1].split()[0]), seconds, calls

    def killed(self, stage: Stage, before: Path, num_kills: int) -> dict[str, object]:
        """Kill a stage until it was killed often enough and got through; return its record."""
        whole, differ, num_changes, seconds, num_calls = self.undisturbed(stage, before)
        kills, early, rounds = {"kill": 0, "clock": 0}, 0, 0
        first_call, wrong = len(self.teacher.seen), set[str]()
        while sum(kills.values()) < num_kills:
            self.restore(before)
            rounds += 1
            is_through = False
            while not is_through:
                fault = "none" if sum(kills.values()) >= num_kills else min(kills, key=lambda name: kills[name])
                most = num_changes if fault == "kill" else int(1000 * seconds)
                is_through = self.command(stage.name, fault, self.draw.randint(1, most))[0] == 0
                if not is_through:
                    is_inside = self.is_under_way(stage.name)
                    kills[fault] += is_inside
                    early += not is_inside
            after = contents(self.run, stage)
            wrong |= {name for name in whole if name not in differ and after.get(name) != whole[name]}
            wrong |= {*after} - {*whole}
            wrong |= {f"changed: {change}" for change in RunFolder.open(self.run).changes()}
        return {
            "kills_at_a_change": kills["kill"],
            "kills_at_a_time": kills["clock"],
            "kills_before_or_after": early,
            "runs": rounds,
            "changes_of_the_folder": num_changes,
            "seconds": round(seconds, 2),
            "files_alike": len(whole) - len(differ),
            "files_not_compared": differ,
            "files_wrong": sorted(wrong),
            "calls_undisturbed": num_calls,
            "calls_in_excess": len(self.teacher.seen) - first_call - rounds * num_calls,
        }


@contextmanager
def warm(recipe: Path) -> Iterator[WarmProcess]:
    """Start a process that has imported what a run up to its training set needs."""
    process = WarmProcess(ENVIRONMENT)
    scratch = recipe.parent / "rehearsal"
    try:
        assert process.rehearse(["run", recipe, "--dir", scratch, "--until", "curate"], ENVIRONMENT) == 0
        shutil.rmtree(scratch)
        yield process
    finally:
        process.close()


def measure(bench: Bench, only: list[str], num_kills: int, note: Callable[[str, object], None]) -> None:
    """Run the stages one after the other, each killed, and note each record."""
    for stage in stages_of(load_recipe(bench.recipe)):
        before = bench.recipe.parent / "before"
        if only and stage.name not in only:
            bench.command(stage.name)
        else:
            shutil.rmtree(before, ignore_errors=True)
            if bench.run.exists():
                shutil.copytree(bench.run, before)
            note(stage.name, bench.killed(stage, before, num_kills))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stages", nargs="*")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    record: dict[str, Any] = json.loads(options.out.read_text("utf-8")) if options.out.exists() else {"stages": {}}

    def note(name: str, figures: object) -> None:
        record["stages"][name] = figures
        print(name, json.dumps(figures), flush=True)
        record.update(
            machine=f"{platform.machine()}, {os.cpu_count()} cores, shared with other work", seed=options.seed
        )
        options.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

    with tempfile.TemporaryDirectory() as work, fake_teacher(replies) as teacher:
        student = make_model(Path(work) / "model")
        recipe = document_recipe(Path(work) / "documents", student, teacher.url)
        with warm(recipe) as process:
            draw = random.Random(options.seed)
            measure(Bench(process, recipe, teacher, draw), options.stages, options.kills, note)
            if not options.stages or "hold-out" in options.stages:
                chats = chat_recipe(Path(work) / "chats", student, teacher.url)
                measure(Bench(process, chats, teacher, draw), ["hold-out"], options.kills, note)


if __name__ == "__main__":
    main()
