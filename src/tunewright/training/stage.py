"""The train stage: samples, texts and preference pairs in, adapter out."""

from __future__ import annotations

from tunewright import console
from tunewright.models.student import student_tokenizer
from tunewright.parallel import processes
from tunewright.recipe import Recipe
from tunewright.records import StageSummary
from tunewright.rundir import RunFolder
from tunewright.training.advice import advise
from tunewright.training.data import Data, read_data
from tunewright.training.metrics import read_metrics
from tunewright.training.phases import start_session, train_phases
from tunewright.training.preflight import check, show


def train_adapter(run: RunFolder, recipe: Recipe) -> StageSummary:
    """Train on train.jsonl and the documents' text, then on pairs.jsonl; resume where an attempt ended.

    Writes adapter/ (peft format; a whole model for method "full"), metrics.jsonl, plan.json, and under checkpoints/
    the state of each phase and the adapter after each epoch. In a launch of several processes all call it, and the
    first one writes.
    """
    group = processes()
    tokenizer = student_tokenizer(recipe)
    data = read_data(run, recipe, tokenizer)
    if recipe.training.epochs:
        check([*data.examples, *data.held_out], data.rejections, recipe.training.max_tokens)
    if recipe.preference.wanted:
        check([*data.pairs, *data.held_out_pairs], data.pair_rejections, recipe.training.max_tokens)
    rejected = run.reject("train", [*data.rejections, *data.pair_rejections]) if group.is_first else {}
    show((data.examples or data.pairs)[0], tokenizer)
    session = start_session(run, recipe, tokenizer)
    plans = train_phases(session, data)
    group.wait()
    if not group.is_first:
        return StageSummary(num_in=0, num_out=0)
    session.save(run.file("adapter"))
    tokenizer.save_pretrained(run.file("adapter"))
    run.write_json("plan.json", {phase: plan.as_dict() for phase, plan in plans.items()})
    return _summary(run, data, rejected)


def _summary(run: RunFolder, data: Data, rejected: dict[str, int]) -> StageSummary:
    rows = read_metrics(run.file("metrics.jsonl"))
    figures: dict[str, float | int | str] = {
        "steps": sum(row["step"] > 0 for row in rows),
        "supervised_tokens": sum(example.num_supervised for example in [*data.examples, *data.pairs]),
    }
    if data.text_share:
        figures["text_share"] = round(data.text_share, 3)
    for phase in dict.fromkeys(row["phase"] for row in rows):
        losses = [row["loss"] for row in rows if row["phase"] == phase and "loss" in row]
        figures |= {f"{phase}_first_loss": round(losses[0], 4), f"{phase}_last_loss": round(losses[-1], 4)}
    advice = advise(rows, len(data.examples) + len(data.pairs))
    for number, sentence in enumerate(advice, 1):
        console.warning(sentence)
        figures[f"advice_{number}"] = sentence
    num_held = len(data.held_out) + len(data.held_out_pairs)
    figures |= {"held_out": num_held} if num_held else {}
    num_out = len(data.examples) + len(data.pairs) + num_held
    return StageSummary(num_in=data.num_in, num_out=num_out, rejected=rejected, figures=figures)
