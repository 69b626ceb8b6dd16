"""The labeled questions of benchmarks/retrieval.py: evidence verbatim, and reworded questions that share no word with it."""

import json
from collections import Counter
from pathlib import Path

from tunewright.examples import abstracts_folder
from tunewright.synthesis.questions import subjects

DATA = Path(__file__).parents[2] / "benchmarks/data"
ROWS = [json.loads(line) for line in (DATA / "retrieval_questions.jsonl").read_text(encoding="utf-8").splitlines()]
FOLDERS = (abstracts_folder(), DATA / "abstracts")
TEXTS = {file.name: file.read_text(encoding="utf-8") for folder in FOLDERS for file in folder.glob("*.md")}


def test_each_abstract_has_two_questions_of_each_wording():
    assert Counter((row["file"], row["wording"]) for row in ROWS) == {
        (name, wording): 2 for name in TEXTS for wording in ("plain", "reworded")
    }
    assert len({row["question"] for row in ROWS}) == len(ROWS) == 192
    assert all(row["question"].endswith("?") for row in ROWS)


def test_evidence_stands_verbatim_and_once_in_its_abstract():
    assert [row["evidence"] for row in ROWS if TEXTS[row["file"]].count(row["evidence"]) != 1] == []


def test_reworded_questions_share_no_content_word_with_their_evidence_and_plain_ones_do():
    shared = {row["question"]: subjects(row["question"]) & subjects(row["evidence"]) for row in ROWS}
    assert {q: s for row in ROWS if row["wording"] == "reworded" and (s := shared[q := row["question"]])} == {}
    assert [row["question"] for row in ROWS if row["wording"] == "plain" and len(shared[row["question"]]) < 2] == []
