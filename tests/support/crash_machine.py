"""Commands in any order, with kills, full disks, Ctrl-C, edited documents and changed settings between and in them.

A model of what a user does to a run up to its training set, for Hypothesis: after any sequence, the run opens, names no
changed file, has paid for no call twice, and a last run without faults gives the files of an undisturbed run. Each
command is a process, and a kill is SIGKILL.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from support.warm_process import WarmProcess
from support.whole_path import write_recipe
from tunewright.run_folder import RunFolder

STAGES = ("ingest", "split", "exam", "synth", "curate")
RESULTS = ("documents.jsonl", "chunks.jsonl", "split.jsonl", "exam.jsonl", "samples.jsonl", "train.jsonl")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
PLANTS = ("Barley", "Clover", "Flax", "Hemp", "Maize", "Rye", "Sorghum", "Vetch")


def article(number: int, edition: int) -> str:
    """Return a short document; another edition has another figure in one sentence."""
    plant, other = PLANTS[number], PLANTS[(number + 3) % len(PLANTS)]
    return (
        f"# {plant} on the northern terraces\n\n{plant} was sown on {120 + 7 * number} plots by nine families in the valley. "
        f"The harvest of {plant.lower()} reached {31 + number + 10 * edition} tons after a wet summer near the river. "
        f"Farmers exchanged {other.lower()} seed with the monastery for {14 + number} barrels of salted herring. "
        f"A late frost damaged {3 + number} of the younger fields above the old stone bridge.\n"
    )


class Folder(RuleBasedStateMachine):
    """One user's folder; ``machine`` sets what all of them share.

    Attributes:
        student: the base model's folder.
        url: of the teacher.
        process: starts the commands.
        whole: the files of undisturbed runs, by the state of documents and settings.
        counts: "sequences", "commands", and the commands that each fault hit.
    """

    student: Path
    url: str
    process: WarmProcess
    whole: dict[tuple[object, ...], dict[str, bytes]]
    counts: Counter[str]

    @initialize()
    def start(self) -> None:
        self.counts["sequences"] += 1
        self.home = Path(tempfile.mkdtemp(prefix="tunewright-machine-"))
        self.run_path = self.home / "run"
        self.editions = [0, 0, 0, 0]
        self.samples = 2
        (self.home / "docs").mkdir()
        for number in range(len(self.editions)):
            self._write(number)

    def _write(self, number: int) -> None:
        (self.home / "docs" / f"{number}.md").write_text(article(number, self.editions[number]), encoding="utf-8")

    def _recipe(self) -> Path:
        return write_recipe(
            self.home,
            self.student,
            self.url,
            self.home / "docs",
            exam={"retention_items": 0, "kinds": ["short"]},
            synthesis={"samples_per_document": self.samples},
        )

    def _command(self, *words: object, fault: str = "none", number: int = 0) -> int:
        """Run a command; return its exit code. What it prints must name no defect."""
        self.counts["commands"] += 1
        arguments = [fault, number, self.run_path, *words]
        ended = self.process.run(arguments, {**os.environ, **ONE_THREAD}, module="support.crashing_command")
        shown = ended.stdout + ended.stderr
        assert ended.returncode in ((0, 1, 3, 130, -signal.SIGKILL) if fault != "none" else (0, 1, 3)), (words, ended)
        assert "defect" not in shown, shown
        assert "Traceback" not in shown, shown
        self.counts[fault] += fault != "none" and ended.returncode != 0
        return ended.returncode

    def _run(self, until: str, fault: str = "none", number: int = 0) -> int:
        return self._command(
            "run", self._recipe(), "--dir", self.run_path, "--until", until, fault=fault, number=number
        )

    @rule(until=st.sampled_from(STAGES))
    def run_until(self, until: str) -> None:
        assert self._run(until) == 0

    @rule(
        until=st.sampled_from(STAGES), fault=st.sampled_from(["kill", "interrupt", "error"]), number=st.integers(1, 150)
    )
    def hit_at_a_change(self, until: str, fault: str, number: int) -> None:
        self._run(until, fault, number)

    @rule(until=st.sampled_from(STAGES), milliseconds=st.integers(1, 600))
    def killed_by_the_clock(self, until: str, milliseconds: int) -> None:
        self._run(until, "clock", milliseconds)

    @rule(until=st.sampled_from(STAGES), free_bytes=st.sampled_from([0, 500, 4096, 20_000]))
    def disk_full(self, until: str, free_bytes: int) -> None:
        self._run(until, "full", free_bytes)

    @rule(until=st.sampled_from(STAGES))
    def mounted_read_only(self, until: str) -> None:
        self._run(until, "read-only")

    @rule(number=st.integers(0, 3))
    def edit_a_document(self, number: int) -> None:
        self.editions[number] = 1 - self.editions[number]
        self._write(number)

    @rule(samples=st.sampled_from([1, 2]))
    def change_a_setting(self, samples: int) -> None:
        self.samples = samples

    @rule(command=st.sampled_from(["status", "exam", "inspect"]))
    def look(self, command: str) -> None:
        self._command(command, self.run_path)

    @invariant()
    def the_run_opens_and_nothing_was_changed(self) -> None:
        if hasattr(self, "home") and (self.run_path / "run.json").exists():
            run = RunFolder.open(self.run_path)
            assert run.changes() == []
            keys = [entry["key"] for entry in run.journal_entries("teacher.jsonl")]
            assert len(keys) == len(set(keys))

    def teardown(self) -> None:
        if not hasattr(self, "home"):
            return
        try:
            assert self._run("curate") == 0
            state = (tuple(self.editions), self.samples)
            if state not in self.whole:
                whole = self.home / "whole"
                assert self._command("run", self._recipe(), "--dir", whole, "--until", "curate") == 0
                self.whole[state] = results(whole)
            assert results(self.run_path) == self.whole[state]
        finally:
            shutil.rmtree(self.home)


def results(folder: Path) -> dict[str, bytes]:
    """Return the files that a run has computed."""
    return {name: (folder / name).read_bytes() for name in RESULTS}


@contextmanager
def machine(student: Path, url: str) -> Iterator[type[Folder]]:
    """Give the machine with a student and a teacher of its own; a first run has loaded what its commands need."""
    process = WarmProcess({**os.environ, **ONE_THREAD})
    own = type(
        "Machine", (Folder,), {"student": student, "url": url, "process": process, "whole": {}, "counts": Counter()}
    )
    rehearsal = own()
    rehearsal.start()
    command = ["run", rehearsal._recipe(), "--dir", rehearsal.run_path, "--until", "curate"]
    try:
        assert process.rehearse(command, {**os.environ, **ONE_THREAD}) == 0
        shutil.rmtree(rehearsal.home)
        own.counts.clear()
        yield own
    finally:
        process.close()
