"""The retention items on a tiny model, through the evaluate stage: retained, forgotten, answered once, or none."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.retention_verdicts import judge
from tunewright.errors import StageError
from tunewright.evaluation.stage import evaluate
from tunewright.evaluation.verdict import Verdict
from tunewright.models import model_pool
from tunewright.recipe import Recipe
from tunewright.records import Question, RetentionAnswer, RetentionItem
from tunewright.retention.suite import draw, load_suite
from tunewright.run_folder import RunFile, RunFolder
from tunewright.settings import EvaluationSettings, ModelSettings, TrainingSettings
from tunewright.storage import file_digest


def make(folder: Path, model: Path, num_kept: int, noise: float = 0.0) -> tuple[RunFolder, Recipe]:
    """Return a run that is ready for its exam; the adapter's second matrices hold noise, and are zero without."""
    import torch

    from tunewright.models.loading import attach_adapter, load_base, save_adapter

    run = RunFolder.create(folder)
    questions = [
        Question(id=f"q{n}", ring="learned", document=f"d{n}", question=f"Which {n}?", gold="Two.", answerable=True)
        for n in range(12)
    ]
    run.write_records("exam.jsonl", questions)
    run.write_records("kept.jsonl", draw(load_suite(), num_kept, 0))
    run.write_json("seal.json", {name: file_digest(run.file(f"{name}.jsonl")) for name in ("exam", "kept")})
    adapted = attach_adapter(load_base(model, "none", "cpu"), TrainingSettings(rank=4), 0)
    torch.manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, noise)
    save_adapter(adapted, run.file("adapter"), "tiny")
    return run, Recipe(
        model=ModelSettings(base=str(model), quantization="none"), evaluation=EvaluationSettings(max_new_tokens=4)
    )


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that has something to forget: which bytes are frequent in the ring's passages."""
    import torch

    from support.tiny import make_model
    from tunewright.models.chat_template import load_tokenizer
    from tunewright.models.loading import load_base

    folder = make_model(tmp_path_factory.mktemp("taught") / "llama")
    model, tokenizer = load_base(folder, "none", "cpu"), load_tokenizer(folder)
    texts = [item.text for item in load_suite() if item.kind == "passage"]
    ids = torch.tensor([tokenizer(text)["input_ids"][:64] for text in texts[:32]])
    model.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(30):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder


def evaluated(run: RunFolder, recipe: Recipe) -> Verdict:
    evaluate(run, recipe)
    return Verdict.model_validate(run.read_json("verdict.json"))


def answers(run: RunFolder) -> dict[tuple[str, str], RetentionAnswer]:
    return {(a.item, a.arm): a for a in run.read_records("kept-answers.jsonl", RetentionAnswer)}


def test_an_adapter_that_does_nothing_forgets_nothing_and_answers_once(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, recipe = make(tmp_path / "run", tiny_model, 80)
    verdict = evaluated(run, recipe)
    by_item = answers(run)
    items = run.read_records("kept.jsonl", RetentionItem)
    assert set(by_item) == {(item.id, arm) for item in items for arm in ("base", "tuned")}
    assert all(by_item[item.id, "base"].value == by_item[item.id, "tuned"].value for item in items)
    states = {guard.measure: guard.state for guard in verdict.results.guards}
    assert states["kept_accuracy"] == "inside"  # 60 items that all stay: at most 4.9 % may have been lost
    assert verdict.results.kept is not None
    assert (verdict.results.kept.num_lost, verdict.results.kept.num_gained) == (0, 0)

    journal = run.file(RunFile.ANSWERS_JOURNAL).read_bytes()
    monkeypatch.setattr(model_pool, "student_base", lambda *_: pytest.fail("the base was loaded to answer again"))
    assert evaluated(run, recipe).results == verdict.results
    assert run.file(RunFile.ANSWERS_JOURNAL).read_bytes() == journal


def test_a_model_that_lost_its_language_is_worse(tmp_path: Path, taught: Path) -> None:
    run, recipe = make(tmp_path / "run", taught, 24, noise=2.0)
    verdict = evaluated(run, recipe)
    states = {guard.measure: guard.state for guard in verdict.results.guards}
    assert states["kept_cross_entropy"] == "beyond"
    with_a_good_exam = judge(run.read_records("kept-answers.jsonl", RetentionAnswer), use="task")
    assert any("Cross-entropy of general text" in reason for reason in with_a_good_exam.why)


def test_without_items_nothing_is_answered_and_the_verdict_says_so(tmp_path: Path, tiny_model: Path) -> None:
    run, recipe = make(tmp_path / "run", tiny_model, 0)
    verdict = evaluated(run, recipe)
    assert answers(run) == {}
    assert verdict.results.kept is None
    assert set(verdict.rule["guards"]) == {"false_refusal"}
    assert any("forgetting: " in part for part in verdict.not_measured)


def test_an_item_changed_after_sealing_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    run, recipe = make(tmp_path / "run", tiny_model, 12)
    first, *rest = run.read_records("kept.jsonl", RetentionItem)
    run.write_records("kept.jsonl", [first.model_copy(update={"text": "Another?"}), *rest])
    with pytest.raises(StageError, match=r"kept\.jsonl"):
        evaluate(run, recipe)
