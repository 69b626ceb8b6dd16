from __future__ import annotations

import re
from pathlib import Path

import pytest

from support import data_run, finished_run
from support.html_page import PAYLOAD, Page
from tunewright.commands.inspect import inspect_run
from tunewright.errors import RunFolderError
from tunewright.records import Chunk, Document, Sample, StageSummary
from tunewright.reporting.data_report import mark_span
from tunewright.reporting.stage import report
from tunewright.run_folder import RunFolder


def inspect(run: RunFolder) -> tuple[Page, str]:
    inspect_run(run)
    text = run.file("data.html").read_text(encoding="utf-8")
    return Page(text), text


def plain(page: Page) -> str:
    return " ".join(page.text.split())


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, Page, str]:
    run = data_run.write(tmp_path_factory.mktemp("runs") / "a run")
    return run, *inspect(run)


def test_every_section_is_there(curated: tuple[RunFolder, Page, str]) -> None:
    run, page, _ = curated
    sections = ["funnel", "refusals", "diversity", "duplicates", "coverage", "lengths", "examples"]
    assert page.headings == sections
    kept = run.read_records("train.jsonl", Sample)
    assert f"{len(kept)} samples kept for training." in plain(page)
    assert len(list(page.tags("article"))) == 10
    named = [a for a in page.tags("svg") if a.get("role") == "img"]
    assert len(named) == 3
    assert all(a["aria-label"] for a in named)
    assert "curate: leaks removed1 curate: leaks left0 curate: context gain mean0.75" in plain(page)
    assert "dropped: exact duplicate1 dropped: near duplicate2" in plain(page)
    assert f"{20 / len(kept):.2f} calls, {1800 / len(kept):.2f} prompt tokens" in plain(page)
    assert "do not add up" not in page.text


def test_the_evidence_is_marked_in_its_source(curated: tuple[RunFolder, Page, str]) -> None:
    run, _, text = curated
    marks = re.findall(r"<mark>(.*?)</mark>", text, re.DOTALL)
    from html import unescape

    quotes = {s.evidence.quote for s in run.read_records("train.jsonl", Sample) if s.evidence}
    assert marks
    assert {unescape(mark) for mark in marks} <= quotes


def test_it_loads_nothing_and_runs_nothing(curated: tuple[RunFolder, Page, str]) -> None:
    _, page, text = curated
    assert not {"script", "link", "iframe", "object", "img", "form", "base"} & {tag for tag, _ in page.elements}
    assert not [n for _, a in page.elements for n in a if n in ("src", "href", "srcset") or n.startswith("on")]
    assert not re.search(r"@import|url\(|javascript:", text)
    assert "default-src 'none'" in text
    ids = {a["id"] for _, a in page.elements if "id" in a}
    assert all(a["aria-labelledby"] in ids for a in page.tags("section"))
    assert all(a.get("aria-label") for _, a in page.elements if a.get("class") == "scroll")


def test_the_same_run_gives_the_same_page(curated: tuple[RunFolder, Page, str]) -> None:
    run, _, text = curated
    assert inspect(run)[1] == text


def test_before_curation_it_lists_what_is_missing(tmp_path: Path) -> None:
    run = data_run.write(tmp_path / "run", curated=False)
    page, _ = inspect(run)
    assert "samples written, not curated yet." in plain(page)
    assert "what curation drops and keeps: it has not run" in plain(page)
    assert "leaks: there is no exam yet" in plain(page)
    assert page.headings[0] == "funnel"


def test_samples_alone_are_enough(tmp_path: Path) -> None:
    run = data_run.write(tmp_path / "run", curated=False)
    for name in ("documents", "chunks", "split", "rejected", "teacher"):
        run.file(f"{name}.jsonl").unlink()
    run.file("recipe.toml").unlink()
    page, _ = inspect(run)
    assert "coverage" not in page.headings
    assert "there is no teacher.jsonl" in plain(page)
    assert "a rule of thumb for English" in plain(page)


