"""Marking by people: the page is written blind and sealed by a key; marks are read, unsealed and weighed."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from tunewright import console
from tunewright.annotation.marks import is_download, latest, page_marks, read_text, table_marks
from tunewright.annotation.page import PAGE, marking_page
from tunewright.annotation.plan import MarkingKey, Pair, make_key, pairs, shown_digest
from tunewright.annotation.summary import Agreement, Markings, metric_differences, summarize
from tunewright.errors import RunFolderError, UserError, command, shell
from tunewright.evaluation.judge import Judgment, judge_differences
from tunewright.recipe import Recipe, load_recipe
from tunewright.records import Answer, Mark, Question, Score
from tunewright.run_folder import RunFile, RunFolder
from tunewright.statistics.intervals import number
from tunewright.storage import file_digest, write_atomic

KEY = "marking.key.json"


def _arms(answers: Sequence[Answer], arms: tuple[str, str]) -> None:
    known = list(dict.fromkeys(answer.arm for answer in answers))
    if arms[0] == arms[1] or not set(arms) <= set(known):
        raise UserError(
            f"cannot compare {arms[0]} with {arms[1]}",
            f"the run has answers of: {', '.join(known)}",
            "name two of them: --arms A B",
        )


def _shown(run: RunFolder, arms: tuple[str, str]) -> tuple[list[Question], list[Answer], list[Pair], str]:
    """Return the exam, all answers, the pairs to mark, and the digest of what is shown."""
    questions, answers = run.read_records(RunFile.EXAM, Question), run.read_records(RunFile.ANSWERS, Answer)
    _arms(answers, arms)
    found = pairs(questions, answers, arms)
    return questions, answers, found, shown_digest(found)


def _key(run: RunFolder) -> MarkingKey | None:
    path = run.file(KEY)
    if not path.is_file():
        return None
    try:
        return MarkingKey.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise RunFolderError(
            f"{path} is damaged", error.errors()[0]["msg"], "restore it from a copy: its marks need it"
        ) from error


def _fitting_key(run: RunFolder, arms: tuple[str, str], shown: str, must_exist: bool) -> MarkingKey | None:
    """Return the key of the page that stands; None when there is none.

    Raises:
        UserError: it belongs to other answers or arms, or must exist and does not.
    """
    key = _key(run)
    if key is None and must_exist:
        raise UserError(
            f"{run.file(KEY)} is missing",
            "without it nobody can say which side was which",
            f"restore it from a copy, or begin anew: {command('mark', run.path)}",
        )
    if key is not None and (key.answers != shown or set(key.arms) != set(arms)):
        begin, again = shell("rm", run.file(KEY)), shell("--arms", *key.arms)
        raise UserError(
            f"{run.file(PAGE)} was made for {key.arms[0]} and {key.arms[1]}, and not for what stands here now",
            "other arms were asked for" if set(key.arms) != set(arms) else "the answers or the exam changed since",
            f"to give its marks up and begin anew: {begin}; for its marks: {again}",
        )
    return key


def write_page(run: RunFolder, arms: tuple[str, str]) -> None:
    """Write marking.html and its key; a second call for the same answers keeps key, order and sides.

    Raises:
        UserError: an arm has no answers, all answers are the same, or a page for something else stands.
    """
    _, _, found, shown = _shown(run, arms)
    recipe_file = run.file(RunFile.RECIPE)
    recipe = load_recipe(recipe_file) if recipe_file.is_file() else Recipe()
    with run.lock():
        key = _fitting_key(run, arms, shown, must_exist=False)
        key = key or make_key(found, arms, shown, recipe.seed, secrets.token_hex(16))
        if not key.items:
            raise UserError("there is nothing to mark", "both arms gave the same answer to every question", "")
        write_atomic(run.file(KEY), (key.model_dump_json(indent=1) + "\n").encode(), private=True)
        run.write(PAGE, marking_page(key, found))
    repeats = sum(item.repeat for item in key.items)
    console.line(
        f"{len(key.items)} to mark: {len(key.items) - repeats} questions and {repeats} hidden repeats"
        + (f"; {len(key.same)} questions with the same answer from both are left out" if key.same else "")
    )
    console.line(f"open or hand on: {run.file(PAGE).absolute()}")
    console.line(f"keep to yourself until the marks are in: {KEY}")
    console.line(f"then: {command('mark', run.path, '--read', 'marks-NAME.json')}")


def read_marks(run: RunFolder, files: Sequence[Path], arms: tuple[str, str]) -> Markings:
    """Read, unseal and weigh the marks; write marks.jsonl and marking.json.

    Raises:
        UserError: a file holds no marks of this run, or its key is missing.
    """
    if len({path.name for path in files}) < len(files):
        raise UserError(
            "two files have the same name", "a table's marker is named after its file", "rename one of them"
        )
    questions, answers, found, shown = _shown(run, arms)
    documents = {question.id: question.document for question in questions}
    marks: list[Mark] = []
    others = 0
    for path in files:
        text = read_text(path)
        if is_download(text):
            key = _fitting_key(run, arms, shown, must_exist=True)
            assert key is not None
            marks += page_marks(path, text, key, documents)
        else:
            told, num = table_marks(path, text, questions, answers, arms)
            marks, others = marks + told, others + num
    marks = latest(marks)
    if not marks:
        raise UserError("there is no mark in the files", f"read: {', '.join(map(str, files))}", "mark at least one")
    differences = metric_differences(run.read_records(RunFile.SCORES, Score), answers, arms)
    if run.file(RunFile.JUDGE).is_file() and run.read_json(RunFile.JUDGE).get("answers") == file_digest(
        run.file(RunFile.ANSWERS)
    ):
        differences["judge"] = judge_differences(run.read_records(RunFile.JUDGMENTS, Judgment), arms)
    summary = summarize(marks, arms, found, differences, others)
    summary = summary.model_copy(update={"answers": shown})
    with run.lock():
        run.write_records(RunFile.MARKS, marks)
        run.write(RunFile.MARKING_PLAN, summary.model_dump_json(indent=2) + "\n")
    _tell(run, summary)
    return summary


def _percent(agreed: Agreement) -> str:
    return "–" if agreed.share is None else f"{agreed.share:.0%}"


def _tell(run: RunFolder, summary: Markings) -> None:
    wins, found = summary.win_share, summary.e_value
    rows = [[name, str(num)] for name, num in summary.wins.items()]
    console.table(f"questions by winner ({summary.num_marks} marks, {len(summary.markers)} markers)", ("", "won"), rows)
    if wins.of:
        console.line(
            f"{summary.arms[1]} won {wins.num} of {wins.of} decided, 95 % interval {wins.low:.0%} to {wins.high:.0%}"
        )
    stop = "enough: marking may stop" if found.stop else f"below {found.stop_at:g}: go on marking"
    console.line(f"e-value {found.value:.3g} from {found.wins + found.losses} documents; {stop}")
    again = summary.self_agreement
    if again.of:
        console.line(f"hidden repeats marked the same: {again.num} of {again.of}")
    if summary.alpha is not None:
        console.line(f"agreement between markers: Krippendorff's alpha {number(summary.alpha)}")
    rows = [[m.name, _percent(m), f"{m.agreed}", f"{m.equal}"] for m in (summary.longest, *summary.metrics)]
    console.table("agreement with the marks", ("measure", "share", "agreed", "equal"), rows)
    if not summary.blind:
        console.warning("marks of a spreadsheet are not blind: whoever made them saw the arms' names")
    if summary.others:
        console.line(f"{summary.others} rows name a winner other than the two arms and are left out")
    console.line(f"all figures: {run.file('marking.json').absolute()}")
