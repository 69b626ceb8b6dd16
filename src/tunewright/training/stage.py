"""The train, placebo and seeds stages: samples, texts and preference pairs in, adapter out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright import console
from tunewright.distributed import Processes, processes
from tunewright.errors import TrainingError
from tunewright.models.coverage import check_coverage
from tunewright.models.experts import check_experts
from tunewright.models.hardware import free_bytes
from tunewright.models.loading import attach_adapter, compute_dtype, pick_device, save_adapter, start_from
from tunewright.models.memory_plan import require_room
from tunewright.models.source import locate, read_config
from tunewright.models.stored_quantization import stored_nf4
from tunewright.models.student import student_base, student_identity, student_tokenizer
from tunewright.recipe import Recipe
from tunewright.records import VIEW, Chunk, Document, PreferencePair, Sample, SplitEntry, StageSummary, digest
from tunewright.retrieval.sentence_model import open_sentence_model, sentence_model_identity
from tunewright.retrieval.stored_vectors import StoredVectors
from tunewright.run_folder import RunFile, RunFolder, further_adapters
from tunewright.settings import MAKES_PAIRS, NO_PART_OF_RESULT
from tunewright.storage import atomic_folder, disk_errors, file_digest, write_atomic
from tunewright.training.checkpoint import make_room, require_same
from tunewright.training.checks import advise, check_examples, show_example
from tunewright.training.compute_path import ComputePath, choose_path
from tunewright.training.dataset import TrainingData, TrainingRecords, encode_records, subset
from tunewright.training.loop import LoopSettings, TrainingTask, autocast, train
from tunewright.training.metrics import MetricsLog, keep_phases, read_metrics, tracker
from tunewright.training.objectives import NEXT_TOKEN, Objective, distillation, dpo, reference_logps
from tunewright.training.packing import Example, collate, pack
from tunewright.training.placebo import shuffled_records
from tunewright.training.plain_path import PlainPath
from tunewright.training.profiling import Plan, base_shape, first_capacity, prove
from tunewright.training.teacher_prompts import passages_of

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Session:
    """What the phases of a training share.

    Attributes:
        path: the model and how it is computed; chosen once, for all phases.
        device: "cpu" or "cuda:0".
        compute: the type that matrix products run in under autocast; None for the parameters' own.
        group: the processes that train together.
        sharded: whether the base is sharded over them.
    """

    run: RunFolder
    recipe: Recipe
    path: ComputePath
    device: str
    compute: torch.dtype | None
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
        """Write the adapter, or the whole tuned model, as it is now."""
        with disk_errors(target, 0), atomic_folder(target) as folder:
            save_adapter(self.path.model, folder, self.recipe.model.base, self.compute)

    def identity(self, examples: Sequence[Example], settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return all that a phase's result depends on; the data by its tokens, so that it shows a new template."""
        # A teacher's tokens are there only where there is one: identities of other trainings stay as they were.
        encoded = [
            (e.sample, [(s.input_ids, s.labels) for s in (*e.sequences, *([e.teacher] if e.teacher else ()))])
            for e in examples
        ]
        return {
            **{key: value for key, value in settings.items() if key not in NO_PART_OF_RESULT},
            "data": digest(encoded),  # behind the settings, so that none of them replaces it
            "base": student_identity(self.recipe, self.device) + (" fp8" if self.recipe.model.fp8 else ""),
            "seed": self.recipe.seed,
        }


def _read_records(run: RunFolder, recipe: Recipe) -> TrainingRecords:
    """Read the records that the recipe trains on.

    A file that this recipe does not write is not read: it would be of other settings.
    """
    text = recipe.training.text_share > 0
    split = run.records_if_any(RunFile.SPLIT, SplitEntry) if text or recipe.distills else ()
    side = {entry.document for entry in split if entry.side == "train"}
    chunks = run.records_if_any(RunFile.CHUNKS, Chunk) if recipe.distills else ()
    return TrainingRecords(
        samples=run.records_if_any(RunFile.TRAIN, Sample) if recipe.needs_samples else (),
        pairs=run.records_if_any(RunFile.PAIRS, PreferencePair) if recipe.preference.wanted else (),
        split=split,
        documents=run.records_if_any(RunFile.DOCUMENTS, Document) if text else (),
        chunks=[chunk for chunk in chunks if chunk.document in side],
    )


