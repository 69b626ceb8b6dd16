import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright.errors import UserError
from tunewright.evaluation.comparison_csv import comparison_csv, read_comparison
from tunewright.evaluation.stage import write_comparison
from tunewright.records import Answer, Question
from tunewright.run_folder import RunFolder
from tunewright.text.tables import escape, unescape

# Texts likely to meet the escape: triggers, apostrophes, digits, quotes, separators and line ends.
TEXT = st.text(alphabet="=+-@\t\r\n' \"',;12.eE%＝＋aß", max_size=12) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=12
)


def question(text: str, gold: str, number: int = 0) -> Question:
    return Question(id=f"q{number}", ring="learned", document="d", question=text, gold=gold, answerable=True)


def answer(arm: str, text: str, number: int = 0) -> Answer:
    return Answer(
        question=f"q{number}",
        arm=arm,
        text=text,
        finish="stop",
        num_prompt_tokens=1,
        num_tokens=1,
        duration_s=0,
        gold_nll=1,
    )


@pytest.mark.parametrize(
    "text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", " =1", "'=1", "＝1+1", "-", "+"]
)
def test_formulas_are_escaped(text: str) -> None:
    assert escape(text) == f"'{text}"


@pytest.mark.parametrize("text", ["", "12", "-3.5", "+12", "-0.5%", "1e-3", "-.5", "a=b", "'quoted'", "it's", "5 - 3"])
def test_plain_texts_and_numbers_stay(text: str) -> None:
    assert escape(text) == text


@given(TEXT)
def test_unescape_is_the_inverse(text: str) -> None:
    assert unescape(escape(text)) == text


# A row without any text is what spreadsheets leave below a table.
@given(st.lists(st.tuples(TEXT, TEXT, TEXT, TEXT).filter(lambda row: "".join(row).strip() != ""), max_size=5))
def test_reads_back_unchanged(rows: list[tuple[str, str, str, str]]) -> None:
    questions = [question(q, gold, n) for n, (q, gold, _, _) in enumerate(rows)]
    answers = [answer(arm, row[k], n) for n, row in enumerate(rows) for k, arm in ((2, "base"), (3, "tuned"))]
    table = comparison_csv(questions, answers, ["base", "tuned"])
    # To disk and back as the run folder writes it: bytes, no newline translation.
    back = [row for _, row in read_comparison(table.encode().decode())]
    assert [(r["question"], r["gold"], r["base"], r["tuned"], r["winner"]) for r in back] == [(*r, "") for r in rows]
    for row in csv.reader(io.StringIO(table.removeprefix("\ufeff"), newline="")):
        assert all(escape(unescape(cell)) == cell for cell in row)


def test_header_mark_and_missing_answers() -> None:
    table = comparison_csv([question("Q?", "g")], [answer("base", "b")], ["base", "rag"])
    assert table == '\ufeff"question","gold","base","rag","winner"\r\n"Q?","g","b","",""\r\n'


def test_marks_survive_a_semicolon_spreadsheet() -> None:
    text = 'question;gold;base;tuned;winner\n"Q; a, b?";g;\'=1;"two\nlines";tuned\n'
    assert [row for _, row in read_comparison(text)] == [
        {"question": "Q; a, b?", "gold": "g", "base": "=1", "tuned": "two\nlines", "winner": "tuned"}
    ]


def test_another_table_is_refused_with_what_is_missing() -> None:
    with pytest.raises(UserError, match="winner"):
        read_comparison("question,gold\na,b\n")


def test_typed_marks_survive_whatever_is_evaluated_next(tmp_path, capsys):
    run, exam = RunFolder.create(tmp_path / "run"), [question("Q?", "g"), question("R?", "h")]
    table = comparison_csv(exam, [answer("base", "b")], ["base", "tuned"])
    write_comparison(run, table)
    write_comparison(run, table)
    path = run.file("comparison.csv")
    assert path.read_bytes().decode() == table
    marked = table[::-1].replace('""', '"esab"', 1)[::-1]
    path.write_bytes(marked.encode())
    write_comparison(run, table)
    assert path.read_bytes().decode() == marked  # the answers are the same: nothing to write
    other = comparison_csv(exam, [answer("base", "another")], ["base", "tuned"])
    write_comparison(run, other)
    assert path.read_bytes().decode() == other
    assert run.file("comparison.marked-1.csv").read_bytes().decode() == marked
    assert "comparison.marked-1.csv" in capsys.readouterr().err
    path.write_bytes(b"\xff not a table")
    write_comparison(run, table)
    assert run.file("comparison.marked-2.csv").read_bytes() == b"\xff not a table"
