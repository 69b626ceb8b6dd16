"""Constructed answers through the real evaluate stage: they are journaled under its own keys, so that no model runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunewright import pipeline
from tunewright.evaluation.answering import question_jobs
from tunewright.evaluation.arms import shots_by_arm
from tunewright.evaluation.retention import RetentionExam
from tunewright.evaluation.stage import evaluate, read_training_samples, weights_by_arm
from tunewright.evaluation.verdict import Verdict
from tunewright.models.model_pool import ModelPool
from tunewright.recipe import Recipe, parse_recipe
from tunewright.records import Question, RetentionItem
from tunewright.run_folder import RunFile, RunFolder

ARMS = ("base", "few-shot", "similar-shot", "tuned")
Says = Callable[[str, int, Question], str]  # arm, number of the question, question -> the answer
IsRight = Callable[[str, int], bool]  # arm, number of the item -> whether its answer is right


def trained(folder: Path, model: Path, chats: str, exam: str, retention_items: int = 0) -> tuple[RunFolder, Recipe]:
    """Return a run on a tiny model up to its adapter: what it learned is no matter, since its answers are constructed."""
    folder.mkdir()
    (folder / "train.jsonl").write_text(chats, encoding="utf-8")
    (folder / "exam.jsonl").write_text(exam, encoding="utf-8")
    content = {
        "exam": {"file": "exam.jsonl", "retention_items": retention_items},
        "synthesis": {"data": ["train.jsonl"]},
        "curation": {"near_duplicate": 1.0, "embedding_duplicate": 0.0},
        "model": {"base": str(model), "quantization": "none", "compute": "fp32"},
        "training": {"epochs": 1, "batch_size": 64, "rank": 1, "held_out_share": 0.0, "max_tokens": 4096},
        "retrieval": {"model": ""},
        "evaluation": {"arms": list(ARMS), "few_shot": 1},
    }
    recipe = parse_recipe(content, folder)
    return pipeline.run(recipe, folder / "run", until="train"), recipe


def verdict_on(run: RunFolder, recipe: Recipe, says: Says, is_right: IsRight = lambda arm, number: True) -> Verdict:
    """Evaluate the run anew with these answers; return the verdict."""
    for name in (RunFile.ANSWERS_JOURNAL, RunFile.RULE_HISTORY):
        run.file(name).unlink(missing_ok=True)
    questions, pool = run.read_records(RunFile.EXAM, Question), ModelPool()
    shots = shots_by_arm(read_training_samples(run, recipe), recipe.evaluation.few_shot, recipe.seed)
    weights = weights_by_arm(run, recipe, ARMS)
    cost = {"finish": "stop", "num_tokens": 5, "duration_s": 0.1, "contrast_nll": None}
    outputs: dict[str, Any] = {
        key: {"text": says(arm, number, question), "gold_nll": 1.0 if arm == "tuned" else 3.0, **cost}
        for arm, jobs in question_jobs(recipe, questions, weights, pool, shots).items()
        for number, (question, (key, _)) in enumerate(zip(questions, jobs, strict=True))
    }
    items = run.read_records(RunFile.RETENTION, RetentionItem)
    of_arms = {arm: weights[arm] for arm in ("base", "tuned")}
    for arm, own in of_arms.items():
        outputs |= _retained(RetentionExam(items, {arm: own}, pool), [is_right(arm, n) for n in range(len(items))])
    run.journal(RunFile.ANSWERS_JOURNAL).append({"outputs": outputs})
    evaluate(run, recipe)
    assert len(run.journal(RunFile.ANSWERS_JOURNAL).entries) == 1, "an answer was not constructed"
    return Verdict.model_validate(run.read_json(RunFile.VERDICT))


def _retained(exam: RetentionExam, right: Sequence[bool]) -> Mapping[str, Any]:
    """Return an output for each retention item: the right option likeliest or unlikeliest; of passages, one likelihood."""
    rights = iter(right)
    outputs: dict[str, Any] = {}
    for batch in exam.plan():
        tokens = batch.answer.args[1]  # type: ignore[attr-defined]
        for key, entry in zip(batch.keys, tokens, strict=True):
            is_right, item = next(rights), entry.item
            if not entry.continuations:
                outputs[key] = {"text": ""}
                continue
            lengths = [len(ids) for ids in entry.continuations]
            nats = [(1.0 if (n == item.right) == is_right else 2.0) * len(text) for n, text in enumerate(item.options)]
            outputs[key] = {"nll": nats or [3.0 * lengths[0]], "num_tokens": lengths}
    return outputs


def exam_answers(exam: str) -> list[str]:
    """Return the right answers of an exam."""
    return [json.loads(line)["answer"] for line in exam.splitlines()]
