"""The views of an exam, and an export that reads back as the same exam."""

import csv
import json
from pathlib import Path

import pytest

from support import finished_run
from tunewright.commands.exam import export_exam, show_exam
from tunewright.errors import RunFolderError, UserError
from tunewright.records import Question, RetentionItem
from tunewright.reporting.exam import count_rows, evenly_spaced, retention_rows
from tunewright.reporting.sections import retention_line
from tunewright.run_folder import RunFolder
from tunewright.synthesis.own_exam import read_own_exam

RECIPE = finished_run.RECIPE


def read_back(run: RunFolder, path: Path) -> list[Question]:
    documents = {document.id: document for document in finished_run.documents()}
    return read_own_exam(path, RECIPE.refusal, documents, {})[0]


@pytest.mark.parametrize("name", ["exam.csv", "exam.jsonl"])
def test_an_export_reads_back_as_it_was(tmp_path: Path, name: str) -> None:
    run, _ = finished_run.write(tmp_path / "run")
    questions = run.read_records("exam.jsonl", Question)
    odd = {"question": "=HYPERLINK(1)?", "gold": 'a, "b"\n\'c', "passage": "+1 of\n- two; ;"}
    own = questions[1].model_copy(update={"document": questions[1].id, "evidence": None})
    questions = [questions[0].model_copy(update=odd), own, *questions[2:]]
    run.write_records("exam.jsonl", questions)
    export_exam(run, tmp_path / name)
    again = read_back(run, tmp_path / name)
    content = {"question", "gold", "answerable", "passage", "ring", "evidence"}
    assert [q.model_dump(include=content) for q in again] == [
        {**q.model_dump(include=content), "passage": q.passage and q.passage.strip()} for q in questions
    ]
    assert again[1].document == again[1].id  # a cluster of its own, as before
    assert [q.document for q in again[2:]] == [q.document for q in questions[2:]]
    second = tmp_path / f"second-{name}"
    run.write_records("exam.jsonl", again)
    export_exam(run, second)
    assert read_back(run, second) == again


def test_a_table_that_was_saved_with_semicolons_is_read(tmp_path: Path) -> None:
    run, _ = finished_run.write(tmp_path / "run")
    export_exam(run, tmp_path / "exam.csv")
    with (tmp_path / "exam.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file))
    with (tmp_path / "saved.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=";").writerows(rows)
    assert read_back(run, tmp_path / "saved.csv") == read_back(run, tmp_path / "exam.csv")


def test_evidence_that_is_in_no_document_is_named(tmp_path: Path) -> None:
    run, _ = finished_run.write(tmp_path / "run")
    path = tmp_path / "exam.jsonl"
    export_exam(run, path)
    first, *rest = path.read_text(encoding="utf-8").splitlines()
    path.write_text(
        "\n".join([json.dumps(json.loads(first) | {"evidence": "Nobody wrote this."}), *rest]), encoding="utf-8"
    )
    with pytest.raises(UserError, match="line 1 .*") as caught:
        read_back(run, path)
    assert "word for word" in str(caught.value.cause)


def test_an_edit_of_the_export_is_what_is_read(tmp_path: Path) -> None:
    run, _ = finished_run.write(tmp_path / "run")
    path = tmp_path / "exam.jsonl"
    export_exam(run, path)
    first, *rest = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([json.dumps(json.loads(first) | {"answer": "My own."}), *rest[:-1]]), encoding="utf-8")
    again = read_back(run, path)
    assert (again[0].gold, len(again)) == ("My own.", len(rest))


def test_no_cell_runs_in_a_spreadsheet(tmp_path: Path) -> None:
    run, _ = finished_run.write(tmp_path / "run")
    first, *rest = run.read_records("exam.jsonl", Question)
    run.write_records("exam.jsonl", [first.model_copy(update={"gold": "=1+1"}), *rest])
    export_exam(run, tmp_path / "exam.csv")
    with (tmp_path / "exam.csv").open(encoding="utf-8-sig", newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert "'=1+1" in cells
    assert not [cell for cell in cells if cell.startswith("=")]


def test_counts_and_choice() -> None:
    questions = finished_run.exam(finished_run.documents(), RECIPE.refusal)
    rows = {row[0]: row[1:] for row in count_rows(questions)}
    assert rows == {
        "learned": ["36", "100%", "0", "18"],
        "unseen": ["24", "50%", "12", "6"],
        "all": ["60", "80%", "12", "24"],
    }
    assert {question.ring for question in evenly_spaced(questions)} == {"learned", "unseen"}
    assert len({question.id for question in evenly_spaced(questions)}) == 10
    assert evenly_spaced(questions[:3]) == questions[:3]


def test_a_broken_or_missing_seal_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, _ = finished_run.write(tmp_path / "run")
    show_exam(run)
    assert "the seal holds" in capsys.readouterr().err
    text = run.file("exam.jsonl").read_text(encoding="utf-8")
    run.write("exam.jsonl", text.replace('"gold":"', '"gold":"not ', 1))
    with pytest.raises(RunFolderError, match="not the sealed one"):
        show_exam(run)
    run.write("exam.jsonl", text)
    run.file("seal.json").unlink()
    with pytest.raises(RunFolderError, match="not the sealed one") as failure:
        show_exam(run)
    assert "no seal" in failure.value.cause


def test_the_retention_suite_is_shown_and_guarded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, verdict = finished_run.write(tmp_path / "run")
    show_exam(run)
    printed = " ".join(capsys.readouterr().err.split())
    assert "what the adapter must not forget" in printed
    assert "kept.jsonl has the sealed SHA-256" in printed
    rows = {row[0]: row[1:] for row in retention_rows(run.read_records("kept.jsonl", RetentionItem))}
    assert {kind: row[0] for kind, row in rows.items()} == {"choice": "300", "format": "60", "passage": "120"}
    assert "geography 23" in rows["choice"][1]
    line = retention_line(verdict.results)
    assert line.startswith("retention suite, base → tuned: ")
    assert "of 360 general questions and formats right; general text 3." in line
    run.write("kept.jsonl", run.file("kept.jsonl").read_text(encoding="utf-8") + "\n")
    with pytest.raises(RunFolderError, match="not the sealed one"):
        show_exam(run)