def _write_records(run: RunFolder, recipe: Recipe, records: TrainingRecords) -> None:
    """Write the records that ``_read_records`` reads."""
    if recipe.needs_samples:
        run.write_records(RunFile.TRAIN, records.samples)
    if recipe.preference.wanted:
        run.write_records(RunFile.PAIRS, records.pairs)
    if recipe.training.text_share or recipe.distills:
        run.write_records(RunFile.SPLIT, records.split)
    if recipe.training.text_share:
        run.write_records(RunFile.DOCUMENTS, records.documents)
    if recipe.distills:
        run.write_records(RunFile.CHUNKS, records.chunks)


def read_training_data(run: RunFolder, recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> TrainingData:
    """Read and encode all that the recipe trains on.

    Raises:
        TrainingError: distillation is wanted, and no sample has a passage.
    """
    records = _read_records(run, recipe)
    if not recipe.distills:
        return encode_records(records, recipe, tokenizer)
    passages = _teacher_passages(run, recipe, records)
    return encode_records(records, recipe, tokenizer, passages)


def _teacher_passages(run: RunFolder, recipe: Recipe, records: TrainingRecords) -> Mapping[str, Sequence[str]]:
    """Return what the teacher of distillation reads with each sample, and print how many samples have no teacher."""
    number, name = recipe.distillation.distractors, recipe.retrieval.model
    model = None
    if number and name:
        known_as = sentence_model_identity(name, recipe.folder)
        model = StoredVectors(open_sentence_model(name, recipe.folder), run.file(RunFile.VECTORS), known_as)
    chats = [sample for sample in records.samples if sample.task != VIEW]
    passages = passages_of(chats, records.chunks, number, model)
    if chats and not passages:
        raise TrainingError(
            "no sample has a passage to distill from",
            f"{len(chats)} samples, and none was written from a passage of the training documents",
            'write samples from documents, or set training.objective = "sft"',
        )
    if len(passages) < len(chats):
        console.line(
            f"{len(chats) - len(passages)} of {len(chats)} samples have no passage of their own (refusals, passages in "
            "the prompt, your own chats): they are trained on their answers"
        )
    return passages


def write_subsets(run: RunFolder, recipe: Recipe, folders: Mapping[int, RunFolder]) -> list[int]:
    """Write nested shares (percent) of a run's training records to other folders.

    Returns:
        The sizes of the shares in the order of ``folders``, then the size of the whole; see ``TrainingRecords.size``.
    """
    records = _read_records(run, recipe)
    sizes = []
    for percent, folder in folders.items():
        share = subset(records, percent, recipe.seed)
        _write_records(folder, recipe, share)
        sizes.append(share.size)
    return [*sizes, records.size]


def start_session(run: RunFolder, recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> Session:
    """Load the base, make it trainable, and choose how it is computed."""
    import torch

    device = pick_device()
    dtype = compute_dtype(device, recipe.model.compute)
    check_experts(recipe, read_config(locate(recipe.model.base, recipe.folder)))
    if device.startswith("cuda") and not recipe.model.sharded:
        require_room(recipe, base_shape(recipe), free_bytes(device))
    console.line(f"loading {recipe.model.base} ({recipe.model.quantization}) on {device}")
    full = recipe.training.method == "full"
    sharded = recipe.model.sharded and processes().world_size > 1
    # A base to be sharded may not fit one GPU: it is loaded into the host's memory, and moved layer by layer.
    base = student_base(recipe, "cpu" if sharded else device, tokenizer, torch.float32 if full else dtype)
    new_tokens = tuple(tokenizer.convert_tokens_to_ids(token) for token in recipe.model.added_tokens)
    model = attach_adapter(base, recipe.training, recipe.seed, new_tokens)
    stored = stored_nf4(read_config(locate(recipe.model.base, recipe.folder)))  # with layers that its maker left out
    check_coverage(model, "none" if stored else recipe.model.quantization, recipe.training)
    if recipe.training.start:
        start_from(model, recipe.resolve(recipe.training.start))
    if sharded:
        from tunewright.training.fsdp import shard_base

        shard_base(model, device)
    path = PlainPath(model) if sharded else choose_path(recipe, model, device)
    return Session(run, recipe, path, device, None if dtype == torch.float32 else dtype, processes(), sharded)


def train_phases(session: Session, data: TrainingData) -> dict[str, Plan]:
    """Train on chats and text, then on preference pairs, as the recipe says; return each phase's plan.

    Raises:
        TrainingError: before any step, if a phase is unfinished with other settings.
    """
    own = session.recipe.training
    identities: dict[str, dict[str, Any]] = {}
    if own.epochs:
        settings = json.loads(own.model_dump_json(exclude={"objective", "start"}))
        if own.start:
            settings["start"] = file_digest(session.recipe.resolve(own.start))
        if session.recipe.distills:
            settings["distillation"] = json.loads(session.recipe.distillation.model_dump_json())
        identities["sft"] = session.identity([*data.examples, *data.held_out], settings)
    if session.recipe.preference.wanted:
        preference = session.recipe.preference.model_dump_json(exclude=set(MAKES_PAIRS))
        settings = json.loads(own.model_dump_json(exclude={"objective", "start"})) | json.loads(preference)
        pairs = [*data.pairs, *data.held_out_pairs]
        identities["dpo"] = session.identity(pairs, settings | {"after": digest(identities.get("sft"))})
    for phase, identity in identities.items():
        require_same(session.run.file(RunFile.CHECKPOINTS) / phase, identity)
    if session.group.is_first:
        keep_phases(session.run.file(RunFile.METRICS), set(identities))
    plans = {}
    if "sft" in identities:
        plans["sft"] = _train_sft(session, data, identities["sft"])
    if "dpo" in identities:
        plans["dpo"] = _train_dpo(session, data, identities["dpo"], after_sft="sft" in identities)
    return plans


def objective_of(recipe: Recipe) -> Objective:
    """Return the objective of the training on chats and text."""
    if not recipe.distills:
        return NEXT_TOKEN
    from tunewright.training.kernels.distillation import Mixture

    settings = recipe.distillation
    return distillation(Mixture(settings.temperature, settings.cross_entropy))


def _train_sft(session: Session, data: TrainingData, identity: Mapping[str, Any]) -> Plan:
    own = session.recipe.training
    task = TrainingTask(data.examples, objective_of(session.recipe), data.held_out)
    make_room(session.run.file(RunFile.CHECKPOINTS) / "sft", identity, session.group)
    return _train(session, "sft", task, session.settings(own.learning_rate, own.epochs), identity)


def _train_dpo(session: Session, data: TrainingData, identity: Mapping[str, Any], after_sft: bool) -> Plan:
    own = session.recipe.preference
    settings = session.settings(own.learning_rate, own.epochs)
    make_room(session.run.file(RunFile.CHECKPOINTS) / "dpo", identity, session.group)
    reference = _reference(session, [*data.pairs, *data.held_out_pairs], settings, identity, after_sft)
    objective = dpo(own.loss, own.beta, own.label_smoothing, reference)
    return _train(session, "dpo", TrainingTask(data.pairs, objective, data.held_out_pairs), settings, identity)


def _train(
    session: Session, name: str, task: TrainingTask, settings: LoopSettings, identity: Mapping[str, Any]
) -> Plan:
    """Plan a phase, unless an earlier attempt planned it, and run it."""
    folder = session.run.file(RunFile.CHECKPOINTS) / name
    capacity, why = first_capacity(session.recipe, session.path, session.device, session.compute)
    planned = _earlier_plan(folder, identity)
    newest = require_same(folder, identity)
    finished = newest is not None and newest.step == newest.total_steps
    if planned is None:
        capacity, planned = prove(session.path, task, settings, capacity, why, session.recipe)
        _keep_plan(session, folder, identity, planned)
    file = session.run.file(RunFile.METRICS)
    listeners = tracker(session.recipe, session.run.path, name) if session.group.is_first else ()
    metrics = MetricsLog(file, name, session.group.is_first, planned.flops_per_token, planned.peak_flops, listeners)

    def keep_epoch(epoch: int) -> None:
        session.save(folder / f"epoch-{epoch}")

    ended = train(session.path, task, settings, capacity, folder, identity, metrics, keep_epoch)
    if finished and planned.measured_s:  # no step ran now: an earlier call has measured them
        return planned
    planned = planned.measured(read_metrics(file), name, ended)
    _keep_plan(session, folder, identity, planned)
    return planned


def _keep_plan(session: Session, folder: Path, identity: Mapping[str, Any], plan: Plan) -> None:
    if session.group.is_first:
        content = {"identity": digest(identity), "plan": plan.as_dict()}
        write_atomic(folder / RunFile.PLAN, json.dumps(content, indent=2).encode())


def _earlier_plan(folder: Path, identity: Mapping[str, Any]) -> Plan | None:
    """Return the plan of an earlier attempt at the same phase, or None."""
    try:
        content = json.loads((folder / RunFile.PLAN).read_text(encoding="utf-8"))
        return Plan.from_dict(content["plan"]) if content["identity"] == digest(identity) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _reference(
    session: Session, pairs: Sequence[Example], settings: LoopSettings, identity: Mapping[str, Any], after_sft: bool
) -> dict[str, tuple[float, float]]:
    """Return the reference model's log-probabilities of all pairs in nats; they are computed once and kept on disk."""
    file = session.run.file(RunFile.CHECKPOINTS) / "dpo" / "reference.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["identity"] == digest(identity):
            return {name: (float(chosen), float(rejected)) for name, (chosen, rejected) in content["logps"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    path = session.path
    without_adapter: AbstractContextManager[None] = nullcontext()
    if session.recipe.preference.reference == "base":
        if session.recipe.training.method != "full":
            without_adapter = path.model.disable_adapter()
        elif after_sft:  # every weight has moved: load the base again
            path = PlainPath(student_base(session.recipe, session.device, student_tokenizer(session.recipe)))
    budget = first_capacity(session.recipe, session.path, session.device, session.compute)[0].micro_batch_tokens
    size = settings.batch_size
    rows = [row for start in range(0, len(pairs), size) for row in pack(pairs[start : start + size], budget)]
    with without_adapter, autocast(settings):
        logps = reference_logps(path, rows, lambda row: collate(row, session.device))
    if session.group.is_first:
        write_atomic(file, json.dumps({"identity": digest(identity), "logps": logps}).encode())
    return logps


def train_adapter(run: RunFolder, recipe: Recipe) -> StageSummary:
    """Train on train.jsonl and the documents' text, then on pairs.jsonl; resume where an earlier attempt ended.

    Writes adapter/ (peft format; a whole model for method "full"), metrics.jsonl, plan.json, and under checkpoints/
    the state of each phase and the adapter after each epoch. In a launch of several processes, all of them call it
    and the first one writes.
    """
    group = processes()
    tokenizer = student_tokenizer(recipe)
    data = read_training_data(run, recipe, tokenizer)
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


def train_placebo(run: RunFolder, recipe: Recipe) -> StageSummary:
    """Train as ``train_adapter`` does on the run's records with their answers exchanged, in the folder placebo/.

    Raises:
        TrainingError: all answers are the same, so that exchanging them changes nothing.
    """
    own, group = RunFolder(run.file(RunFile.PLACEBO).parent), processes()
    if group.is_first:
        _write_records(own, recipe, shuffled_records(_read_records(run, recipe), recipe.seed))
    group.wait()
    # A long question may get a long answer. Both fitted before, so twice the limit holds any two of them.
    training = recipe.training.model_copy(update={"max_tokens": 2 * recipe.training.max_tokens})
    summary = train_adapter(own, recipe.model_copy(update={"training": training}))
    if group.is_first:
        own.note(RunFile.METRICS, RunFile.CHECKPOINTS)
    return summary


def train_seeds(run: RunFolder, recipe: Recipe) -> StageSummary:
    """Train as ``train_adapter`` does on the same records from further seeds, each in a folder of its own."""
    records, group = _read_records(run, recipe), processes()
    summary = StageSummary(num_in=0, num_out=0)
    for number, folder in enumerate(further_adapters(recipe.training.seeds).values(), 1):
        own = RunFolder(run.file(folder).parent)
        if group.is_first:
            console.line(f"  seed {recipe.seed + number}")
            _write_records(own, recipe, records)
        group.wait()
        summary = train_adapter(own, recipe.model_copy(update={"seed": recipe.seed + number}))
        if group.is_first:
            own.note(RunFile.METRICS, RunFile.CHECKPOINTS)
    return summary
