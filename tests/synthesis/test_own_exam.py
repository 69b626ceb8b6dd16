"""The user's own exam as people save it: spreadsheets' tables, several right answers, options, faulty rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunewright.errors import UserError
from tunewright.evaluation.answering import false_gold
from tunewright.metrics import score
from tunewright.records import Answer, Question
from tunewright.reporting.exam import exam_file_rows
from tunewright.synthesis.own_exam import CONTRADICTED, REPEATED, read_own_exam

REFUSAL = "The documents do not say."
TOWNS = ("Arden", "Bexley", "Corfe", "Dunster")
TABLE = [
    ["question", "answer", "document"],
    *([f"Who founded {t}?", f"Mrs Zoë {t}son – “in” 1850", "d"] for t in TOWNS),
]


def table(delimiter: str, end: str = "\r\n") -> str:
    return "".join(delimiter.join(f'"{cell}"' for cell in row) + end for row in TABLE)


def read(path: Path, content: str | bytes, **columns: str) -> list[Question]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_own_exam(path, REFUSAL, {}, {}, columns)[0]


def refused(path: Path, content: str | bytes) -> str:
    with pytest.raises(UserError) as caught:
        read(path, content)
    assert caught.value.hint
    assert str(path) in caught.value.headline
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cp1252.csv", table(";").encode("cp1252")),
        ("comma.csv", table(",").encode("cp1252")),
        ("unicode text.csv", table("\t").encode("utf-16")),
        ("unicode text.txt", table("\t").encode("utf-16")),
        ("no mark.txt", table("\t").encode("utf-16-le")),
        ("big endian.tsv", b"\xfe\xff" + table("\t").encode("utf-16-be")),
        ("utf8.csv", table(";").encode("utf-8-sig")),
        ("mac.csv", table(";", "\r").encode()),
        ("sep.csv", ("sep=;\r\n" + table(";")).encode("utf-8-sig")),
        ("sep tab.csv", ("sep=\t\r\n" + table("\t")).encode("utf-16")),
        ("sep quoted.csv", ('"sep=,"\r\n' + table(",")).encode()),
        ("blank rows.csv", table(";").replace("\r\n", "\r\n;;\r\n;;;;\r\n\r\n").encode()),
        ("blank start.csv", ("\r\n;;\r\n" + table(";")).encode()),
        ("spare column.csv", table(";").replace("\r\n", ";\r\n").encode()),
        (
            "swapped.jsonl",
            b"".join(json.dumps(dict(zip(TABLE[0], r, strict=True))).encode() + b"\n" for r in TABLE[1:]),
        ),
        ("swapped.csv", json.dumps([dict(zip(TABLE[0], r, strict=True)) for r in TABLE[1:]]).encode("utf-16")),
        ("pretty.json", json.dumps([dict(zip(TABLE[0], r, strict=True)) for r in TABLE[1:]], indent=2).encode()),
    ],
)
def test_a_table_is_read_however_it_was_saved(tmp_path, name, content):
    questions = read(tmp_path / name, content)
    assert [[q.question, q.gold, q.document] for q in questions] == TABLE[1:]


def test_a_header_cell_with_the_other_delimiter_or_a_line_end_misleads_nobody(tmp_path):
    questions = read(
        tmp_path / "a.csv",
        '"answer, short, plain";"remark,\na, b, c";question\nTwo;;Which?\n',
        answer="answer, short, plain",
    )
    assert [(q.question, q.gold) for q in questions] == [("Which?", "Two")]


def test_a_long_cell_is_read(tmp_path):
    [question] = read(tmp_path / "a.csv", "question,answer,passage\nWhy?,So.," + "x" * 200_000 + "\n")
    assert len(question.passage or "") == 200_000


def test_every_faulty_row_is_listed_at_once_by_its_number_in_the_spreadsheet(tmp_path):
    content = (
        "sep=;\r\nquestion;answer;ring\r\n"
        "Why?;So.;\r\n"  # 2
        ";So.;\r\n;;\r\n"  # 3: no question; 4: blank
        '"Two\nlines?";;\r\n'  # 5: no answer
        ";Because.;\r\n"  # 6
        ";Because.;\r\n"  # 7
        "What?;A;third;4;5\r\n"  # 8: more cells
        "What?;A;third\r\n"  # 9
        'Who?;"A"b;\r\n'  # 10
    )
    text = refused(tmp_path / "a.csv", content)
    assert "7 of 8 rows" in text
    assert "question is missing or empty: rows 3, 6 to 7" in text
    assert "answer (or gold) is missing or empty: row 5" in text
    assert "put text with a ';' in quotes: row 8" in text
    assert "ring is 'third', not one of learned, unseen: row 9" in text
    assert "row 10" in text


def test_a_file_without_the_columns_shows_those_that_it_has(tmp_path):
    text = refused(tmp_path / "a.csv", "frage;antwort\nWarum?;Darum.\nWer?;Wir.\n")
    assert "2 of 2 rows" in text and "the columns are: frage, antwort" in text
    [first, _] = read(
        tmp_path / "a.csv", "frage;antwort\nWarum?;Darum.\nWer?;Wir.\n", prompt="frage", completion="antwort"
    )
    assert (first.question, first.gold) == ("Warum?", "Darum.")


@pytest.mark.parametrize(
    ("name", "content", "cause"),
    [
        ("a.csv", b"PK\x03\x04" + b"\x00" * 30, "Excel workbook"),
        ("a.csv", b"\xd0\xcf\x11\xe0" + b"\x00" * 30, "old Office file"),
        ("a.csv", b"\0" * 500, "zero bytes only"),
        ("a.jsonl", bytes(range(256)) * 4, "binary"),
        ("a.csv", "question,answer,answer\nWhy?,So.,Yes.\n", "two columns are named 'answer'"),
        ("a.csv", "Frage: wäre überall größer,answer\n".encode() + b"gr\xfc\xdfe,b\n", "0xfc is not UTF-8"),
        ("a.jsonl", '{"question": "Why?", "answer": "\\ud83d"}\n', "surrogate"),
        ("a.jsonl", "[" * 100_000, "nested"),
        ("a.csv", 'question,answer\n"Why?,So.\nWho?,We.\n', "quotes"),
        ("a.csv", "", "holds no questions"),
    ],
)
def test_what_is_no_exam_is_refused_with_its_cause(tmp_path, name, content, cause):
    assert cause in refused(tmp_path / name, content)


def test_a_repeated_question_is_counted_and_one_with_another_answer_too(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("question,answer\nWhy?,So.\nWho?,We.\nWhy?,So.\nWhy?,Because.\n")
    questions, rejections = read_own_exam(path, REFUSAL, {}, {})
    assert [q.question for q in questions] == ["Why?", "Who?"]
    assert [(r.reason, r.detail) for r in rejections] == [(REPEATED, "row 4: Why?"), (CONTRADICTED, "row 5: Why?")]


def primary(question: Question, text: str) -> float:
    values = {"num_prompt_tokens": 1, "num_tokens": 1, "duration_s": 0, "gold_nll": 1}
    return score(
        question, Answer(question=question.id, arm="base", text=text, finish="stop", **values), REFUSAL
    ).primary


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", json.dumps({"question": "Who?", "answer": ["Mrs Arden", "Anna Hall"]})),
        ("a.jsonl", json.dumps({"question": "Who?", "answers": {"text": ["Mrs Arden", "Anna Hall", "Anna Hall"]}})),
        ("a.csv", "question,answer\nWho?,Mrs Arden || Anna Hall\n"),
        ("a.csv", 'question,answer\nWho?,"[""Mrs Arden"", ""Anna Hall""]"\n'),
    ],
)
def test_each_of_several_right_answers_scores_in_full(tmp_path, name, content):
    [question] = read(tmp_path / name, content)
    assert question.golds == ("Mrs Arden", "Anna Hall")
    assert primary(question, "Mrs Arden") == primary(question, "Anna Hall.") == 1
    assert primary(question, "Mr Bean") == 0


MMLU = [
    {"question": "Capital of France?", "choices": ["Rome", "Paris", "Bonn", "Oslo"], "answer": "B"},
    {"question": "Capital of Italy?", "choices": ["Rome", "Paris", "Bonn", "Oslo"], "answer": "A"},
]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("letters.jsonl", "\n".join(json.dumps(row) for row in MMLU)),
        ("index.jsonl", "\n".join(json.dumps(row | {"answer": "AB".index(row["answer"])}) for row in MMLU)),
        (
            "text.jsonl",
            "\n".join(json.dumps(row | {"answer": row["choices"]["AB".index(row["answer"])]}) for row in MMLU),
        ),
        (
            "arc.jsonl",
            "\n".join(
                json.dumps(
                    {"question": r["question"], "answerKey": "12"["AB".index(r["answer"])]}
                    | {"choices": {"text": r["choices"], "label": ["1", "2", "3", "4"]}}
                )
                for r in MMLU
            ),
        ),
        (
            "columns.csv",
            "Question;A;B;C;D;Answer\nCapital of France?;Rome;Paris;Bonn;Oslo;B\nCapital of Italy?;Rome;Paris;Bonn;Oslo;(a)\n",
        ),
        (
            "cell.csv",
            'question,options,answer\nCapital of France?,Rome || Paris || Bonn||Oslo,B\nCapital of Italy?,"[""Rome"", ""Paris"", ""Bonn"", ""Oslo""]",A\n',
        ),
    ],
)
def test_a_benchmark_answered_by_a_letter_is_played_as_choices(tmp_path, name, content):
    france, italy = read(tmp_path / name, content)
    assert france.question == "Capital of France?\n\nA. Rome\nB. Paris\nC. Bonn\nD. Oslo"
    assert (france.gold, italy.gold) == ("B. Paris", "A. Rome")
    assert false_gold(france, 1) == "C. Bonn"
    for text in (
        "B",
        "b",
        "(B)",
        "B.",
        "B. Paris",
        "**B**",
        "Paris",
        "paris.",
        "The correct answer is B.",
        "Die richtige Antwort lautet B",
        "It is Paris, of course",
        "The answer is: B, since A is in Italy",
    ):
        assert primary(france, text) == 1, text
    for text in (
        "A",
        "A. Rome",
        "",
        "Rome",
        "A or B",
        "Rome or Paris",
        "Z",
        "A big city is not a country",
        "I do not know",
    ):
        assert primary(france, text) == 0, text


def test_an_index_that_may_count_from_0_or_1_is_asked_for(tmp_path):
    rows = [{"question": f"{n}?", "options": ["w", "x", "y", "z"], "answer": n} for n in (1, 2)]
    assert "from 0 or from 1 is not clear: write letters: lines 1 to 2" in refused(
        tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows))
    )
    rows.append({"question": "4?", "options": ["w", "x", "y", "z"], "answer": 4})
    assert read(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))[0].gold == "A. w"


def test_an_index_is_not_taken_for_an_option_that_is_a_number(tmp_path):
    rows = [
        {"question": "2 + 0?", "choices": ["0", "3", "1", "2"], "answer": 3},
        {"question": "1 + 1?", "choices": ["2", "8", "1", "0"], "answer": 0},
        {"question": "1 + 8?", "choices": ["1", "12", "9", "0"], "answer": 2},
    ]
    questions = read(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    assert [q.gold for q in questions] == ["D. 2", "A. 2", "C. 9"]
    texts = [{**row, "answer": row["choices"][int(row["answer"])]} for row in rows]  # 2, 2 and 9: no indexes from 0
    with_names = [{"question": "Capital?", "choices": ["Rome", "Oslo"], "answer": "Rome"}] * 4
    questions = read(tmp_path / "b.jsonl", "\n".join(map(json.dumps, [*texts, *with_names])))
    assert [q.gold for q in questions][:3] == ["D. 2", "A. 2", "C. 9"]


def test_an_answer_that_is_no_option_is_a_fault(tmp_path):
    rows = [MMLU[0] | {"answer": "E"}, MMLU[1] | {"answer": 9}, MMLU[1] | {"choices": ["Rome"]}]
    text = refused(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    assert "'E' names none of its 4 options: line 1" in text and "line 2" in text and "options are 1" in text


def test_an_exam_with_options_and_several_answers_is_exported_as_it_was_read(tmp_path):
    content = "\n".join(map(json.dumps, [*MMLU, {"question": "Who?", "answer": ["We || you", "They"]}]))
    questions = read(tmp_path / "a.jsonl", content)
    again = read(tmp_path / "b.jsonl", "\n".join(map(json.dumps, exam_file_rows(questions, []))))
    assert again == questions


def test_a_choice_that_lists_no_options_keeps_them_for_the_likelihood_and_survives_the_export(tmp_path):
    rows = [{**row, "listed": False} for row in MMLU] + [MMLU[0]]
    hidden = read(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))[:2]
    shown = read(tmp_path / "b.jsonl", json.dumps(MMLU[0]))[0]
    assert [question.question for question in hidden] == [row["question"] for row in MMLU[:2]]
    assert shown.question.startswith(hidden[0].question + "\n") and shown.options == hidden[0].options
    assert all(question.gold in question.options for question in hidden) and shown.gold.endswith(f". {hidden[0].gold}")
    both = [*hidden, shown]
    assert read(tmp_path / "c.jsonl", "\n".join(map(json.dumps, exam_file_rows(both, [])))) == both
    assert false_gold(hidden[0], 0) in hidden[0].options and false_gold(hidden[0], 0) != hidden[0].gold
    assert "listed is 'perhaps', not true or false" in refused(
        tmp_path / "d.jsonl", json.dumps({**MMLU[0], "listed": "perhaps"})
    )


def test_a_kind_decides_how_an_answer_is_scored_and_survives_the_export(tmp_path):
    rows = [
        {"question": "How many people took part in it?", "answer": "3,440", "kind": "short"},
        {"question": "Which colours does the flag have?", "answer": ["red", "white", "blue"], "kind": "list"},
        {"question": "What did the survey find in the north?", "answer": "It found that fewer people fell ill."},
    ]
    path = tmp_path / "exam.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    questions = read_own_exam(path, REFUSAL, {}, {})[0]
    assert [question.kind for question in questions] == ["short", "list", "free"]
    again = tmp_path / "again.jsonl"
    again.write_text("".join(json.dumps(row) + "\n" for row in exam_file_rows(questions, [])))
    assert read_own_exam(again, REFUSAL, {}, {})[0] == questions

    def scored(question, text):
        answer = Answer(question=question.id, arm="base", text=text, finish="stop", num_prompt_tokens=1, num_tokens=1,
                        duration_s=1, gold_nll=1)  # fmt: skip
        return score(question, answer, REFUSAL).primary

    short, items, free = questions
    assert scored(short, "In all, 3440 people took part.") == 1 and scored(short, "3,441") == 0
    assert scored(items, "Red, white and blue.") == scored(items, "- blue\n- red\n- white") == 1
    assert scored(items, "red and green") == pytest.approx(2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3))
    assert scored(items, "green") == 0
    assert 0 < scored(free, "Fewer people fell ill.") < 1


def test_a_kind_that_does_not_fit_its_row_is_a_fault(tmp_path):
    path = tmp_path / "exam.jsonl"
    path.write_text(json.dumps({"question": "What is the capital of it?", "answer": "Paris", "kind": "choice"}) + "\n")
    with pytest.raises(UserError, match="is not an exam question") as caught:
        read_own_exam(path, REFUSAL, {}, {})
    assert "kind is 'choice'" in caught.value.cause
