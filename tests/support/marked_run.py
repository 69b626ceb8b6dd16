"""A marked run: what the page holds, what it would download, and a comparison table filled in by hand."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunewright.annotation.plan import MarkingKey
from tunewright.records import Answer, Question, Score
from tunewright.run_folder import RunFile, RunFolder

ARMS = ("base", "tuned")
Chooser = Callable[[dict[str, Any]], str]


def page_content(run: RunFolder, page: str = RunFile.MARKING_PAGE) -> dict:
    html = run.file(page).read_text(encoding="utf-8")
    match = re.search(r'<script type="application/json" id="content">(.*?)</script>', html, re.S)
    assert match
    return json.loads(match[1])


def key_of(run: RunFolder) -> MarkingKey:
    return MarkingKey.model_validate_json(run.file(RunFile.MARKING_KEY).read_text())


def downloaded(
    run: RunFolder,
    path: Path,
    choose: Chooser,
    marker: str = "Ann",
    num: int | None = None,
    page: str = RunFile.MARKING_PAGE,
) -> Path:
    """Write what the page would download; ``choose`` sees an item as it is in the page, and returns a mark."""
    content = page_content(run, page)
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
    answers = {(a.question, a.text.strip()) for a in run.read_records("answers.jsonl", Answer) if a.arm == arm}
    ids = {q.question + (q.passage or ""): q.id for q in run.read_records("exam.jsonl", Question)}

    def choose(item: dict) -> str:
        number = ids[item["question"] + (item["passage"] or "")]
        return next(side["name"] for side in item["sides"] if (number, side["text"]) in answers)

    return choose


def best_by_primary(run: RunFolder) -> Chooser:
    """A marker whose marks follow the primary score exactly, and who ties where it is equal."""
    primary = {(s.question, s.arm): s.primary for s in run.read_records("scores.jsonl", Score)}
    key = {item.item: item for item in key_of(run).items}

    def choose(item: dict) -> str:
        key_item = key[item["item"]]
        left, right = primary[key_item.question, key_item.left], primary[key_item.question, key_item.right]
        return "tie" if left == right else key_item.left_name if left > right else key_item.right_name

    return choose


def filled(run: RunFolder, path: Path, winners: list[str], delimiter: str = ",") -> Path:
    """Write comparison.csv as a spreadsheet would save it, with the winners typed in."""
    rows = list(csv.reader(io.StringIO(run.file("comparison.csv").read_text(encoding="utf-8").removeprefix("\ufeff"))))
    for row, winner in zip(rows[1:], winners, strict=False):
        row[-1] = winner
    with path.open("w", encoding="utf-8-sig", newline="") as table:
        csv.writer(table, delimiter=delimiter).writerows(rows)
    return path
