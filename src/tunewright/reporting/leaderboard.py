"""Several finished runs before the same exam, such as one for each base: scores, verdicts, costs, and who is ahead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from tunewright import console
from tunewright.annotation.plan import pairs, shown_digest
from tunewright.errors import RunFolderError, UserError, command
from tunewright.evaluation.extra_arms import difference_rows, free_name
from tunewright.evaluation.measurement import holm_adjusted, paired_difference
from tunewright.evaluation.results import ArmResult, Difference
from tunewright.evaluation.seal import seal_faults
from tunewright.evaluation.stage import read_seal_state
from tunewright.evaluation.verdict import Verdict
from tunewright.recipe import Recipe, load_recipe
from tunewright.records import Answer, Mark, Question, Score, digest
from tunewright.run_folder import RunFile, RunFolder
from tunewright.settings import Arm
from tunewright.statistics.agreement import Game, Strength, bradley_terry
from tunewright.statistics.intervals import duration, number, signed, spread
from tunewright.storage import file_digest

_NEEDED = ("recipe.toml", RunFile.EXAM, RunFile.SCORES, RunFile.VERDICT)


@dataclass(frozen=True)
class Entry:
    """A finished run under a name that no other has."""

    name: str
    run: RunFolder
    recipe: Recipe
    verdict: Verdict


def entries(folders: Sequence[Path]) -> list[Entry]:
    """Return the runs, each once and with an intact seal, all of them before the same exam.

    Raises:
        UserError: there are fewer than two, or one is unfinished, unsealed, or of another exam or scoring.
    """
    folders = list({folder.resolve(): folder for folder in folders}.values())
    if len(folders) < 2:
        raise UserError("a comparison needs two runs at least", "", "tunewright compare DIR DIR...")
    found: list[Entry] = []
    for folder in folders:
        run = RunFolder.open(folder)
        if missing := [name for name in _NEEDED if not run.file(name).is_file()]:
            hint = f"finish it: {command('run', 'RECIPE', '--dir', folder)}"
            raise RunFolderError(f"{folder} has no {missing[0]} yet", "only finished runs can be compared", hint)
        recipe = load_recipe(run.file(RunFile.RECIPE))
        if faults := seal_faults(read_seal_state(run), recipe):
            hint = f"make it anew: {run.again()}"
            raise RunFolderError(f"the seal of {folder} is broken", "; ".join(faults), hint)
        name = free_name(folder.resolve().name, {entry.name.lower() for entry in found})
        found.append(Entry(name, run, recipe, Verdict.model_validate(run.read_json(RunFile.VERDICT))))
    _require_same_exam(found)
    return found


def _require_same_exam(found: Sequence[Entry]) -> None:
    first = found[0]
    for entry in found[1:]:
        exams = [file_digest(one.run.file(RunFile.EXAM)) for one in (first, entry)]
        if exams[0] != exams[1]:
            raise UserError(
                f"{first.name} and {entry.name} sat different exams, whose scores say nothing about each other",
                f"exam.jsonl is {exams[0][:12]} there and {exams[1][:12]} here",
                f"give all runs one exam: {command('exam', first.run.path, '--export', 'exam.jsonl')}, "
                'then exam.file = "exam.jsonl" in all recipes',
            )
        for key, told in (("metrics_version", "metrics"), ("primary", "score")):
            if first.verdict.rule.get(key) != entry.verdict.rule.get(key):
                raise UserError(
                    f"{first.name} and {entry.name} were scored differently",
                    f"the {told} of their rules differ: {first.verdict.rule.get(key)}, {entry.verdict.rule.get(key)}",
                    f"evaluate both anew with this version: {command('evaluate', 'RECIPE', '--dir', entry.run.path)}",
                )


def differences(found: Sequence[Entry]) -> list[Difference]:
    """Return the paired differences between all tuned models, with Holm's correction over all of them."""
    sheets = {}
    for entry in found:
        own = [score for score in entry.run.read_records(RunFile.SCORES, Score) if score.arm == Arm.TUNED]
        sheets[entry.name] = {score.question: score for score in own}
    looked = []
    for first, second in combinations(sheets, 2):
        if sheets[first] and sheets[second]:
            one = paired_difference(sheets[first], sheets[second], lambda score: score.primary, "primary", 0.95)
            looked += [one.model_copy(update={"first": first, "second": second})] if one else []
    return holm_adjusted(looked)


