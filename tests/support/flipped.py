"""A whole tiny run, whose files get single bits flipped."""

from __future__ import annotations

import io
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from support import ABSTRACTS
from support.whole_path import asks, write_recipe
from tunewright.cli import main
from tunewright.pipeline import warn_of_changes
from tunewright.run_folder import RunFolder

COMMANDS = {"report": (), "exam": (), "export": ("--to", "adapter")}


def make_run(folder: Path, student: Path, teacher: Any, whole: bool = True) -> Path:
    """Run everything; return the run folder. Without ``whole``: no placebo, no benchmark."""
    teacher.respond = asks
    arms = ["base", "few-shot", "tuned", *(["placebo"] if whole else [])]
    recipe = write_recipe(
        folder,
        student,
        teacher.url,
        ABSTRACTS,
        synthesis={"samples_per_document": 2},
        training={"epochs": 1},
        evaluation={"arms": arms, "max_new_tokens": 8},
    )
    run = folder / "run"
    command("run", recipe, "--dir", run)
    command("mark", run, "--arms", "base", "few-shot")
    command("export", run, "--to", "adapter")
    if whole:
        command("benchmark", run, "agent-database", "--limit", "2")
        command("report", run)
    return run


def command(*words: object) -> None:
    try:
        main([str(word) for word in words])
    except SystemExit as end:
        assert not end.code, words


def files_of(run: Path) -> list[str]:
    """Return the files with content, but for the lock."""
    files = (path for path in run.rglob("*") if path.is_file() and path.name != ".lock" and path.stat().st_size)
    return sorted(path.relative_to(run).as_posix() for path in files)


def flip(path: Path, position: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


def line_of(content: bytes, position: int) -> int:
    return content[:position].count(b"\n") + 1


def shown_changes(run: Path) -> str:
    """Return what the commands print of the changed files."""
    shown = io.StringIO()
    with redirect_stderr(shown):
        warn_of_changes(RunFolder.open(run))
    return shown.getvalue()
