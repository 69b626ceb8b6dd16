"""Marks on their way back: to their arms and questions, from downloads and spreadsheets, and nothing read wrongly."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support import finished_run
from support.marked_run import ARMS, best_by_primary, downloaded, filled, key_of, page_content, prefers
from tunewright.commands.mark import read_marks, write_page
from tunewright.errors import UserError
from tunewright.evaluation.comparison_csv import comparison_csv
from tunewright.evaluation.verdict import Verdict
from tunewright.records import Answer, Mark, Question, read_jsonl
from tunewright.reporting.stage import read_opinions
from tunewright.run_folder import RunFile, RunFolder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    opened, _ = finished_run.write(tmp_path / "run")
    write_page(opened, ARMS)
    return opened


@pytest.mark.parametrize("arm", ARMS)
def test_marks_come_back_to_their_arm(run: RunFolder, tmp_path: Path, arm: str) -> None:
    summary = read_marks(run, [downloaded(run, tmp_path / "marks-Ann.json", prefers(run, arm))], ARMS)
    key = key_of(run)
    num = sum(not item.repeat for item in key.items)
    loser = ARMS[1 - ARMS.index(arm)]
    assert summary.wins == {arm: num, loser: 0, "neither": 0}
    assert summary.e_value.stop and summary.e_value.wins + summary.e_value.losses <= 24
    assert summary.self_agreement.share == 1.0 and summary.self_agreement.of == num // 10
    assert summary.blind and summary.num_marks == len(key.items)
    assert abs(summary.left_chosen.share - 0.5) < 0.1  # type: ignore[operator]
    marks = list(read_jsonl(run.file("marks.jsonl"), Mark))
    assert {mark.winner for mark in marks} == {arm} and {mark.seconds for mark in marks} == {1.5}
    assert json.loads(run.file("marking.json").read_text())["wins"][arm] == num


def test_who_always_takes_the_left_is_seen(run: RunFolder, tmp_path: Path) -> None:
    file = downloaded(run, tmp_path / "a.json", lambda item: item["sides"][0]["name"])
    summary = read_marks(run, [file], ARMS)
    assert summary.left_chosen.share == 1.0 and summary.left_chosen.low > 0.85
    assert summary.self_agreement.num == 0  # sides were swapped
    assert abs(summary.wins["base"] - summary.wins["tuned"]) <= 3 and not summary.e_value.stop


def test_several_markers_and_a_second_download(run: RunFolder, tmp_path: Path) -> None:
    tuned = prefers(run, "tuned")
    ann = downloaded(run, tmp_path / "ann.json", tuned)
    early = downloaded(run, tmp_path / "ann-early.json", tuned, num=8)
    bob = downloaded(run, tmp_path / "bob.json", lambda item: "both bad", marker="Bob", num=12)
    summary = read_marks(run, [bob, early, ann], ARMS)
    assert summary.markers == {"Ann": len(key_of(run).items), "Bob": 12}
    assert summary.alpha is not None and summary.alpha < 0
    agreeing = downloaded(run, tmp_path / "cy.json", tuned, marker="Cy", num=12)
    assert read_marks(run, [ann, agreeing], ARMS).alpha is None  # nothing but one value: chance would agree too


def test_metrics_and_length_are_weighed_against_the_marks(run: RunFolder, tmp_path: Path) -> None:
    content = page_content(run)
    longest = {i["item"]: max(i["sides"], key=lambda side: len(side["text"]))["name"] for i in content["items"]}
    summary = read_marks(run, [downloaded(run, tmp_path / "a.json", lambda item: longest[item["item"]])], ARMS)
    equal = summary.longest.equal
    assert summary.longest.opposed == 0 and summary.longest.share == 1 - equal / 2 / summary.win_share.of
    names = {metric.name for metric in summary.metrics}
    assert {"primary", "token_f1", "gold_nll"} <= names and "answerable" not in names
    by_metric = read_marks(run, [downloaded(run, tmp_path / "b.json", best_by_primary(run))], ARMS)
    primary = next(metric for metric in by_metric.metrics if metric.name == "primary")
    assert primary.share == 1.0 and primary.agreed > 10


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda file, items: file | {"page": "0"}, "made on another page"),
        (lambda file, items: file | {"format": "x"}, "format: "),
        (lambda file, items: file | {"extra": 1}, "extra: "),
        (lambda file, items: [file], "missing column"),
        (lambda file, items: file | {"marks": [file["marks"][0], file["marks"][1] | {"item": "0"}]}, "mark 2 names"),
        (lambda file, items: file | {"marks": [file["marks"][0] | {"choice": "better"}]}, "mark 1 names"),
        # An answer of this page, but of another question.
        (
            lambda file, items: file | {"marks": [file["marks"][0] | {"choice": items[1]["sides"][0]["name"]}]},
            "mark 1 names",
        ),
        (lambda file, items: file | {"marks": []}, "files: "),
    ],
)
def test_files_that_hold_no_marks_of_this_page_are_refused(
    run: RunFolder, tmp_path: Path, change: Callable[[Any, Any], Any], cause: str
) -> None:
    path = downloaded(run, tmp_path / "m.json", lambda item: "tie", num=3)
    path.write_text(json.dumps(change(json.loads(path.read_text()), page_content(run)["items"])))
    with pytest.raises(UserError) as failure:
        read_marks(run, [path], ARMS)
    assert cause in str(failure.value)
    assert not run.file("marks.jsonl").exists() and not run.file("marking.json").exists()


def test_answers_that_changed_after_the_page_are_noticed(run: RunFolder, tmp_path: Path) -> None:
    file = downloaded(run, tmp_path / "m.json", lambda item: "tie")
    answers = run.read_records("answers.jsonl", Answer)
    run.write_records("answers.jsonl", [answers[0].model_copy(update={"text": "other"}), *answers[1:]])
    with pytest.raises(UserError, match="not for the present answers"):
        read_marks(run, [file], ARMS)
    run.write(RunFile.MARKING_KEY, run.file(RunFile.MARKING_KEY).read_text()[:-40])
    with pytest.raises(UserError, match="is damaged"):
        read_marks(run, [file], ARMS)
    run.file(RunFile.MARKING_KEY).unlink()
    with pytest.raises(UserError, match="is missing"):
        read_marks(run, [file], ARMS)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_winners_typed_in_a_spreadsheet(run: RunFolder, tmp_path: Path, delimiter: str) -> None:
    winners = ["tuned", " Tuned ", "base", "tie", "both_bad", "cannot tell", "rag", ""]
    summary = read_marks(run, [filled(run, tmp_path / "eve.csv", winners, delimiter)], ARMS)
    assert summary.choices == {"tuned": 2, "base": 1, "tie": 1, "both bad": 1, "cannot tell": 1}
    assert summary.others == 1 and not summary.blind and list(summary.markers) == ["eve"]
    marks = list(read_jsonl(run.file("marks.jsonl"), Mark))
    questions = run.read_records("exam.jsonl", Question)
    assert [mark.question for mark in marks] == [q.id for q in questions[:6]]


def test_a_sorted_spreadsheet_and_questions_of_the_same_words(run: RunFolder, tmp_path: Path) -> None:
    first, second, *others = run.read_records("exam.jsonl", Question)
    run.write_records(
        "exam.jsonl", [first, second.model_copy(update={"question": first.question, "gold": first.gold}), *others]
    )
    answers = run.read_records("answers.jsonl", Answer)
    changed = [a.model_copy(update={"text": f"  {a.arm}, {a.question}\r\n"}) for a in answers]
    run.write_records("answers.jsonl", changed)
    run.write("comparison.csv", comparison_csv(run.read_records("exam.jsonl", Question), changed, ARMS))
    lines = list(csv.reader(io.StringIO(run.file("comparison.csv").read_text(encoding="utf-8").removeprefix("\ufeff"))))
    lines[1][-1], lines[2][-1] = "tuned", "base"
    with (tmp_path / "eve.csv").open("w", newline="", encoding="utf-8") as table:
        csv.writer(table).writerows([lines[0], *reversed(lines[1:])])
    read_marks(run, [tmp_path / "eve.csv"], ARMS)
    assert {(m.question, m.winner) for m in read_jsonl(run.file("marks.jsonl"), Mark)} == {
        (first.id, "tuned"),
        (second.id, "base"),
    }


def test_a_spreadsheet_with_a_strange_winner_or_row_is_refused(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="row 2: winner 'tunned' is unknown"):
        read_marks(run, [filled(run, tmp_path / "e.csv", ["tunned"])], ARMS)
    text = filled(run, tmp_path / "f.csv", ["tuned"]).read_text(encoding="utf-8").replace("What is", "Who is", 1)
    (tmp_path / "g.csv").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="holds no marks"):
        read_marks(run, [tmp_path / "g.csv"], ARMS)


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200"}
    line = [sys.executable, "-m", "tunewright", "mark", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, env=environment, timeout=120)


@pytest.mark.slow
def test_the_command_writes_and_reads(tmp_path: Path) -> None:
    run, _ = finished_run.write(tmp_path / "a run")
    written = command(run.path, "--arms", "rag", "tuned")
    assert written.returncode == 0 and str(run.file(RunFile.MARKING_PAGE)) in written.stderr
    file = downloaded(run, tmp_path / "marks Ann.json", prefers(run, "rag"))
    table = filled(run, tmp_path / "bob.csv", ["rag"] * 5)
    read = command(run.path, "--arms", "tuned", "rag", "--read", file, table)
    assert read.returncode == 0, read.stderr
    assert "marking may stop" in read.stderr and "not blind" in read.stderr
    assert json.loads(run.file("marking.json").read_text())["arms"] == ["tuned", "rag"]
    assert command(run.path, "--read").returncode == 2
    assert command(run.path, file).returncode == 2
    refused = command(run.path, "--arms", "rag", "tuned", "--read", tmp_path / "none.json")
    assert refused.returncode == 1 and "cannot read" in refused.stderr


def test_an_arm_may_have_any_name_and_others_leave_the_marks_as_they_are(run: RunFolder, tmp_path: Path) -> None:
    answers = run.read_records("answers.jsonl", Answer)
    more = [a.model_copy(update={"arm": "my_run"}) for a in answers if a.arm == "tuned"]
    read_marks(run, [filled(run, tmp_path / "eve.csv", ["tuned"] * 9)], ARMS)
    run.write_records("answers.jsonl", [*answers, *more])  # one more arm was evaluated, and nothing else changed
    results = Verdict.model_validate(run.read_json("verdict.json")).results
    assert read_opinions(run, results).marked is not None
    questions = run.read_records("exam.jsonl", Question)
    run.write("comparison.csv", comparison_csv(questions, [*answers, *more], ["base", "tuned", "my_run"]))
    summary = read_marks(run, [filled(run, tmp_path / "ann.csv", ["my_run", "MY RUN", "base"])], ("base", "my_run"))
    assert summary.choices == {"my_run": 2, "base": 1}
    other = [a.model_copy(update={"text": "changed"}) if a.arm == "my_run" else a for a in [*answers, *more]]
    run.write_records("answers.jsonl", other)
    assert read_opinions(run, results).marked is None


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-8-sig"])
@pytest.mark.parametrize("first_line", ["", "sep=;\r\n"])
def test_marks_are_read_however_the_spreadsheet_saved_them(
    run: RunFolder, tmp_path: Path, encoding: str, first_line: str
) -> None:
    questions = [q.model_copy(update={"gold": f"{q.gold} – “so”"}) for q in run.read_records("exam.jsonl", Question)]
    run.write_records("exam.jsonl", questions)
    content = comparison_csv(questions, run.read_records("answers.jsonl", Answer), ARMS).removeprefix("\ufeff")
    rows = list(csv.DictReader(io.StringIO(content)))
    lines = [
        ";".join(rows[0]),
        *(";".join(f'"{cell}"' for cell in (row | {"winner": "tuned"}).values()) for row in rows),
    ]
    path = tmp_path / "ada.csv"
    path.write_bytes((first_line + "\r\n;;;;\r\n".join(lines) + "\r\n").encode(encoding))
    assert read_marks(run, [path], ARMS).num_marks == len(questions)


def test_all_faulty_rows_of_a_table_are_listed(run: RunFolder, tmp_path: Path) -> None:
    content = comparison_csv(run.read_records("exam.jsonl", Question), run.read_records("answers.jsonl", Answer), ARMS)
    rows = list(csv.reader(io.StringIO(content.removeprefix("\ufeff"))))
    rows[1][-1] = "nobody"
    rows[3][0], rows[3][-1] = "Another question?", "tie"
    path = tmp_path / "ada.csv"
    path.write_text("\n".join(",".join(f'"{cell}"' for cell in row) for row in rows), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_marks(run, [path], ARMS)
    assert "row 2: winner 'nobody' is unknown" in caught.value.cause
    assert "row 4 has a question that is not in the exam" in caught.value.cause
