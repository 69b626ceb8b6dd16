import re
from pathlib import Path

import pytest

from support import finished_run
from support.html_page import PAYLOAD, Page
from tunewright.errors import RunFolderError
from tunewright.evaluation.rule import rule
from tunewright.evaluation.verdict import decide
from tunewright.html import figures
from tunewright.metrics import score
from tunewright.records import Answer, Document, Question, Span
from tunewright.reporting.sections import structured_table
from tunewright.reporting.stage import report
from tunewright.run_folder import RunFolder
from tunewright.statistics.intervals import duration, number, p_value, signed


def render(run: RunFolder) -> tuple[Page, str]:
    report(run, finished_run.RECIPE)
    text = run.file("report.html").read_text(encoding="utf-8")
    return Page(text), text


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Page, str, str]:
    run, verdict = finished_run.write(tmp_path_factory.mktemp("runs") / "a run")
    return *render(run), verdict.name


def test_the_verdict_comes_first_and_every_section_follows(finished: tuple[Page, str, str]) -> None:
    page, text, name = finished
    assert re.search(rf"<h1[^>]*>{name}</h1>", text)
    assert page.headings == [
        "scores", "differences", "nll", "retention", "training", "data", "costs", "examples", "unmeasured", "rule", "recipe"
    ]  # fmt: skip
    assert 10 + 4 < len(list(page.tags("article"))) <= 20 + 4  # answers, and formats lost or gained
    assert "is the sealed one" in page.text
    assert "11 near duplicate; 9 question refers to the text" in page.text
    assert "max_new_tokens = 64" in page.text


