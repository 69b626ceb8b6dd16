"""A marked run: what the page holds, what it would download, and a comparison table filled in by hand."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunewright.annotation.marking import KEY
from tunewright.annotation.page import PAGE
from tunewright.annotation.plan import MarkingKey
from tunewright.records import Answer, Question, Score
from tunewright.run_folder import RunFolder

ARMS = ("base", "tuned")
Chooser = Callable[[dict[str, Any]], str]


def page_content(run: RunFolder) -> dict:
    html = run.file(PAGE).read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="content">(.*?)</script>', html, re.S)
    assert found
    return json.loads(found[1])


def key_of(run: RunFolder) -> MarkingKey:
    return MarkingKey.model_validate_json(run.file(KEY).read_text())


def downloaded(run: RunFolder, path: Path, choose: Chooser, marker: str = "Ann", num: int | None = None) -> Path:
    """Write what the page would download; ``choose`` sees an item as it stands in the page, and returns a mark."""
    content = page_content(run)
    marks = [
        {
            "item": item["item"],
            "choice": choose(item),
            "at": f"2026-01-01T00:{n // 60:02}:{n % 60:02}.000Z",
            "seconds": 1.5,
        }
        for n, item in enumerate(content["items"][:num])
    ]
    path.write_text(
        json.dumps({"format": "tunewright marks 1", "page": content["page"], "marker": marker, "marks": marks})
    )
    return path


def prefers(run: RunFolder, arm: str) -> Chooser:
    """A marker who knows an arm's answers and always prefers them."""
    told = {(a.question, a.text.strip()) for a in run.read_records("answers.jsonl", Answer) if a.arm == arm}
    ids = {q.question + (q.passage or ""): q.id for q in run.read_records("exam.jsonl", Question)}

    def choose(item: dict) -> str:
        number = ids[item["question"] + (item["passage"] or "")]
        return next(side["name"] for side in item["sides"] if (number, side["text"]) in told)

    return choose


def best_by_primary(run: RunFolder) -> Chooser:
    """A marker whose marks follow the primary score exactly, and who ties where it is equal."""
    told = {(s.question, s.arm): s.primary for s in run.read_records("scores.jsonl", Score)}
    key = {item.item: item for item in key_of(run).items}

    def choose(item: dict) -> str:
        known = key[item["item"]]
        left, right = told[known.question, known.left], told[known.question, known.right]
        return "tie" if left == right else known.left_name if left > right else known.right_name

    return choose


def filled(run: RunFolder, path: Path, winners: list[str], delimiter: str = ",") -> Path:
    """Write comparison.csv as a spreadsheet would save it, with the winners typed in."""
    rows = list(csv.reader(io.StringIO(run.file("comparison.csv").read_text(encoding="utf-8").removeprefix("\ufeff"))))
    for row, winner in zip(rows[1:], winners, strict=False):
        row[-1] = winner
    with path.open("w", encoding="utf-8-sig", newline="") as table:
        csv.writer(table, delimiter=delimiter).writerows(rows)
    return path
