"""The train stage: samples, texts and preference pairs in, adapter out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright import console
from tunewright.distributed import Processes, processes
from tunewright.models.loading import attach_adapter, compute_dtype, pick_device, save_adapter
from tunewright.models.student import student_base, student_identity, student_tokenizer
from tunewright.recipe import Recipe
from tunewright.records import StageSummary, digest
from tunewright.run_folder import RunFile, RunFolder
from tunewright.settings import MAKES_PAIRS, NO_PART_OF_RESULT
from tunewright.storage import atomic_folder, disk_errors, write_atomic
from tunewright.training.checkpoint import make_room, require_same
from tunewright.training.checks import advise, check_examples, show_example
from tunewright.training.dataset import TrainingData, read_data
from tunewright.training.fast_path import take_fast_path
from tunewright.training.loop import LoopSettings, TrainingTask, autocast, train
from tunewright.training.metrics import MetricsLog, keep_phases, read_metrics, tracker
from tunewright.training.objectives import NEXT_TOKEN, dpo, reference_logps
from tunewright.training.packing import Example, collate, pack
from tunewright.training.profiling import Plan, first_capacity, prove

CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class Session:
    """What the phases of a training share. ``compute`` is None where products run in the weights' own type."""

    run: RunFolder
    recipe: Recipe
    model: Any
    device: str
    compute: Any
    group: Processes
    sharded: bool = False

    def settings(self, learning_rate: float, epochs: int) -> LoopSettings:
        """Return the loop's settings for a phase."""
        own = self.recipe.training
        return LoopSettings(
            seed=self.recipe.seed,
            learning_rate=learning_rate,
            epochs=epochs,
            batch_size=own.batch_size,
            warmup_share=own.warmup_share,
            max_grad_norm=own.max_grad_norm,
            checkpoint_steps=own.checkpoint_steps,
            device=self.device,
            optimizer=own.optimizer,
            schedule=own.schedule,
            compute=self.compute,
            processes=self.group,
            sharded=self.sharded,
        )

    def save(self, target: Path) -> None:
        """Write the adapter (or the whole tuned model) as it is now."""
        with disk_errors(target, 0), atomic_folder(target) as folder:
            save_adapter(self.model, folder, self.recipe.model.base, self.compute)

    def identity(self, examples: Sequence[Example], settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return all that a phase's result depends on; the data by its tokens, so that a new template shows."""
        encoded = [(e.sample, [(s.input_ids, s.labels) for s in e.sequences]) for e in examples]
        return {
            **{key: value for key, value in settings.items() if key not in NO_PART_OF_RESULT},
            "data": digest(encoded),  # last: no setting may stand in its place
            "base": student_identity(self.recipe, self.device) + (" fp8" if self.recipe.model.fp8 else ""),
            "seed": self.recipe.seed,
        }


def start_session(run: RunFolder, recipe: Recipe, tokenizer: Any) -> Session:
    """Load the base and make it trainable."""
    import torch

    device = pick_device()
    dtype = compute_dtype(device, recipe.model.compute)
    console.line(f"loading {recipe.model.base} ({recipe.model.quantization}) on {device}")
    full = recipe.training.method == "full"
    sharded = recipe.model.sharded and processes().world_size > 1
    # What is to be spread may not fit one GPU: it is loaded beside it, and moved layer by layer.
    base = student_base(recipe, "cpu" if sharded else device, tokenizer, torch.float32 if full else dtype)
    new_tokens = tuple(tokenizer.convert_tokens_to_ids(token) for token in recipe.model.added_tokens)
    model = attach_adapter(base, recipe.training, recipe.seed, new_tokens)
    if sharded:
        from tunewright.training.fsdp import shard_base

        shard_base(model, device)
    else:
        take_fast_path(recipe, model, device)
    return Session(run, recipe, model, device, None if dtype == torch.float32 else dtype, processes(), sharded)


def train_phases(session: Session, data: TrainingData) -> dict[str, Plan]:
    """Train on chats and text, then on preference pairs, as far as the recipe asks; return each phase's plan.

    Raises:
        TrainingError: before anything is done, if any phase stands unfinished with other settings.
    """
    own = session.recipe.training
    identities: dict[str, dict[str, Any]] = {}
    if own.epochs:
        settings = json.loads(own.model_dump_json())
        identities["sft"] = session.identity([*data.examples, *data.held_out], settings)
    if session.recipe.preference.wanted:
        preference = session.recipe.preference.model_dump_json(exclude=set(MAKES_PAIRS))
        settings = json.loads(own.model_dump_json()) | json.loads(preference)
        pairs = [*data.pairs, *data.held_out_pairs]
        identities["dpo"] = session.identity(pairs, settings | {"after": digest(identities.get("sft"))})
    for phase, identity in identities.items():
        require_same(session.run.file(CHECKPOINTS) / phase, identity)
    if session.group.is_first:
        keep_phases(session.run.file(RunFile.METRICS), set(identities))
    plans = {}
    if "sft" in identities:
        plans["sft"] = _train_sft(session, data, identities["sft"])
    if "dpo" in identities:
        plans["dpo"] = _train_dpo(session, data, identities["dpo"], after_sft="sft" in identities)
    return plans


def _train_sft(session: Session, data: TrainingData, identity: Mapping[str, Any]) -> Plan:
    own = session.recipe.training
    task = TrainingTask(data.examples, NEXT_TOKEN, data.held_out)
    make_room(session.run.file(CHECKPOINTS) / "sft", identity, session.group)
    return _train(session, "sft", task, session.settings(own.learning_rate, own.epochs), identity)


def _train_dpo(session: Session, data: TrainingData, identity: Mapping[str, Any], after_sft: bool) -> Plan:
    own = session.recipe.preference
    settings = session.settings(own.learning_rate, own.epochs)
    make_room(session.run.file(CHECKPOINTS) / "dpo", identity, session.group)
    reference = _reference(session, [*data.pairs, *data.held_out_pairs], settings, identity, after_sft)
    objective = dpo(own.loss, own.beta, own.label_smoothing, reference)
    return _train(session, "dpo", TrainingTask(data.pairs, objective, data.held_out_pairs), settings, identity)


def _train(
    session: Session, name: str, task: TrainingTask, settings: LoopSettings, identity: Mapping[str, Any]
) -> Plan:
    """Plan a phase, unless an earlier attempt did, and run it."""
    folder = session.run.file(CHECKPOINTS) / name
    capacity, why = first_capacity(session.recipe, session.model, session.device, session.compute)
    planned = _earlier_plan(folder, identity)
    found = require_same(folder, identity)
    finished = found is not None and found.step == found.total_steps
    if planned is None:
        capacity, planned = prove(session.model, task, settings, capacity, why, session.recipe)
        _keep_plan(session, folder, identity, planned)
    file = session.run.file(RunFile.METRICS)
    listeners = tracker(session.recipe, session.run.path, name) if session.group.is_first else ()
    metrics = MetricsLog(file, name, session.group.is_first, planned.flops_per_token, planned.peak_flops, listeners)

    def keep_epoch(epoch: int) -> None:
        session.save(folder / f"epoch-{epoch}")

    ended = train(session.model, task, settings, capacity, folder, identity, metrics, keep_epoch)
    if finished and planned.measured_s:  # nothing was done now: what an earlier call measured stands
        return planned
    planned = planned.measured(read_metrics(file), name, ended)
    _keep_plan(session, folder, identity, planned)
    return planned


def _keep_plan(session: Session, folder: Path, identity: Mapping[str, Any], plan: Plan) -> None:
    if session.group.is_first:
        content = {"identity": digest(identity), "plan": plan.as_dict()}
        write_atomic(folder / RunFile.PLAN, json.dumps(content, indent=2).encode())


def _earlier_plan(folder: Path, identity: Mapping[str, Any]) -> Plan | None:
    """Return the plan that an earlier attempt at the same phase began with."""
    try:
        content = json.loads((folder / RunFile.PLAN).read_text(encoding="utf-8"))
        return Plan(**content["plan"]) if content["identity"] == digest(identity) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _reference(
    session: Session, pairs: Sequence[Example], settings: LoopSettings, identity: Mapping[str, Any], after_sft: bool
) -> dict[str, tuple[float, float]]:
    """Return the reference model's log-probabilities of all pairs, computed once and kept."""
    file = session.run.file(CHECKPOINTS) / "dpo" / "reference.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["identity"] == digest(identity):
            return {name: (float(chosen), float(rejected)) for name, (chosen, rejected) in content["logps"].items()}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    model, without = session.model, nullcontext()
    if session.recipe.preference.reference == "base" and hasattr(model, "disable_adapter"):
        without = model.disable_adapter()
    elif session.recipe.preference.reference == "base" and after_sft:  # every weight has moved: load them anew
        model = student_base(session.recipe, session.device, student_tokenizer(session.recipe))
    budget = first_capacity(session.recipe, session.model, session.device, session.compute)[0].micro_batch_tokens
    size = settings.batch_size
    rows = [row for start in range(0, len(pairs), size) for row in pack(pairs[start : start + size], budget)]
    with without, autocast(settings):
        logps = reference_logps(model, rows, lambda row: collate(row, session.device))
    if session.group.is_first:
        write_atomic(file, json.dumps({"identity": digest(identity), "logps": logps}).encode())
    return logps


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
        check_examples([*data.examples, *data.held_out], data.rejections, recipe.training.max_tokens)
    if recipe.preference.wanted:
        check_examples([*data.pairs, *data.held_out_pairs], data.pair_rejections, recipe.training.max_tokens)
    rejected = run.reject("train", [*data.rejections, *data.pair_rejections]) if group.is_first else {}
    show_example((data.examples or data.pairs)[0], tokenizer)
    session = start_session(run, recipe, tokenizer)
    plans = train_phases(session, data)
    group.wait()
    if not group.is_first:
        return StageSummary(num_in=0, num_out=0)
    session.save(run.file(RunFile.ADAPTER))
    tokenizer.save_pretrained(run.file(RunFile.ADAPTER))
    run.write_json(RunFile.PLAN, {phase: plan.as_dict() for phase, plan in plans.items()})
    return _summary(run, data, rejected)


def _summary(run: RunFolder, data: TrainingData, rejected: dict[str, int]) -> StageSummary:
    rows = read_metrics(run.file(RunFile.METRICS))
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
