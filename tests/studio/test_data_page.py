"""The data page: evidence, filters, edits by forms, coverage, and a run with 100,000 samples."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from support import data_run, finished_run
from support.studio import app_of, get, post
from tunewright.curation.edits import decisions, read_edits
from tunewright.records import Message, Rejection, Sample
from tunewright.run_folder import RunFolder
from tunewright.studio.jobs import Jobs
from tunewright.studio.runs import key_of
from tunewright.studio.sample_index import build_index, line_at

KEY = key_of("runs/first")
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>"


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    opened, _ = finished_run.write(tmp_path / "runs/first")
    samples = data_run.write_samples(opened, finished_run.documents(4))
    opened.write_records("train.jsonl", samples[2:])
    rejected = [
        Rejection(stage="curate", id=s.id, reason="near duplicate", detail="Q: x", task=s.task) for s in samples[:2]
    ]
    own = Rejection(stage="curate", id="f" * 16, reason="malformed", detail=HOSTILE, task="own")
    opened.write_records("rejected.jsonl", [*rejected, own])
    return opened


@pytest.fixture
def app(run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("tunewright.studio.data_page._INDEX_S", 30)  # a busy machine is no fault of the page
    return app_of(tmp_path)


def cards(text: str) -> list[str]:
    return re.findall(r'id="s-([0-9a-f]+)"', text)


def test_filters_select_and_evidence_is_marked_in_its_source(app: Any, run: RunFolder) -> None:
    samples = run.read_records("samples.jsonl", Sample)
    text = get(app, f"/run/{KEY}/data?page=1").text
    assert cards(text) == [sample.id for sample in samples[:20]]
    first = text.split(f'id="s-{samples[0].id}"')[1].split("</article>")[0]
    assert samples[0].evidence and f"<mark>{samples[0].evidence.quote[:20]}" in first.replace("&#39;", "'")
    assert f"{samples[0].evidence.start:,}" in first
    assert cards(get(app, f"/run/{KEY}/data?state=rejected").text) == [samples[0].id, samples[1].id, "f" * 16]
    assert cards(get(app, f"/run/{KEY}/data?reason=malformed").text) == ["f" * 16]
    refusals = [s.id for s in samples if s.task == "refusal"]
    assert cards(get(app, f"/run/{KEY}/data?task=refusal").text) == refusals[:20]
    of_document = [s.id for s in samples if s.document == samples[-1].document]
    assert cards(get(app, f"/run/{KEY}/data?document={samples[-1].document}").text) == of_document[:20]
    for odd in ("page=99999", "page=-1", "page=x", "task=%00", "state=<b>", "document=../../etc"):
        assert get(app, f"/run/{KEY}/data?{odd}").status == 200


def test_edits_by_form_are_records_and_can_be_undone(app: Any, run: RunFolder) -> None:
    samples = run.read_records("samples.jsonl", Sample)
    page, sample = f"/run/{KEY}/data", samples[3]
    assert post(app, f"{page}/{sample.id}/edit", {"action": "reject", "who": "Ann", "note": "wrong"}).status == 303
    assert post(app, f"{page}/{samples[0].id}/edit", {"action": "approve"}).status == 303  # back in by hand
    fields = {"action": "edit", "question": samples[4].question, "old-question": samples[4].question,
              "answer": "Another answer.", "old-answer": samples[4].answer}  # fmt: skip
    reply = post(app, f"{page}/{samples[4].id}/edit", {**fields, "filter-task": "answer-first", "filter-page": "2"})
    assert (
        reply.headers["location"].endswith(f"page=2#s-{samples[4].id}")
        and "task=answer-first" in reply.headers["location"]
    )
    made = decisions(read_edits(run.journal_entries("edits.jsonl")))
    assert (made[sample.id].state, made[sample.id].last.who, made[sample.id].last.note) == ("rejected", "Ann", "wrong")
    assert made[samples[4].id].answer == "Another answer." and made[samples[4].id].question is None
    text = get(app, f"{page}?page=1").text
    assert "3 edits are not in the training set yet" in text and "Another answer." in text
    assert cards(get(app, f"{page}?state=edited").text) == [samples[4].id]
    assert post(app, f"{page}/{sample.id}/edit", {"action": "undo"}).status == 303
    assert sample.id not in decisions(read_edits(run.journal_entries("edits.jsonl")))
    assert "wrong" in get(app, f"{page}/edits").text
    assert run.changes() == [] or all("edits" not in change.file for change in run.changes())


def test_edits_of_nothing_are_refused(app: Any, run: RunFolder) -> None:
    sample = run.read_records("samples.jsonl", Sample)[0]
    page = f"/run/{KEY}/data"
    for identifier, fields in (
        ("0" * 16, {"action": "reject"}), ("..", {"action": "reject"}), (sample.id, {"action": "delete"}), (sample.id, {}),
        (sample.id, {"action": "undo"}), (sample.id, {"action": "edit", "question": "", "answer": "x"}),
        (sample.id, {"action": "edit", "question": "q", "old-question": "q", "answer": "a", "old-answer": "a"}),
    ):  # fmt: skip
        assert post(app, f"{page}/{identifier}/edit", fields).status in (400, 404), fields
    assert not run.file("edits.jsonl").exists()


def test_pending_edits_are_applied_by_a_run_that_stops_before_training(
    app: Any, run: RunFolder, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(Jobs, "move", lambda self: None)
    assert post(app, f"/run/{KEY}/go-on", {"until": "curate"}).status == 303
    assert Jobs(tmp_path).latest()[0].arguments[-2:] == ("--until", "curate")


def test_coverage_opens_the_sentence(app: Any, run: RunFolder) -> None:
    sample = next(s for s in run.read_records("samples.jsonl", Sample) if s.evidence)
    text = get(app, f"/run/{KEY}/data/coverage?document={sample.document}").text
    item = next(part for part in text.split("<li ") if f"#s-{sample.id}" in part)
    number = re.search(r'id="t(\d+)"', item)
    assert number and f'href="#t{number[1]}"' in text and "<mark>" in item
    assert get(app, f"/run/{KEY}/data/coverage?document=../../x").status == 200


def test_hostile_samples_and_documents_are_text(app: Any, run: RunFolder) -> None:
    sample = run.read_records("samples.jsonl", Sample)[0]
    turns = (Message(role="user", content=HOSTILE), Message(role="assistant", content=HOSTILE + "\u202e\x1b[2J"))
    hostile = sample.model_copy(update={"messages": turns, "task": HOSTILE, "id": "a" * 16})
    run.write_records("samples.jsonl", [hostile])
    documents = [
        json.loads(line) | {"title": HOSTILE, "source": HOSTILE} for line in run.file("documents.jsonl").open()
    ]
    run.file("documents.jsonl").write_text("".join(json.dumps(d) + "\n" for d in documents))
    post(app, f"/run/{KEY}/data/{'a' * 16}/edit", {"action": "reject", "who": HOSTILE, "note": HOSTILE})
    for path in ("data?page=1", "data", f"data/coverage?document={sample.document}", "data/edits"):
        text = get(app, f"/run/{KEY}/{path}").text
        shown = re.sub(r"<textarea.*?</textarea>|<input[^>]*>", "", text, flags=re.S)  # forms give texts back unchanged
        assert "<script>alert" not in text and "<img src" not in text and "\u202e" not in shown, path
        assert "&lt;script&gt;" in text, path


def test_lines_of_any_form_are_indexed(tmp_path: Path) -> None:
    lines = ['{"id":"a","task":"t","messages":[{"content":"\\"document\\":\\"x\\""}],"document":"d1"}',
             '{ "task": "t2", "id": "b", "document": "d2" }', "", "not json", '{"id":"c","task":"t"}', "[1]"]  # fmt: skip
    (tmp_path / "samples.jsonl").write_text("\n".join(lines))
    index = build_index(tmp_path)
    assert [(e.id, e.task, e.document) for e in index.entries] == [("a", "t", "d1"), ("b", "t2", "d2"), ("c", "t", "")]
    assert [line_at(tmp_path, e.file, e.start)["id"] for e in index.entries] == ["a", "b", "c"]


@pytest.mark.slow
def test_a_hundred_thousand_samples(run: RunFolder, tmp_path: Path) -> None:
    """The bar is 0.3 s for every answer, the first one included; here bounds that a busy machine keeps."""
    sample = run.read_records("samples.jsonl", Sample)[0].model_dump_json()
    with run.file("samples.jsonl").open("w") as file, run.file("train.jsonl").open("w") as train:
        for number in range(100_000):
            line = sample.replace(sample[7:23], f"{number:016x}", 1) + "\n"
            file.write(line)
            if number % 3:
                train.write(line)
    app = app_of(tmp_path)
    get(app, "/jobs")  # imports
    took = []
    for query in ("", "state=kept", "page=1", "page=4000", "state=rejected", "task=answer-first&page=900"):
        began = time.perf_counter()
        assert len(cards(get(app, f"/run/{KEY}/data?{query}").text)) == 20
        took.append(round(time.perf_counter() - began, 3))
        time.sleep(5 if query == "state=kept" else 0)  # the index is read in the meantime
    print("seconds:", took)
    assert max(took) < 1.5
