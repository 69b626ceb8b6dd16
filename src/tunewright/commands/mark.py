"""The body of the command mark: it writes and serves the blind marking page, then reads and summarizes the marks."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from tunewright import console, pipeline
from tunewright.annotation import page
from tunewright.annotation.decision import marks_plan
from tunewright.annotation.marks import is_download, latest_marks, page_marks, read_text, table_marks
from tunewright.annotation.plan import MarkingKey, MarkingPair, answer_pairs_digest, make_key, pairs
from tunewright.annotation.stage import read_ballot
from tunewright.annotation.summary import Agreement, MarkingSummary, metric_differences, summarize_marks
from tunewright.errors import RunFolderError, UserError, command, shell
from tunewright.evaluation.judge import Judgment, judge_differences
from tunewright.evaluation.rule import LEAST_MARKS
from tunewright.evaluation.verdict import Verdict
from tunewright.recipe import Recipe, load_recipe
from tunewright.records import Answer, Mark, Question, Score
from tunewright.run_folder import RunFile, RunFolder
from tunewright.settings import Arm
from tunewright.statistics.intervals import number
from tunewright.storage import file_digest


def _check_arms(answers: Sequence[Answer], arms: tuple[str, str]) -> None:
    answered = list(dict.fromkeys(answer.arm for answer in answers))
    if arms[0] == arms[1] or not set(arms) <= set(answered):
        raise UserError(
            f"cannot compare {arms[0]} with {arms[1]}",
            f"the run has answers of: {', '.join(answered)}",
            "name two of them: --arms A B",
        )


def _read_pairs(run: RunFolder, arms: tuple[str, str]) -> tuple[list[Question], list[Answer], list[MarkingPair], str]:
    """Return the exam, all answers, the pairs to mark, and the digest of the pairs."""
    questions, answers = run.read_records(RunFile.EXAM, Question), run.read_records(RunFile.ANSWERS, Answer)
    _check_arms(answers, arms)
    answer_pairs = pairs(questions, answers, arms)
    return questions, answers, answer_pairs, answer_pairs_digest(answer_pairs)


def _read_recipe(run: RunFolder) -> Recipe:
    path = run.file(RunFile.RECIPE)
    return load_recipe(path) if path.is_file() else Recipe()


def _files(run: RunFolder, arms: tuple[str, str]) -> tuple[Path, Path]:
    """Return the paths of key and page of two arms; the first two that are marked have the plain names."""
    key = _read_key(run.file(RunFile.MARKING_KEY))
    if key is None or set(key.arms) == set(arms):
        return run.file(RunFile.MARKING_KEY), run.file(RunFile.MARKING_PAGE)
    name = re.sub(r"[^\w.+-]+", "-", f"marking-{'-'.join(sorted(arms))}")
    return run.file(f"{name}.key.json"), run.file(f"{name}.html")


def _read_key(path: Path) -> MarkingKey | None:
    if not path.is_file():
        return None
    try:
        return MarkingKey.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise RunFolderError(
            f"{path} is damaged", error.errors()[0]["msg"], "restore it from a copy: its marks need it"
        ) from error


def _current_key(run: RunFolder, arms: tuple[str, str], digest: str, must_exist: bool) -> MarkingKey | None:
    """Return the key of the existing page; None when there is none.

    Raises:
        UserError: the key belongs to other answers, or must exist and does not.
    """
    path, page_path = _files(run, arms)
    key = _read_key(path)
    if key is None and must_exist:
        raise UserError(
            f"{path} is missing",
            "without it the sides cannot be mapped to the arms",
            f"restore it from a copy, name the arms of the page (--arms A B), or start over: {_command(run, arms)}",
        )
    if key is not None and key.answers != digest:
        raise UserError(
            f"{page_path} was made for {key.arms[0]} and {key.arms[1]}, and not for the present answers",
            "the answers or the exam changed since",
            f"to discard its marks and start over: {shell('rm', path)}",
        )
    return key


def _command(run: RunFolder, arms: tuple[str, str], *more: str) -> str:
    """Return the command that marks these arms."""
    named = () if set(arms) == {Arm.BASE, Arm.TUNED} else ("--arms", *arms)
    return command("mark", run.path, *named, *more)


def _print_plan(
    run: RunFolder, arms: tuple[str, str], questions: Sequence[Question], answers: Sequence[Answer]
) -> None:
    """Print how many marks the plan needs, where they can decide between these arms."""
    if Arm.TUNED in arms:
        rival = next(arm for arm in arms if arm != Arm.TUNED)
        console.line(marks_plan(read_ballot(run, rival, questions, answers), LEAST_MARKS))


def write_page(run: RunFolder, arms: tuple[str, str]) -> None:
    """Write marking.html and its key; a second call for the same answers keeps key, order and sides.

    Raises:
        UserError: an arm has no answers, all answers are the same, or the existing page is for other answers.
    """
    questions, answers, answer_pairs, digest = _read_pairs(run, arms)
    recipe, (key_path, page_path) = _read_recipe(run), _files(run, arms)
    with run.lock():
        key = _current_key(run, arms, digest, must_exist=False)
        key = key or make_key(answer_pairs, arms, digest, recipe.seed, secrets.token_hex(16))
        if not key.items:
            raise UserError("there is nothing to mark", "both arms gave the same answer to every question", "")
        run.write(key_path.name, key.model_dump_json(indent=1) + "\n", private=True)
        run.write(page_path.name, page.marking_page(key, answer_pairs))
    repeats = sum(item.repeat for item in key.items)
    console.line(
        f"{len(key.items)} to mark: {len(key.items) - repeats} questions and {repeats} hidden repeats"
        + (f"; {len(key.same)} questions with the same answer from both are left out" if key.same else "")
    )
    if recipe.evaluation.primary == "marks":
        _print_plan(run, arms, questions, answers)
    console.line(f"open it, or hand it to markers: {page_path.absolute()}")
    console.line(f"keep secret until the marks are in: {key_path.name}")
    console.line(f"then: {_command(run, arms, '--read', 'marks-NAME.json')}")


def serve_page(run: RunFolder, arms: tuple[str, str], port: int) -> None:
    """Serve the page of two arms until Ctrl-C.

    Raises:
        UserError: the port is taken.
    """
    page.serve_page(_files(run, arms)[1].read_bytes(), port)


def read_marks(run: RunFolder, files: Sequence[Path], arms: tuple[str, str]) -> MarkingSummary:
    """Read, unseal and summarize the marks of two arms; write marks.jsonl and marking.json.

    Where marks decide, the verdict and the report follow at once. Marks of other arms stay in marks.jsonl.

    Raises:
        UserError: a file holds no marks of this run, or its key is missing.
    """
    if len({path.name for path in files}) < len(files):
        raise UserError(
            "two files have the same name", "a table's marker is named after its file", "rename one of them"
        )
    questions, answers, answer_pairs, digest = _read_pairs(run, arms)
    documents = {question.id: question.document for question in questions}
    marks: list[Mark] = []
    num_others = 0
    for path in files:
        text = read_text(path)
        if is_download(text):
            key = _current_key(run, arms, digest, must_exist=True)
            assert key is not None
            marks += page_marks(path, text, key, documents)
        else:
            own, num = table_marks(path, text, questions, answers, arms)
            marks, num_others = marks + own, num_others + num
    marks = [mark.model_copy(update={"answers": digest}) for mark in latest_marks(marks)]
    if not marks:
        raise UserError("there is no mark in the files", f"files: {', '.join(map(str, files))}", "mark at least one")
    differences = metric_differences(run.read_records(RunFile.SCORES, Score), answers, arms)
    judged = run.read_json(RunFile.JUDGE).get("answers") if run.file(RunFile.JUDGE).is_file() else None
    if judged == file_digest(run.file(RunFile.ANSWERS)):
        differences["judge"] = judge_differences(run.read_records(RunFile.JUDGMENTS, Judgment), arms)
    summary = summarize_marks(marks, arms, answer_pairs, differences, num_others)
    summary = summary.model_copy(update={"answers": digest})
    with run.lock():
        others = [mark for mark in run.records_if_any(RunFile.MARKS, Mark) if mark.answers not in ("", digest)]
        run.write_records(RunFile.MARKS, [*others, *marks])
        run.write(RunFile.MARKING_PLAN, summary.model_dump_json(indent=2) + "\n")
    _print_summary(summary)
    console.line(f"all figures: {run.file(RunFile.MARKING_PLAN).absolute()}")
    if _read_recipe(run).evaluation.primary == "marks":
        _print_plan(run, arms, questions, answers)
        _decide_again(run)
    return summary


def _decide_again(run: RunFolder) -> None:
    """Give the verdict again with the marks, rewrite the report, and print the verdict."""
    pipeline.run(_read_recipe(run), run.path, only=("verdict", "report"))
    verdict = run.read_record(RunFile.VERDICT, Verdict)
    console.heading(f"verdict: {verdict.name}")
    for sentence in verdict.why:
        console.line(f"  {sentence}")


def _percent(agreement: Agreement) -> str:
    return "–" if agreement.share is None else f"{agreement.share:.0%}"


def _print_summary(summary: MarkingSummary) -> None:
    wins, evidence = summary.win_share, summary.e_value
    rows = [[name, str(num)] for name, num in summary.wins.items()]
    console.table(f"questions by winner ({summary.num_marks} marks, {len(summary.markers)} markers)", ("", "won"), rows)
    if wins.of:
        console.line(
            f"{summary.arms[1]} won {wins.num} of {wins.of} decided, 95 % interval {wins.low:.0%} to {wins.high:.0%}"
        )
    stop = "enough: marking may stop" if evidence.stop else f"below {evidence.stop_at:g}: continue marking"
    console.line(f"e-value {evidence.value:.3g} from {evidence.wins + evidence.losses} documents; {stop}")
    repeats = summary.self_agreement
    if repeats.of:
        console.line(f"hidden repeats marked the same: {repeats.num} of {repeats.of}")
    if summary.alpha is not None:
        console.line(f"agreement between markers: Krippendorff's alpha {number(summary.alpha)}")
    rows = [[m.name, _percent(m), f"{m.agreed}", f"{m.equal}"] for m in (summary.longest, *summary.metrics)]
    console.table("agreement with the marks", ("measure", "share", "agreed", "equal"), rows)
    if not summary.blind:
        console.warning("marks in a spreadsheet are not blind: the marker saw the names of the arms")
    if summary.others:
        console.line(f"{summary.others} rows name a winner other than the two arms and are left out")