def test_without_samples_there_is_a_hint(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run")
    with pytest.raises(RunFolderError, match="no samples yet") as failure:
        inspect_run(run)
    assert "--until synth" in failure.value.hint
    run.write("samples.jsonl", "")
    with pytest.raises(RunFolderError, match="no samples yet"):
        inspect_run(run)
    run.write("samples.jsonl", '{"id": 1}\n')
    with pytest.raises(RunFolderError, match=r"samples\.jsonl line 1"):
        inspect_run(run)


def test_the_terminal_shows_reasons_and_what_does_not_add_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = data_run.write(tmp_path / "run")
    inspect_run(run)
    printed = capsys.readouterr().err
    assert re.search(r"near duplicate\W+curate\W+2 ", printed)
    assert re.search(r"question too short\W+synth\W+3 ", printed)  # not that of the exam
    assert "unaccounted" not in printed
    run.write_records("train.jsonl", run.read_records("train.jsonl", Sample)[:-1])
    inspect_run(run)
    assert "1 samples unaccounted for" in capsys.readouterr().err


def test_hostile_documents_and_samples_stay_text(tmp_path: Path) -> None:
    sentence = f"Of 595 skin ulcers 150 were found positive in the tested group of many people here {PAYLOAD}."
    documents = [
        Document(id=f"d{n}", title=f"{PAYLOAD} {n}", source=f"{PAYLOAD}{n}.md", text=f"{sentence} {sentence} The end.")
        for n in range(12)
    ]
    run = data_run.write(tmp_path / "<b onclick=x>&", documents=documents)
    samples = run.file("train.jsonl").read_text()
    run.write("train.jsonl", samples.replace('"answer-first"', '"</script><script>x"'))
    figures: dict[str, float | int | str] = {f"leaks{PAYLOAD}": PAYLOAD}
    summary = StageSummary(num_in=1, num_out=1, figures=figures)
    run.write_json("stages/curate.json", {"summary": summary.model_dump(mode="json")})
    page, text = inspect(run)
    assert not {"script", "img", "b onclick"} & {tag for tag, _ in page.elements}
    assert not [name for _, a in page.elements for name in a if name.startswith("on")]
    assert "<script" not in text
    assert page.text.count("<script>alert(1)</script>") > 10
    assert "<mark>Of 595" in text
    assert "These counts do not add up" in plain(page)  # the kept samples are of a task that nobody wrote


def test_marks_are_placed_by_character() -> None:
    assert mark_span("a<b>c", 1, 4) == "a<mark>&lt;b&gt;</mark>c"
    assert mark_span("abc", -5, 99) == "<mark>abc</mark>"
    assert mark_span("abc", 7, 9) == "abc<mark></mark>"


def test_of_many_documents_the_least_covered_are_shown(tmp_path: Path) -> None:
    base = finished_run.documents(1)[0]
    documents = [base.model_copy(update={"id": f"{n:03}", "title": f"Document {n}"}) for n in range(500)]
    run = data_run.write(tmp_path / "run", documents=documents)
    samples = [s for s in run.read_records("train.jsonl", Sample) if s.document != "321"]
    run.write_records("train.jsonl", samples)
    page, text = inspect(run)
    assert "The 60 least covered of 500 documents" in plain(page)
    strips = re.findall(r'class="label" x="0" y="\d+">(.*?)</text>', text)
    assert len(strips) == 60
    assert re.fullmatch(r"0 of \d+ · Document 321", strips[0])
    assert len(text) < 2_000_000


def test_the_report_holds_the_short_form_and_writes_the_page(tmp_path: Path) -> None:
    run, _ = finished_run.write(tmp_path / "run")
    samples = data_run.write_samples(run, finished_run.documents(12))
    kept = data_run.curate(run, samples)
    report(run, finished_run.RECIPE)
    page = Page(run.file("report.html").read_text(encoding="utf-8"))
    assert "samples" in page.headings
    assert f"{len(kept)} samples kept for training." in plain(page)
    assert "data.html" in page.text
    written = run.file("data.html").read_text(encoding="utf-8")
    assert Page(written).headings[0] == "funnel"
    inspect_run(run)
    assert run.file("data.html").read_text(encoding="utf-8") == written  # else the report stage would count as stale


def test_a_run_without_samples_has_a_page_without_figures(tmp_path: Path) -> None:
    run, _ = finished_run.write(tmp_path / "run")
    report(run, finished_run.RECIPE)
    page = Page(run.file("report.html").read_text(encoding="utf-8"))
    assert "samples" not in page.headings
    assert "what the training data holds: no samples" in plain(page)
    assert "This run has no samples" in Page(run.file("data.html").read_text(encoding="utf-8")).text


def test_cost_and_tokens_per_kept_sample(tmp_path: Path) -> None:
    run = data_run.write(tmp_path / "run")
    for name, cost in (("synth", 1.0), ("exam", 9.0), ("synth", 0.5)):  # of an earlier and of the last process
        run.journal("teacher.jsonl").append({"key": f"{name}{cost}", "stage": name, "cost": cost})
    kept = len(run.read_records("train.jsonl", Sample))
    assert f"{1.5 / kept:.4f} US dollars" in plain(inspect(run)[0])


@pytest.mark.parametrize(("headings", "label"), [(("All",), "All"), ((), "all sections")])
def test_a_document_of_very_many_sections_stays_small(tmp_path: Path, headings: tuple[str, ...], label: str) -> None:
    run = data_run.write(tmp_path / "run", documents=finished_run.documents(1))
    (document,) = run.read_records("documents.jsonl", Document)
    text, chunks = "", []
    for n in range(3000):
        sentence = f"In part {n} the group of patients was treated with the new drug."
        chunks.append(
            Chunk(id=f"{n}", document=document.id, title="T", section=(*headings, f"Part {n}"), start=len(text),
                  end=len(text) + len(sentence), text=sentence, num_tokens=12)
        )  # fmt: skip
        text += sentence + " "
    run.write_records("documents.jsonl", [document.model_copy(update={"text": text, "sections": ()})])
    run.write_records("chunks.jsonl", chunks)
    page, written = inspect(run)
    assert written.count('<rect class="cell') - 4 == 120
    assert re.search(rf"{label}: \d+ of 3000 sentences reached", page.text)
    assert "and 2940 more sections" in page.text
    assert len(written) < 150_000
