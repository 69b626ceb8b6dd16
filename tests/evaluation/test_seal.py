"""What is changed after sealing is named, and no verdict is shown over it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from support import finished_run
from tunewright.evaluation.seal import exam_faults, seal_faults
from tunewright.evaluation.stage import read_seal_state
from tunewright.recipe import load_recipe
from tunewright.records import Question, RetentionItem
from tunewright.reporting.stage import report
from tunewright.run_folder import RunFolder
from tunewright.storage import file_digest

PAYLOAD = "<script>alert(1)</script>"


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A finished run with the records that the stages exam and evaluate leave."""
    run, verdict = finished_run.write(tmp_path / "run")
    run.write_json("rule.json", verdict.rule)
    names = ("rule.json", "answers.jsonl", "kept-answers.jsonl", "scores.jsonl", "verdict.json")
    record = run.read_json("stages/evaluate.json")
    record["outputs"] = {name: file_digest(run.file(name)) for name in names}
    record["ingredients"] = {
        "version": 1,
        "seed": finished_run.RECIPE.seed,
        "refusal": finished_run.RECIPE.refusal,
        "evaluation": finished_run.RECIPE.evaluation.model_dump(mode="json"),
    }
    run.write_json("stages/evaluate.json", record)
    record = run.read_json("stages/exam.json")
    run.write_json("stages/exam.json", {**record, "outputs": {"seal.json": file_digest(run.file("seal.json"))}})
    return run


def edit(name: str, /, **values: object) -> Callable[[RunFolder], None]:
    return lambda run: run.write_json(name, {**run.read_json(name), **values})


def another_gold(run: RunFolder) -> None:
    first, *rest = run.read_records("exam.jsonl", Question)
    run.write_records("exam.jsonl", [first.model_copy(update={"gold": PAYLOAD}), *rest])


def another_item(run: RunFolder) -> None:
    first, *rest = run.read_records("kept.jsonl", RetentionItem)
    run.write_records("kept.jsonl", [first.model_copy(update={"right": (first.right + 1) % 4}), *rest])


def another_gold_sealed_again(run: RunFolder) -> None:
    another_gold(run)
    run.write_json("seal.json", {**run.read_json("seal.json"), "exam": file_digest(run.file("exam.jsonl"))})


def another_setting(before: str, after: str) -> Callable[[RunFolder], None]:
    def change(run: RunFolder) -> None:
        text = run.file("recipe.toml").read_text(encoding="utf-8")
        assert before in text
        run.write("recipe.toml", text.replace(before, after))

    return change


def margin_in_the_verdict(run: RunFolder) -> None:
    verdict = run.read_json("verdict.json")
    run.write_json("verdict.json", {**verdict, "rule": {**verdict["rule"], "margin": 0.01}})


def appended(name: str) -> Callable[[RunFolder], None]:
    return lambda run: run.write(name, run.file(name).read_text(encoding="utf-8") + "\n")


CHANGES: dict[str, tuple[Callable[[RunFolder], None], tuple[str, ...]]] = {
    "gold": (another_gold, ("exam.jsonl was changed after it was sealed",)),
    "gold and seal": (another_gold_sealed_again, ("seal.json was changed",)),
    "retention item": (another_item, ("kept.jsonl was changed after it was sealed",)),
    "no retention items": (lambda run: run.file("kept.jsonl").unlink(), ("kept.jsonl is missing",)),
    "retention answer": (appended("kept-answers.jsonl"), ("kept-answers.jsonl was changed",)),
    "forgetting margin": (
        another_setting("forgetting_margin = 0.05", "forgetting_margin = 0.2"),
        ("recipe.toml was changed", "evaluation.forgetting_margin was 0.05 and is 0.2"),
    ),
    "no seal": (lambda run: run.file("seal.json").unlink(), ("seal.json is missing",)),
    "rule": (edit("rule.json", alpha=0.2), ("rule.json was changed", "alpha was 0.05 and is 0.2")),
    "rule's step": (edit("rule.json", steps=["SHIP"]), ("rule.json was changed", "steps was", 'is ["SHIP"]')),
    "guard's margin": (
        edit("rule.json", guards={"false_refusal": 0.5}),
        ("rule.json was changed", "guards.false_refusal was 0.1 and is 0.5"),
    ),
    "no rule": (lambda run: run.file("rule.json").unlink(), ("rule.json is missing",)),
    "margin": (
        another_setting("margin = 0.1", "margin = 0.05"),
        ("recipe.toml was changed", "evaluation.margin was 0.1 and is 0.05"),
    ),
    "setting": (
        another_setting("few_shot = 3", "few_shot = 1"),
        ("recipe.toml was changed", "evaluation.few_shot was 3 and is 1"),
    ),
    "margin in the verdict": (margin_in_the_verdict, ("verdict.json was changed", "margin was 0.1 and is 0.01")),
    "verdict": (edit("verdict.json", name="SHIP", leaks=0), ("verdict.json was changed",)),
    "answers": (appended("answers.jsonl"), ("answers.jsonl was changed",)),
    "scores": (appended("scores.jsonl"), ("scores.jsonl was changed",)),
    "record of the exam": (
        lambda run: run.write("stages/exam.json", "[]"),
        ("stages/exam.json is missing or damaged",),
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_after_sealing_makes_the_report_invalid_and_is_named(run: RunFolder, name: str) -> None:
    change, words = CHANGES[name]
    change(run)
    recipe = load_recipe(run.file("recipe.toml"))
    (fault,) = seal_faults(read_seal_state(run), recipe)
    assert all(word in fault for word in words), fault
    summary = report(run, recipe)
    page = run.file("report.html").read_text(encoding="utf-8")
    assert '<h1 class="bad">INVALID</h1>' in page
    assert words[0] in page
    assert "Scores of the arms" not in page
    assert PAYLOAD not in page
    assert summary.figures["verdict"] == "INVALID"


def test_without_any_record_nothing_vouches_for_a_verdict(run: RunFolder) -> None:
    for file in run.file("stages").glob("*.json"):
        file.unlink()
    faults = seal_faults(read_seal_state(run), load_recipe(run.file("recipe.toml")))
    assert [fault.split()[0] for fault in faults] == ["stages/exam.json", "stages/evaluate.json"]


def test_an_untouched_run_has_no_fault_and_its_own_page(run: RunFolder) -> None:
    recipe = load_recipe(run.file("recipe.toml"))
    assert seal_faults(read_seal_state(run), recipe) == exam_faults(read_seal_state(run)) == []
    report(run, recipe)
    assert "Scores of the arms" in run.file("report.html").read_text(encoding="utf-8")


def test_two_changes_are_both_named(run: RunFolder) -> None:
    another_gold(run)
    edit("rule.json", alpha=0.2, max_cut=1)(run)
    faults = seal_faults(read_seal_state(run), load_recipe(run.file("recipe.toml")))
    assert len(faults) == 3
    assert json.dumps(faults).count("rule.json was changed") == 2