def test_it_loads_nothing_and_runs_nothing(finished: tuple[Page, str, str]) -> None:
    page, text, _ = finished
    assert not {"script", "link", "iframe", "object", "img", "form", "base"} & {tag for tag, _ in page.elements}
    loads = [a for _, a in page.elements for name in a if name in ("src", "href", "srcset") or name.startswith("on")]
    assert loads == []
    assert not re.search(r"@import|url\(|javascript:", text)
    (policy,) = [a["content"] for a in page.tags("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_it_can_be_read_by_machines_for_people(finished: tuple[Page, str, str]) -> None:
    page, _, _ = finished
    assert next(page.tags("html"))["lang"] == "en"
    assert all(len(list(page.tags(tag))) == 1 for tag in ("h1", "header", "main", "footer", "title"))
    named = [a for a in page.tags("svg") if a.get("role") == "img"]
    assert len(named) == 9
    assert all(a["aria-label"] for a in named)
    ids = {a["id"] for _, a in page.elements if "id" in a}
    assert all(a["aria-labelledby"] in ids for a in page.tags("section"))
    assert all(a.get("aria-label") for _, a in page.elements if a.get("class") == "scroll")


def test_gains_and_losses_are_both_shown(finished: tuple[Page, str, str]) -> None:
    changes = [float(c.replace("−", "-")) for c in re.findall(r"tuned − base ([+−][\d.]+)", finished[0].text)]
    assert sum(c > 0 for c in changes) == 10
    assert 5 < sum(c < 0 for c in changes) <= 10
    assert changes[0] == max(changes) and changes[10] == min(changes)


def test_hostile_documents_answers_and_names_stay_text(tmp_path: Path) -> None:
    quote = f"Of 595 skin ulcers 150 were positive in the tested group of people {PAYLOAD}."
    documents = [
        Document(id=f"d{n}", title=f"T{n} {PAYLOAD}", source=f"{PAYLOAD}{n}.md", text=quote) for n in range(12)
    ]
    run, _ = finished_run.write(tmp_path / "<b onclick=x>&", docs=documents)
    questions = run.read_records("exam.jsonl", Question)
    run.write_records(
        "exam.jsonl",
        [
            q.model_copy(
                update={
                    "question": f"{PAYLOAD}?",
                    "gold": PAYLOAD,
                    "evidence": Span(document=q.document, start=0, end=1, quote=PAYLOAD),
                }
            )
            for q in questions
        ],
    )
    answers = run.file("answers.jsonl").read_text()
    run.write("answers.jsonl", answers.replace('"text":"', '"text":"</style></pre></dd><script>alert(2)</script>'))
    run.write("recipe.toml", f"# </code></pre>{PAYLOAD}\n")
    finished_run.reseal(run)
    run.write_json("seal.json", {**run.read_json("seal.json"), PAYLOAD: PAYLOAD})
    curate = run.read_json("stages/curate.json")
    curate["summary"]["rejected"] = {PAYLOAD: 27}
    curate["outputs"] = {PAYLOAD: PAYLOAD}
    run.write_json("stages/curate.json", curate)
    page, text = render(run)
    assert not {"script", "img", "b onclick"} & {tag for tag, _ in page.elements}
    assert not [name for _, a in page.elements for name in a if name.startswith("on")]
    assert "alert(2)" in page.text
    assert page.text.count(PAYLOAD) > 40
    assert "<script" not in text


@pytest.mark.parametrize(
    ("file", "heading", "label"),
    [
        ("metrics.jsonl", "training", "training loss"),
        ("plan.json", None, "accuracy of the training's memory and time plan"),
        ("seal.json", None, "the exam's seal"),
        ("documents.jsonl", None, None),
        ("recipe.toml", None, None),
        ("stages/curate.json", None, "the data funnel"),
    ],
)
def test_a_missing_file_costs_its_section_and_is_listed(
    tmp_path: Path, file: str, heading: str | None, label: str | None
) -> None:
    run, _ = finished_run.write(tmp_path / "run")
    run.file(file).unlink()
    page, _ = render(run)
    assert heading not in page.headings
    if label:
        assert label in page.text
    assert "max_new_tokens = 64" in page.text  # the recipe is written again when its file is gone


def test_a_run_with_a_single_rival_and_no_stages(tmp_path: Path) -> None:
    run, verdict = finished_run.write(tmp_path / "run", quality={"base": 0.2, "tuned": 0.8})
    for path in run.file("stages").glob("*.json"):
        if path.stem not in ("exam", "evaluate"):
            path.unlink()
    page, _ = render(run)
    assert "the rag arm did not run" in page.text
    assert verdict.name == "NOT PROVEN"


def test_an_invalid_run_without_base_still_gets_its_report(tmp_path: Path) -> None:
    run, verdict = finished_run.write(tmp_path / "run", quality={"tuned": 0.8})
    page, _ = render(run)
    assert verdict.name == "INVALID"
    assert "differences" not in page.headings
    assert "nll" not in page.headings


def answered(folder: Path, of_questions: dict[str, object], texts: dict[str, str]):
    """A finished run whose questions are changed, and whose arms all give one text; and its verdict."""
    run, _ = finished_run.write(folder)
    exam = [q.model_copy(update={"answerable": True, **of_questions}) for q in run.read_records("exam.jsonl", Question)]
    answers = [
        a.model_copy(update={"text": texts.get(a.arm, ""), "finish": "stop"})
        for a in run.read_records("answers.jsonl", Answer)
    ]
    by_id = {q.id: q for q in exam}
    scores = [score(by_id[a.question], a, finished_run.RECIPE.refusal) for a in answers]
    verdict = decide(scores, answers, rule(0.10, list(finished_run.QUALITY)), leaks=0)
    for name, records in (("exam", exam), ("answers", answers), ("scores", scores)):
        run.write_records(f"{name}.jsonl", records)
    run.write("verdict.json", verdict.model_dump_json())
    finished_run.reseal(run)
    return run, verdict


def test_structured_answers_have_their_columns_and_a_row_per_field(
    finished: tuple[Page, str, str], tmp_path: Path
) -> None:
    assert "label match" not in finished[0].text
    gold = '{"severity": "SEV1", "started_at": null}'
    texts = {"base": "SEV1", "tuned": gold, "rag": '{"severity": "SEV1", "started_at": "noon"}'}
    run, verdict = answered(tmp_path / "run", {"gold": gold}, texts)
    rows = {row[0]: row[1:4] for row in structured_table(verdict)[1]}
    assert rows == {
        "format": ["0%", "100%", "+1.00"],
        "label match": ["0%", "100%", "+1.00"],
        "unparsable": ["100%", "0%", "−1.00"],
        "severity": ["0%", "100%", "+1.00"],
        "started_at": ["0%", "100%", "+1.00"],
    }
    rag = verdict.results.arm("rag")
    assert (rag.primary.mean, rag.metrics["label_match:severity"], rag.metrics["format"]) == (0.5, 1, 1)
    page, text = render(run)
    assert "share of correct fields" in page.text
    assert '<th scope="row">started_at</th><td>0%</td><td>100%</td>' in text
    assert '<th scope="col">format</th><th scope="col">label match</th>' in text


def test_choices_have_no_column_of_a_format_that_they_lack(tmp_path: Path) -> None:
    choice = {
        "question": "Where?\n\nA. here\nB. there",
        "options": ("here", "there"),
        "gold": "A. here",
        "kind": "choice",
    }
    run, _ = answered(tmp_path / "run", choice, {"base": "B", "tuned": "A"})
    _, text = render(run)
    assert '<th scope="col">label match</th><th scope="col">unparsable</th>' in text
    assert '<th scope="col">format</th>' not in text


@pytest.mark.parametrize("file", ["exam.jsonl", "answers.jsonl", "scores.jsonl", "verdict.json"])
def test_without_a_finished_exam_there_is_a_hint(tmp_path: Path, file: str) -> None:
    run, _ = finished_run.write(tmp_path / "run")
    run.file(file).unlink()
    with pytest.raises(RunFolderError, match=file) as failure:
        report(run, finished_run.RECIPE)
    assert "tunewright run" in failure.value.hint


@pytest.mark.parametrize(
    ("file", "content"), [("verdict.json", "{}"), ("verdict.json", "{"), ("metrics.jsonl", "{}"), ("plan.json", "[]")]
)
def test_a_damaged_file_is_named(tmp_path: Path, file: str, content: str) -> None:
    run, _ = finished_run.write(tmp_path / "run")
    run.write(file, content)
    with pytest.raises(RunFolderError, match=file):
        report(run, finished_run.RECIPE)


def test_the_same_run_gives_the_same_page(tmp_path: Path) -> None:
    run, _ = finished_run.write(tmp_path / "run")
    assert render(run)[1] == render(run)[1]


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0.0, 4.0, (0, 1, 2, 3, 4)), (-0.37, 0.37, (-0.4, -0.2, 0, 0.2, 0.4)), (2.0, 2.0, None), (0.0, 0.013, None)],
)
def test_axes_are_round_and_cover(low: float, high: float, ticks: tuple[float, ...] | None) -> None:
    scale = figures.nice_scale(low, high)
    assert scale.low <= low <= high <= scale.high
    assert scale.low < scale.high
    assert 2 <= len(scale.ticks) <= 12
    if ticks:
        assert scale.ticks == pytest.approx(ticks)


def test_long_training_is_thinned_to_means() -> None:
    points = [(float(n), float(n % 2)) for n in range(10_000)]
    thinned = figures.thin(points)
    assert len(thinned) <= 400
    assert thinned[0] == (12.0, pytest.approx(12 / 25))
    assert len(figures.curve([figures.Line("loss", points)], "loss", "step")) < 12_000
    assert figures.curve([figures.Line("loss", [(1.0, float("nan"))])], "loss", "step") == ""


def test_numbers_as_people_read_them() -> None:
    assert (number(-0.5), number(None), signed(0.5), signed(-0.5)) == ("−0.50", "–", "+0.50", "−0.50")
    assert (p_value(0.0001), p_value(0.034), p_value(1.0)) == ("< .001", ".034", "1.000")
    assert [duration(s) for s in (0.21, 96.3, 3700)] == ["0.2 s", "1 min 36 s", "1 h 01 min"]
