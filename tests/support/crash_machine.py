"""Commands in any order, with crashes, full disks, Ctrl-C, edited documents and changed settings between and in them.

A model of what a user does to a run up to its training set, for Hypothesis: after any sequence, the run opens, names no
changed file, has paid for no call twice, and a last run without faults gives the files of an undisturbed run.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from support.faults import Crash, disk_of, read_only, watched
from support.whole_path import write_recipe
from tunewright.cli import main
from tunewright.run_folder import RunFolder

STAGES = ("ingest", "split", "exam", "synth", "curate")
RESULTS = ("documents.jsonl", "chunks.jsonl", "split.jsonl", "exam.jsonl", "samples.jsonl", "train.jsonl")
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
    """One user's folder; ``machine`` sets the student, the address of the teacher, and the files of undisturbed runs."""

    student: Path
    url: str
    whole: dict[tuple[object, ...], dict[str, bytes]]
    num_sequences = num_commands = num_faults = 0

    @initialize()
    def start(self) -> None:
        type(self).num_sequences += 1
        self.home = Path(tempfile.mkdtemp(prefix="tunewright-machine-"))
        self.run_path = self.home / "run"
        self.editions = [0, 0, 0, 0]
        self.samples = 2
        (self.home / "docs").mkdir()
        for number in range(len(self.editions)):
            self._write(number)

    def _write(self, number: int) -> None:
        (self.home / "docs" / f"{number}.md").write_text(article(number, self.editions[number]), encoding="utf-8")

    def _recipe(self, folder: Path) -> Path:
        return write_recipe(
            folder,
            self.student,
            self.url,
            self.home / "docs",
            exam={"retention_items": 0, "kinds": ["short"]},
            synthesis={"samples_per_document": self.samples},
        )

    def _command(self, *words: object) -> int:
        """Run a command; return its exit code. What it prints must name no defect."""
        type(self).num_commands += 1
        shown = io.StringIO()
        try:
            with contextlib.redirect_stderr(shown), contextlib.redirect_stdout(io.StringIO()):
                main([str(word) for word in words])
        except SystemExit as end:
            assert end.code in (0, 1, 3, 130), (words, end.code, shown.getvalue())
            assert "defect" not in shown.getvalue(), shown.getvalue()
            return int(end.code or 0)
        return 0

    def _run(self, until: str, folder: Path | None = None) -> int:
        path = folder or self.run_path
        return self._command("run", self._recipe(self.home), "--dir", path, "--until", until)

    def _fault(self, fault: Any, until: str) -> None:
        type(self).num_faults += 1
        with contextlib.suppress(Crash), fault:
            self._run(until)

    @rule(until=st.sampled_from(STAGES))
    def run_until(self, until: str) -> None:
        assert self._run(until) == 0

    @rule(until=st.sampled_from(STAGES), number=st.integers(1, 150))
    def killed(self, until: str, number: int) -> None:
        self._fault(self._at(number, Crash("killed"), for_good=True), until)

    @rule(until=st.sampled_from(STAGES), number=st.integers(1, 150))
    def interrupted(self, until: str, number: int) -> None:
        self._fault(self._at(number, KeyboardInterrupt(), for_good=False), until)

    @rule(until=st.sampled_from(STAGES), number=st.integers(1, 150))
    def input_output_error(self, until: str, number: int) -> None:
        self._fault(self._at(number, OSError(errno.EIO, os.strerror(errno.EIO)), for_good=False), until)

    @rule(until=st.sampled_from(STAGES), free_bytes=st.sampled_from([0, 500, 4096, 20_000]))
    def disk_full(self, until: str, free_bytes: int) -> None:
        self._fault(disk_of(self.run_path, free_bytes), until)

    @rule(until=st.sampled_from(STAGES))
    def mounted_read_only(self, until: str) -> None:
        self._fault(read_only(self.run_path), until)

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

    @contextlib.contextmanager
    def _at(self, number: int, error: BaseException, for_good: bool) -> Iterator[None]:
        """Raise an error at the n-th change of the run folder, and at every later one ``for_good``."""
        count = 0

        def before(operation: str, path: object) -> None:
            nonlocal count
            count += 1
            if count == number or (for_good and count > number):
                raise error

        with watched(self.run_path, before):
            yield

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
                assert self._run("curate", self.home / "whole") == 0
                self.whole[state] = results(self.home / "whole")
            assert results(self.run_path) == self.whole[state]
        finally:
            shutil.rmtree(self.home)


def results(folder: Path) -> dict[str, bytes]:
    """Return the files that a run has computed."""
    return {name: (folder / name).read_bytes() for name in RESULTS}


def machine(student: Path, teacher: Any) -> type[Folder]:
    """Return the machine with a student and a teacher of its own."""
    content = {"student": student, "url": teacher.url, "whole": {}}
    return type("Machine", (Folder,), content)
