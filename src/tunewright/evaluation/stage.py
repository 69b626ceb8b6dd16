"""The evaluate stage: every arm sits the sealed exam; scores and the verdict follow."""

from __future__ import annotations

from collections.abc import Sequence

from tunewright import console
from tunewright.errors import StageError
from tunewright.evaluation.answering import all_answers, training_samples
from tunewright.evaluation.arms import BASE_AND_TUNED, RETRIEVING, WITH_ADAPTER, few_shot_examples
from tunewright.evaluation.comparison_csv import comparison_csv, write_comparison
from tunewright.evaluation.extra_arms import compared, weights_of
from tunewright.evaluation.rule import note_rule, rule
from tunewright.evaluation.seal import is_sealed
from tunewright.evaluation.verdict import decide
from tunewright.metrics import score
from tunewright.models.model_pool import ModelWeights
from tunewright.recipe import Recipe
from tunewright.records import Question, RetentionItem, StageSummary
from tunewright.run_folder import RunFile, RunFolder
from tunewright.settings import Arm


def evaluate(run: RunFolder, recipe: Recipe) -> StageSummary:
    """Answer the exam with every arm, score the answers, apply the rule that was written before.

    Writes rule.json (before the first answer), answers.jsonl, kept-answers.jsonl, scores.jsonl,
    verdict.json and comparison.csv.
    """
    questions = _sealed_exam(run)
    arms = _possible_arms(run, recipe)
    kept = _sealed_kept(run) if set(BASE_AND_TUNED) <= set(arms) else []
    others = {one.name: one for one in compared(recipe)}
    forgetting = recipe.evaluation.forgetting_margin if kept else None
    the_rule = rule(recipe.evaluation.margin, arms, forgetting, tuple(others))
    changes = note_rule(run, the_rule)
    run.write_json(RunFile.RULE, the_rule)
    sitting = _sitting(run, recipe, arms) | {name: weights_of(one, recipe) for name, one in others.items()}
    answers, kept_answers = all_answers(run, recipe, questions, sitting, kept)
    known = {question.id: question for question in questions}
    scores = [score(known[answer.question], answer, recipe.refusal) for answer in answers]
    bases = [name for name, one in others.items() if one.base]
    verdict = decide(scores, answers, the_rule, _leaks(run, recipe), kept_answers, changes, bases)
    run.write_records(RunFile.ANSWERS, answers)
    run.write_records(RunFile.RETENTION_ANSWERS, kept_answers)
    run.write_records(RunFile.SCORES, scores)
    write_comparison(run, comparison_csv(questions, answers, tuple(sitting)))
    run.write(RunFile.VERDICT, verdict.model_dump_json(indent=2) + "\n")
    figures: dict[str, float | int | str] = {
        "answers": len(answers),
        "kept_answers": len(kept_answers),
        "generated_tokens": sum(answer.num_tokens for answer in answers),
        "verdict": verdict.name,
    }
    return StageSummary(num_in=len(questions), num_out=len(questions), figures=figures)


def _possible_arms(run: RunFolder, recipe: Recipe) -> tuple[str, ...]:
    """Return the recipe's arms without those that have nothing to work with: they would only repeat the base.

    The verdict then names them as rivals that were not run, and cannot be SHIP.
    """
    missing = set() if run.file(RunFile.SPLIT).exists() else set(RETRIEVING)
    if not few_shot_examples(training_samples(run, recipe), recipe.evaluation.few_shot, recipe.seed):
        missing.add(Arm.FEW_SHOT)
    for arm in sorted(missing & set(recipe.evaluation.arms)):
        console.warning(f"the {arm} arm has nothing to show with the question and is left out")
    return tuple(arm for arm in recipe.evaluation.arms if arm not in missing)


def _sitting(run: RunFolder, recipe: Recipe, arms: Sequence[str]) -> dict[str, ModelWeights]:
    """Return the weights that answer for each arm."""
    weights: dict[str, ModelWeights] = {Arm.BASE: ModelWeights.of(recipe)}
    if WITH_ADAPTER & set(arms):
        weights |= dict.fromkeys(WITH_ADAPTER, ModelWeights.of(recipe, run.file(RunFile.ADAPTER)))
    if Arm.PLACEBO in arms:
        weights[Arm.PLACEBO] = ModelWeights.of(recipe, run.file(RunFile.PLACEBO))
    return {arm: weights.get(arm, weights[Arm.BASE]) for arm in arms}


def _sealed_exam(run: RunFolder) -> list[Question]:
    """Return the exam's questions.

    Raises:
        StageError: the exam is not the one that was sealed.
    """
    _require_sealed(run, "exam", 'to sit another exam, give it in the recipe: exam.file = "my-exam.jsonl"')
    return run.read_records(RunFile.EXAM, Question)


def _sealed_kept(run: RunFolder) -> list[RetentionItem]:
    """Return the third ring's items; none where the recipe took none.

    Raises:
        StageError: they are not those that were sealed.
    """
    _require_sealed(run, "kept", "delete kept.jsonl and run the recipe again: its items are drawn anew")
    return run.read_records(RunFile.RETENTION, RetentionItem)


def _require_sealed(run: RunFolder, name: str, hint: str) -> None:
    if not is_sealed(run, name):
        raise StageError(
            f"the exam was changed after it was sealed: {name}.jsonl",
            f"{name}.jsonl has not the digest that stands in seal.json",
            hint,
        )


def _leaks(run: RunFolder, recipe: Recipe) -> int | None:
    """Return how many training samples still overlap the exam, as curation counted them; None where none was curated.

    A record of earlier settings, under which samples were trained on, says nothing of this run.
    """
    if not recipe.needs_samples or not run.file("stages/curate.json").exists():
        return None
    return int(run.read_json("stages/curate.json")["summary"]["figures"].get("leaks_left", 0))