def games(found: Sequence[Entry]) -> list[Game]:
    """Return the marks of all runs as games; the same base model is one player, whichever run it stands in.

    The same is one that gave the same answers: what its recipes say of it can be right, and leave something out.
    """
    played, bases = [], dict[str, str]()
    for entry in found:
        if not (entry.run.file(RunFile.MARKS).is_file() and entry.run.file(RunFile.MARKING_PLAN).is_file()):
            continue
        answers = entry.run.read_records(RunFile.ANSWERS, Answer)
        told = sorted((answer.question, answer.text) for answer in answers if answer.arm == Arm.BASE)
        names = {Arm.TUNED: entry.name, Arm.BASE: bases.setdefault(digest(told), f"{Arm.BASE} of {entry.name}")}
        marking = entry.run.read_json(RunFile.MARKING_PLAN)
        shown = pairs(entry.run.read_records(RunFile.EXAM, Question), answers, tuple(marking["arms"]))
        if marking.get("answers") != shown_digest(shown):
            console.warning(f"the marks of {entry.name} are of earlier answers and are left out")
            continue
        first, second = marking["arms"]
        for mark in entry.run.read_records(RunFile.MARKS, Mark):
            if mark.repeat or mark.choice == "cannot tell":
                continue
            share = 0.5 if mark.winner is None else float(mark.winner == first)
            sides = [names.get(arm, f"{entry.name} {arm}") for arm in (first, second)]
            played.append(Game(first=sides[0], second=sides[1], share=share, cluster=mark.document))
    return played


def score_table(found: Sequence[Entry]) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows: each run's scores, gain and verdict."""
    rows = []
    for entry in found:
        results = entry.verdict.results
        gain = results.difference(Arm.TUNED, Arm.BASE)
        rows.append(
            [
                entry.name,
                Path(entry.recipe.model.base).name,
                *(_scored(results.arm(arm)) for arm in (Arm.BASE, Arm.TUNED)),
                f"{signed(gain.interval.mean)} ({spread(gain.interval)})" if gain else "–",
                entry.verdict.name,
            ]
        )
    return ["run", "base model", "base (95%)", "tuned (95%)", "gain (95%)", "verdict"], rows


def cost_table(found: Sequence[Entry]) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows: what an answer of each tuned model costs, and what its training took."""
    rows = []
    for entry in found:
        tuned = entry.verdict.results.arm(Arm.TUNED)
        plans = entry.run.read_json(RunFile.PLAN).values() if entry.run.file(RunFile.PLAN).is_file() else []
        peak = max((float(plan.get("measured_bytes", 0)) for plan in plans), default=0.0)
        took = sum(float(plan.get("measured_s", 0)) for plan in plans)
        rows.append(
            [
                entry.name,
                number(tuned.duration_s) if tuned else "–",
                f"{tuned.num_prompt_tokens:.0f} + {tuned.num_tokens:.0f}" if tuned else "–",
                duration(took) if took else "–",
                f"{peak / 2**30:.1f} GiB" if peak else "–",
            ]
        )
    return ["run", "seconds per answer", "tokens (prompt + answer)", "training took", "its peak memory"], rows


def _scored(arm: ArmResult | None) -> str:
    return f"{number(arm.primary.mean)} ({spread(arm.primary)})" if arm else "–"


def show_standings(folders: Sequence[Path]) -> None:
    """Print the tables of several runs: scores, costs, paired differences, and strengths by people's marks.

    Raises:
        UserError: see ``entries``.
    """
    found = entries(folders)
    results = found[0].verdict.results
    title = f"{len(found)} runs, one exam: {results.num_questions} questions on {results.num_documents} documents"
    console.table(title, *score_table(found))
    console.table("what it costs", *cost_table(found))
    columns = ["tuned models", "difference", "95% interval", "p, adjusted"]
    title = "question by question; exploratory, with Holm's correction"
    console.table(title, columns, difference_rows(differences(found)))
    played = games(found)
    if played:
        _show_strengths(bradley_terry(played), len(played))


def _show_strengths(found: list[Strength] | str, num_marks: int) -> None:
    if isinstance(found, str):
        console.line(f"{num_marks} marks by people give no common scale: {found}")
        return
    rows: list[list[Any]] = [
        [one.name, signed(one.value), f"{number(one.low)} to {number(one.high)}", str(one.num)] for one in found
    ]
    console.table(
        "by people's marks: Bradley-Terry log strengths, mean 0", ["who", "strength", "95% interval", "marks"], rows
    )
