"""A crash that loses everything which was not flushed loses nothing that was acknowledged."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.bench_of_training import NEXT_TOKEN, run_loop, tiny_adapted, tiny_examples
from support.lost_writes import LazyDisk
from tunewright.recipe import RUN_MARKER
from tunewright.records import Rejection
from tunewright.run_folder import Journal, RunFolder
from tunewright.storage import atomic_folder, make_folder, recover_folder, write_atomic
from tunewright.training import checkpoint
from tunewright.training.loop import TrainingTask

ORDERS = [{"names_kept": False}, {"names_kept": True}]


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LazyDisk:
    root = tmp_path / "disk"
    root.mkdir()
    return LazyDisk(root, monkeypatch)


@pytest.fixture
def crashes(disk: LazyDisk, tmp_path: Path) -> Callable[[], Iterator[Path]]:
    numbers = itertools.count()
    return lambda: (disk.crash(tmp_path / f"crash{next(numbers)}", **order) for order in ORDERS)


def test_every_acknowledged_line_of_a_journal_is_there(disk: LazyDisk, crashes: Callable) -> None:
    journal = Journal(disk.root / "run" / "deeper" / "teacher.jsonl")
    for number in range(4):
        journal.append({"n": number, "text": "x" * 100})
        for left in crashes():
            again = Journal(left / "run" / "deeper" / "teacher.jsonl")
            assert [entry["n"] for entry in again.entries] == list(range(number + 1))


@pytest.mark.parametrize("torn_bytes", [1, 40, 140])
def test_a_line_that_was_written_in_part_is_dropped_and_the_others_are_there(
    disk: LazyDisk, tmp_path: Path, torn_bytes: int
) -> None:
    journal = Journal(disk.root / "teacher.jsonl")
    journal.append({"n": 0})
    states = []
    disk.at_flush = lambda: states.append(
        disk.crash(tmp_path / f"torn{len(states)}", names_kept=True, torn_bytes=torn_bytes)
    )
    journal.append({"n": 1, "text": "x" * 100})
    before, after = (Journal(state / "teacher.jsonl") for state in states)
    assert ([entry["n"] for entry in before.entries], before.num_torn) == ([0], 1)
    assert [entry["n"] for entry in after.entries] == [0, 1]


def test_a_file_is_the_old_or_the_new_at_every_flush_and_the_new_at_the_end(disk: LazyDisk, crashes: Callable) -> None:
    file = disk.root / "plan.json"
    write_atomic(file, b"old")
    seen: list[bytes] = []
    disk.at_flush = lambda: seen.extend((left / "plan.json").read_bytes() for left in crashes())
    write_atomic(file, b"new!")
    assert set(seen) == {b"old", b"new!"}
    assert [(left / "plan.json").read_bytes() for left in crashes()] == [b"new!"] * 2


def test_a_folder_is_the_old_or_the_new_at_every_flush_and_the_new_at_the_end(
    disk: LazyDisk, crashes: Callable
) -> None:
    def write(text: str) -> None:
        with atomic_folder(disk.root / "adapter", "a") as work:
            (work / "a").write_text(text)
            (work / "deeper").mkdir()
            (work / "deeper" / "b").write_text(text)

    def read(left: Path) -> tuple[str, str]:
        recover_folder(left / "adapter", "a")
        return (left / "adapter" / "a").read_text(), (left / "adapter" / "deeper" / "b").read_text()

    write("old")
    seen: list[tuple[str, str]] = []
    disk.at_flush = lambda: seen.extend(read(left) for left in crashes())
    write("new")
    assert set(seen) == {("old", "old"), ("new", "new")}
    disk.at_flush = lambda: None
    assert [read(left) for left in crashes()] == [("new", "new")] * 2


def test_a_run_opens_after_every_flush_and_names_no_change(disk: LazyDisk, crashes: Callable) -> None:
    def check() -> None:
        for left in crashes():
            if (left / "runs" / "a" / RUN_MARKER).exists():
                assert RunFolder.open(left / "runs" / "a").changes() == []

    run = RunFolder.create(disk.root / "runs" / "a")
    disk.at_flush = check
    for number in range(2):
        with run.lock():
            run.write_json("plan.json", {"n": number})
            run.reject("curate", [Rejection(stage="curate", id=str(number), reason="x")])
            run.log("done", n=number)
    for left in crashes():
        again = RunFolder.open(left / "runs" / "a")
        assert again.read_json("plan.json") == {"n": 1}
        assert [entry["n"] for entry in again.journal().entries] == [0, 1]
        assert again.changes() == []


def test_every_checkpoint_that_was_saved_is_there(tiny_model: Path, disk: LazyDisk, crashes: Callable) -> None:
    task = TrainingTask(tiny_examples(tiny_model), NEXT_TOKEN)
    make_folder(disk.root / "run")
    run_loop(tiny_adapted(tiny_model), task, disk.root / "run", {"a": 1})
    saved = checkpoint.latest(disk.root / "run" / "checkpoints")
    assert saved is not None
    for left in crashes():
        again = checkpoint.latest(left / "run" / "checkpoints")
        assert again is not None
        assert (again.step, again.settings, again.numbers) == (saved.step, saved.settings, saved.numbers)
