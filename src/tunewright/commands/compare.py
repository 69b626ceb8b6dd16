"""The body of the command compare: finished runs on the same exam, such as one for each base model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tunewright import console
from tunewright.annotation.plan import answer_pairs_digest, pairs
from tunewright.commands.json_documents import CompareDocument, ComparedRun
from tunewright.errors import RunFolderError, UserError, command
from tunewright.evaluation.extra_arms import difference_rows, free_name
from tunewright.evaluation.seal import seal_faults
from tunewright.evaluation.stage import read_seal_state
from tunewright.evaluation.verdict import Verdict
from tunewright.recipe import load_recipe
from tunewright.records import Answer, Mark, Question, Score
from tunewright.reporting.leaderboard import (
    LeaderboardEntry,
    MarkedRun,
    cost_table,
    differences,
    games,
    score_table,
    strength_table,
    training_cost,
)
from tunewright.run_folder import RunFile, RunFolder
from tunewright.settings import Arm
from tunewright.statistics.agreement import bradley_terry
from tunewright.storage import file_digest

_NEEDED = (RunFile.RECIPE, RunFile.EXAM, RunFile.SCORES, RunFile.VERDICT)


def compare_runs(folders: Sequence[Path]) -> None:
    """Print the tables of several runs: scores, costs, paired differences, and strengths by people's marks.

    Raises:
        UserError: see ``read_entries``.
    """
    entries = read_entries(folders)
    results = entries[0].verdict.results
    title = f"{len(entries)} runs, one exam: {results.num_questions} questions on {results.num_documents} documents"
    console.table(title, *score_table(entries))
    console.table("cost", *cost_table(entries))
    columns = ["tuned models", "difference", "95% interval", "p, adjusted"]
    title = "paired by question; exploratory, with Holm's correction"
    console.table(title, columns, difference_rows(differences(entries)))
    if played := games(entries):
        strengths = bradley_terry(played)
        if isinstance(strengths, str):
            console.line(f"{len(played)} marks by people give no common scale: {strengths}")
        else:
            title = "by people's marks: Bradley-Terry log strengths, mean 0"
            console.table(title, *strength_table(strengths))


def compare_document(folders: Sequence[Path]) -> CompareDocument:
    """Return the comparison of several runs for programs.

    Raises:
        UserError: see ``read_entries``.
    """
    entries = read_entries(folders)
    results = entries[0].verdict.results
    played = games(entries)
    strengths = bradley_terry(played) if played else []
    return CompareDocument(
        num_questions=results.num_questions,
        num_documents=results.num_documents,
        runs=tuple(map(_compared_run, entries)),
        differences=tuple(differences(entries)),
        strengths=() if isinstance(strengths, str) else tuple(strengths),
        no_strengths=strengths if isinstance(strengths, str) else "",
    )


def _compared_run(entry: LeaderboardEntry) -> ComparedRun:
    results = entry.verdict.results
    tuned, gain = results.arm(Arm.TUNED), results.difference(Arm.TUNED, Arm.BASE)
    seconds, num_bytes = training_cost(entry)
    return ComparedRun(
        run=entry.name,
        base_model=entry.base,
        verdict=entry.verdict.name,
        scores={arm.arm: arm.primary for arm in results.arms},
        gain=gain.interval if gain else None,
        seconds_per_answer=tuned.duration_s if tuned else None,
        training_seconds=seconds or None,
        training_bytes=num_bytes or None,
    )


def read_entries(folders: Sequence[Path]) -> list[LeaderboardEntry]:
    """Return the runs, each once; all have an intact seal and the same exam.

    Raises:
        UserError: there are fewer than two, or one is unfinished, unsealed, or of another exam or scoring.
    """
    folders = list({folder.resolve(): folder for folder in folders}.values())
    if len(folders) < 2:
        hint = "name several run folders: tunewright compare DIR DIR..."
        raise UserError("a comparison needs at least two runs", "", hint)
    entries: list[LeaderboardEntry] = []
    runs: list[RunFolder] = []
    for folder in folders:
        run = RunFolder.open(folder)
        if missing := [name for name in _NEEDED if not run.file(name).is_file()]:
            hint = f"finish it: {command('run', 'RECIPE', '--dir', folder)}"
            raise RunFolderError(f"{folder} has no {missing[0]} yet", "only finished runs can be compared", hint)
        name = free_name(folder.resolve().name, {entry.name.lower() for entry in entries})
        runs.append(run)
        entries.append(_read_entry(run, name))
    for run, entry in zip(runs[1:], entries[1:], strict=True):
        _require_same_exam(runs[0], run, entries[0], entry)
        _require_same_scoring(run, entries[0], entry)
    return entries


def _read_entry(run: RunFolder, name: str) -> LeaderboardEntry:
    recipe = load_recipe(run.file(RunFile.RECIPE))
    if faults := seal_faults(read_seal_state(run), recipe):
        hint = f"build it again: {run.again()}"
        raise RunFolderError(f"the seal of {run.path} is broken", "; ".join(faults), hint)
    return LeaderboardEntry(
        name=name,
        base=recipe.model.base,
        verdict=run.read_record(RunFile.VERDICT, Verdict),
        scores=run.read_records(RunFile.SCORES, Score),
        plans=run.read_json(RunFile.PLAN) if run.file(RunFile.PLAN).is_file() else {},
        marked=_read_marked(run, name),
    )


def _read_marked(run: RunFolder, name: str) -> MarkedRun | None:
    """Return the marks of a run; None without any, and with a warning where they are of earlier answers."""
    if not (run.file(RunFile.MARKS).is_file() and run.file(RunFile.MARKING_PLAN).is_file()):
        return None
    answers = run.read_records(RunFile.ANSWERS, Answer)
    marking = run.read_json(RunFile.MARKING_PLAN)
    first, second = marking["arms"]
    answer_pairs = pairs(run.read_records(RunFile.EXAM, Question), answers, (first, second))
    if marking.get("answers") != answer_pairs_digest(answer_pairs):
        console.warning(f"the marks of {name} are of earlier answers and are left out")
        return None
    marks = [mark for mark in run.read_records(RunFile.MARKS, Mark) if mark.answers in ("", marking["answers"])]
    return MarkedRun((first, second), marks, answers)


def _require_same_exam(first_run: RunFolder, run: RunFolder, first: LeaderboardEntry, entry: LeaderboardEntry) -> None:
    exams = [file_digest(own.file(RunFile.EXAM)) for own in (first_run, run)]
    if exams[0] != exams[1]:
        raise UserError(
            f"{first.name} and {entry.name} were evaluated on different exams, so their scores cannot be compared",
            f"{RunFile.EXAM} of {first.name} has the digest {exams[0][:12]}, of {entry.name} {exams[1][:12]}",
            f"use one exam for all runs: {command('exam', first_run.path, '--export', 'my-exam.jsonl')}, "
            'then exam.file = "my-exam.jsonl" in all recipes',
        )


def _require_same_scoring(run: RunFolder, first: LeaderboardEntry, entry: LeaderboardEntry) -> None:
    for key, label in (("metrics_version", "metrics"), ("primary", "score")):
        values = [own.verdict.rule.get(key) for own in (first, entry)]
        if values[0] != values[1]:
            raise UserError(
                f"{first.name} and {entry.name} were scored differently",
                f"the {label} of their rules differ: {values[0]}, {values[1]}",
                f"evaluate both again with this version: {command('evaluate', 'RECIPE', '--dir', run.path)}",
            )
