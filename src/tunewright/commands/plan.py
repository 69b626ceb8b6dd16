"""The plan of a run: calls, tokens, memory and time per stage; what is fresh."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tunewright import console, pipeline
from tunewright.commands.json_documents import PlanDocument, PlannedKey, PlannedMemory, PlannedStage
from tunewright.commands.plan_answers import answers_seconds, exam_lengths
from tunewright.commands.plan_sizes import CHUNKS_PER_DOCUMENT, Sizes, base_folder, count_sizes, questions_by_document
from tunewright.evaluation.judge import PREFERENCES
from tunewright.models.base_contents import require_base
from tunewright.models.hardware import Shape, cpu_share, free_bytes, measured_cpu_flops
from tunewright.models.memory_plan import Choice, MemoryEstimate, choose, describe_choice, predict_memory, require_room
from tunewright.models.source import read_config
from tunewright.models.student import with_stored_quantization
from tunewright.recipe import Recipe
from tunewright.run_folder import RunFile, RunFolder
from tunewright.settings import ANSWERING, EMBEDDED, Arm
from tunewright.statistics.power import exam_power
from tunewright.synthesis.exam import CALLS_PER_QUESTION
from tunewright.synthesis.sentence_questions import SPARE_VIEWS
from tunewright.synthesis.tasks import tasks_of
from tunewright.teacher.journal import Spending
from tunewright.teacher.keys import recipe_keys
from tunewright.training.dataset import num_held_out
from tunewright.training.packing import num_steps

# Stated guesses, replaced by what this run's journal and metrics measured as soon as there is something.
_SECONDS_PER_CALL = {True: 0.6, False: 2.0}  # embedded teacher on two cores; one call to a server
_TOKENS_PER_CALL = (130, 30)  # prompt, written
_SENTENCES_PER_CHUNK = 5  # that hold a fact, before the documents are read
_SECONDS_PER_ANSWER = {"cpu": 0.5, "cuda": 0.1}  # of the student, for preference pairs
_TIMES = {1: "once", 2: "twice", 4: "four times"}
_LEVELS = tuple(_TIMES)  # of coverage, whose price the plan shows
_KEY_STATES = {
    "not allowed yet": "not allowed yet: run asks in a terminal, or takes --allow-key NAME@ORIGIN",
    "never": "refused: the key of another service",
}
# Of one processor, from trainings of the embedded model on 2,120 and 15,981 tokens, in bf16 on an NF4 base.
_S_PER_TRAINED = 157e-9  # of a token and a channel of a layer: norms, attention, activations, quantized weights
_S_PER_LOADED = 1e-7  # of a weight: read, quantized, and two steps that prove the plan
_GPU_FLOPS = 2.5e14  # sustained, one large GPU


def show_plan(recipe: Recipe, folder: Path) -> None:
    """Print a line per stage, and the peak memory of training."""
    recipe = _with_sound_base(recipe)
    run, shape = RunFolder(folder), _shape(recipe)
    sizes = count_sizes(recipe, run)
    works = _stage_works(recipe, run, sizes, shape)
    rows = [
        (state.stage.name, state.state, work, console.rough_duration(seconds), state.why)
        for state, work, seconds in works
    ]
    rows.append(("all", "", "", console.rough_duration(sum(seconds for _, _, seconds in works)), ""))
    console.table(f"plan for {folder}", ("stage", "state", "work", "about", "why"), rows)
    for use in recipe_keys(recipe):
        console.line(f"key of the {use.section}: {use.name} → {use.origin} ({_KEY_STATES.get(use.state, use.state)})")
    for line in (*_memory(recipe, shape), *_notes(recipe, run, sizes)):
        console.line(line)


def plan_document(recipe: Recipe, folder: Path, prove: bool = False) -> PlanDocument:
    """Return the plan for programs; with ``prove``, by real steps too."""
    recipe = _with_sound_base(recipe)
    run, shape = RunFolder(folder), _shape(recipe)
    sizes = count_sizes(recipe, run)
    works = _stage_works(recipe, run, sizes, shape)
    return PlanDocument(
        folder=str(folder),
        stages=tuple(
            PlannedStage(
                stage=state.stage.name,
                state=state.state,
                why=state.why,
                work=work,
                seconds=None if math.isnan(seconds) else seconds,
                calls=call_range(state.stage.name, recipe, sizes),
            )
            for state, work, seconds in works
        ),
        seconds=None if any(math.isnan(seconds) for _, _, seconds in works) else sum(row[2] for row in works),
        keys=tuple(
            PlannedKey(section=use.section, name=use.name, origin=use.origin, state=use.state)
            for use in recipe_keys(recipe)
        ),
        memory=_memory_document(recipe, shape) if shape else None,
        notes=tuple(_notes(recipe, run, sizes)),
        proven=prove_plan(recipe, folder) if prove else None,
    )


def _with_sound_base(recipe: Recipe) -> Recipe:
    """Return the recipe with its base's own quantization; a base that cannot be trained is an error of the plan."""
    recipe = with_stored_quantization(recipe)
    require_base(recipe, fetch=False)
    return recipe


def _stage_works(
    recipe: Recipe, run: RunFolder, sizes: Sizes, shape: Shape | None
) -> list[tuple[pipeline.StageState, str, float]]:
    """Return each stage's state, what it will do, and about how many seconds that takes."""
    works = []
    for state in pipeline.states(run, recipe):
        work, seconds = stage_work(state.stage.name, recipe, run, sizes, shape)
        works.append((state, "nothing: fresh", 0.0) if state.state == "fresh" else (state, work, seconds))
    return works


def _notes(recipe: Recipe, run: RunFolder, sizes: Sizes) -> Iterator[str]:
    yield from _coverage_levels(recipe, run, sizes)
    yield from provable_effect(recipe, run, sizes)
    yield from _without_placebo(recipe, run, sizes)


def _coverage_levels(recipe: Recipe, run: RunFolder, sizes: Sizes) -> Iterator[str]:
    """Yield what each level of coverage would cost, where the sentences are counted and some task asks about them."""
    asking = {"answer-first", "passage-qa"} & set(tasks_of(recipe))
    if not asking or not sizes.num_sentences:
        return
    for level in _LEVELS:
        synthesis = recipe.synthesis.model_copy(update={"coverage": level})
        work, seconds = stage_work("synth", recipe.model_copy(update={"synthesis": synthesis}), run, sizes, None)
        current = ", as in the recipe" if level == recipe.synthesis.coverage else ""
        yield (
            f"coverage {level}{current}: each of {sizes.num_sentences:,} sentences with a fact is asked about "
            f"{_TIMES[level]}: {work}, at most {console.rough_duration(seconds)}"
        )


def _without_placebo(recipe: Recipe, run: RunFolder, sizes: Sizes) -> Iterator[str]:
    """Yield what the placebo arm would cost where it is not asked for and could run."""
    if Arm.PLACEBO in recipe.evaluation.arms or not recipe.needs_samples or recipe.training.text_share:
        return
    seconds = stage_work("train", recipe, run, sizes, _shape(recipe))[1]
    yield (
        "without the placebo arm, the verdict does not tell knowledge from form; it would cost one more training, "
        f'about {console.rough_duration(seconds)}, and one more arm: add "placebo" to evaluation.arms'
    )


def stand_ins(number: int, num_tokens: int) -> list[Any]:
    """Return that many examples of that many tokens, all of them supervised."""
    from tunewright.models.chat_template import Encoded
    from tunewright.training.packing import Example

    ids = [1 + index % 97 for index in range(num_tokens)]
    return [Example(f"{index:06d}", (Encoded(ids, ids, ends_supervised=True),)) for index in range(number)]


def _shape(recipe: Recipe) -> Shape | None:
    """Return the base model's shape where it is at hand; a plan fetches nothing but the embedded one's config."""
    folder = base_folder(recipe)
    try:
        return Shape.of(read_config(folder)) if folder is not None else None
    except (KeyError, TypeError, ValueError):
        return None


def stage_work(stage: str, recipe: Recipe, run: RunFolder, sizes: Sizes, shape: Shape | None) -> tuple[str, float]:
    """Return (what a stage does, about how many seconds it takes: not a number where the base is not at hand)."""
    least, most = call_range(stage, recipe, sizes)
    if most:
        return teacher_work(stage, recipe, run, least, most)
    if stage in ("train", "placebo", "seeds") and shape:
        work, seconds = training_work(recipe, sizes, shape)
        times = recipe.training.seeds - 1 if stage == "seeds" else 1
        return work + (f", {times} times" if stage == "seeds" else ""), times * seconds
    if stage in ("train", "placebo", "seeds"):
        return f"{sizes.num_samples} samples; time {_known_later(recipe)}", math.nan
    if stage == "evaluate":
        return evaluation_work(recipe, run, sizes, shape)
    if stage == "pairs":
        made = sizes.num_pairs - sizes.num_own_pairs
        parts = (f"{sizes.num_own_pairs:,} of your own", f"at most {made:,} made of the samples")
        answers = bool({"student", "best-of-n"} & set(recipe.preference.make)) * recipe.preference.samples
        own, more = parts if sizes.num_own_pairs else ("", parts[1])
        work = " and ".join(filter(None, (own, more if made else "")))
        return work, 2.0 + answers * sizes.num_samples * _SECONDS_PER_ANSWER[_device()]
    return "", 2.0


def training_work(recipe: Recipe, sizes: Sizes, shape: Shape) -> tuple[str, float]:
    """Return what a training takes: samples, raw text and preference pairs, and about how many seconds."""
    settings, works, operations, num_tokens = recipe.training, list[str](), 0.0, 0
    samples = sizes.num_samples if settings.text_share < 1 else 0
    if settings.epochs and (samples or not settings.text_share):
        trained = samples - num_held_out(samples, settings.held_out_share)
        steps = num_steps(trained, settings.batch_size, settings.epochs)
        tokens = round(sizes.num_tokens * trained / max(1, samples)) * settings.epochs
        read = (recipe.teacher_passage_tokens + sizes.num_tokens / max(1, samples)) if recipe.distills else 0
        teacher = read * trained * settings.epochs / max(1, tokens)  # tokens that it reads per trained token
        operations += shape.flops_per_token(settings.method == "full", False, teacher) * tokens
        num_tokens += tokens
        works.append(f"{trained:,} samples, {steps} steps, {tokens:,} tokens")
        if teacher:
            works.append(f"{teacher * tokens:,.0f} read by its teacher")
    if settings.epochs and settings.text_share:
        room = sizes.num_tokens * settings.text_share / (1 - settings.text_share) if samples else math.inf
        tokens = round(min(sizes.num_text_tokens, room)) * settings.epochs
        operations += shape.flops_per_token(settings.method == "full", False, 0) * tokens
        num_tokens += tokens
        works.append(f"{tokens:,} tokens of raw text")
    if sizes.num_pairs:  # the reference reads each token once
        tokens = sizes.num_pair_tokens * recipe.preference.epochs
        operations += shape.flops_per_token(settings.method == "full", False, 1) * tokens
        num_tokens += tokens
        works.append(f"{sizes.num_pairs:,} pairs, {tokens:,} tokens")
    return ", ".join(works), _training_seconds(recipe, shape, operations, num_tokens)


def evaluation_work(recipe: Recipe, run: RunFolder, sizes: Sizes, shape: Shape | None) -> tuple[str, float]:
    """Return what the evaluation takes: answers to the exam and to the retention suite, and about how many seconds."""
    items = 2 * recipe.exam.retention_items
    arms = dict.fromkeys(map(str, _arms(recipe)), sizes.num_questions)
    # Other adapters, of other seeds and runs, answer as tuned does.
    arms[Arm.TUNED] = arms.get(Arm.TUNED, 0) + sizes.num_questions * (
        len(recipe.evaluation.compare) + recipe.training.seeds - 1
    )
    work = f"{sum(arms.values()):,} answers" + (f", {items:,} of general ability" if items else "")
    if shape is None:
        return work, math.nan
    flops, processors = (0.0, 1.0) if _device() == "cuda" else _cpu_pace(recipe)
    return work, answers_seconds(recipe, arms, exam_lengths(recipe, run, sizes), shape, flops, processors)


def _arms(recipe: Recipe) -> list[Arm]:
    """Return the arms that can run: RAG and oracle need documents, worked examples need training chats."""
    without = set() if recipe.documents.paths else {Arm.RAG, Arm.TUNED_RAG, Arm.ORACLE}
    if not recipe.needs_samples:
        without |= {Arm.FEW_SHOT, Arm.SIMILAR_SHOT}
    return [arm for arm in recipe.evaluation.arms if arm not in without]


def _training_seconds(recipe: Recipe, shape: Shape, operations: float, num_tokens: int) -> float:
    """Return about how many seconds a training takes: by a stated guess for a GPU, by the measured pace of a CPU.

    On a CPU, what a layer does beside its matrix products takes longer than these where their pace is high, and the
    base is loaded and quantized first.
    """
    if _device() == "cuda":
        return operations / _GPU_FLOPS
    flops, processors = _cpu_pace(recipe)
    beside = num_tokens * shape.layers * shape.hidden * _S_PER_TRAINED
    weights = shape.block_weights + shape.vocabulary_weights
    return (operations / flops + beside + weights * _S_PER_LOADED) / processors


def _cpu_pace(recipe: Recipe) -> tuple[float, float]:
    """Return the operations per second of a processor, and how many processors this process gets."""
    from tunewright.models.loading import compute_dtype

    return measured_cpu_flops(compute_dtype("cpu", recipe.model.compute)), cpu_share()


def call_range(stage: str, recipe: Recipe, sizes: Sizes) -> tuple[int, int]:
    """Return (least, most) teacher calls of a stage, as if nothing were journaled.

    The exam asks for its free questions, and again for one that is no good, at most three times per question; also for
    those that rules find no value for. Curation asks twice per
    sample for its round trip and once for the judge, where the recipe wants them and the free rules left the sample.
    """
    if stage == "exam" and not recipe.exam.file:
        wanted = (
            sizes.num_train_documents * recipe.exam.learned_per_document
            + sizes.num_exam_documents * recipe.exam.unseen_per_document
        )
        kinds = recipe.exam.kinds
        most = CALLS_PER_QUESTION * wanted if "free" in kinds else 0
        return wanted * kinds.count("free") // len(kinds), most
    if stage == "synth":
        ranges = [_CALLS_OF_TASK[task](recipe, sizes) for task in tasks_of(recipe) if task in _CALLS_OF_TASK]
        return sum(least for least, _ in ranges), sum(most for _, most in ranges)
    if stage == "curate":
        per_sample = {"answerable": 2, "judge": 1}
        near = 3 * sizes.num_questions if recipe.curation.paraphrase_check else 0
        return 0, near + sizes.num_samples * sum(per_sample[check] for check in recipe.curation.checks)
    if stage == "judge":  # each answer's claims, and tuned against each rival in both orders
        arms = set(_arms(recipe))
        pairs = sum({first, second} <= arms for first, second in PREFERENCES)
        return 0, sizes.num_questions * (len(arms) + len(recipe.evaluation.compare) + 2 * pairs)
    return 0, 0


def _per_document(count: Callable[[Recipe], int]) -> Callable[[Recipe, Sizes], tuple[int, int]]:
    """Return the range of a task that asks at least once per training document, and at most so often."""
    return lambda recipe, sizes: (sizes.num_train_documents, sizes.num_train_documents * count(recipe))


def _dialogue_calls(recipe: Recipe, sizes: Sizes) -> tuple[int, int]:
    """One or two follow-ups a dialogue; none where nothing is answered."""
    answering = [task for task in recipe.synthesis.tasks if task in ANSWERING]
    answered = sizes.num_train_documents * recipe.synthesis.samples_per_document * len(answering)
    return 0, 2 * round(answered * recipe.synthesis.refusal_share)


def _sentence_calls(calls: int) -> Callable[[Recipe, Sizes], tuple[int, int]]:
    """Return the range of a task that asks about sentences, with this many calls per question and answer."""

    def count(recipe: Recipe, sizes: Sizes) -> tuple[int, int]:
        times = recipe.synthesis.coverage
        if not times:
            most = sizes.num_train_documents * recipe.synthesis.samples_per_document
            return sizes.num_train_documents, calls * most
        sentences = sizes.num_sentences or _SENTENCES_PER_CHUNK * (
            sizes.num_chunks or CHUNKS_PER_DOCUMENT * sizes.num_train_documents
        )
        return calls * sentences * times, calls * sentences * (times + SPARE_VIEWS)

    return count


# (least, most) calls by task; the tasks that are not named need none. A document has from one chunk to about eight.
_CALLS_OF_TASK: dict[str, Callable[[Recipe, Sizes], tuple[int, int]]] = {
    "answer-first": _sentence_calls(1),
    "passage-qa": _sentence_calls(2),
    "free-qa": _per_document(  # by quotas, each question may need a passage of its own
        lambda recipe: max(1, recipe.synthesis.samples_per_document // (1 if recipe.synthesis.quotas else 2))
    ),
    "dialogue": _dialogue_calls,
    "extraction": _per_document(lambda recipe: 1),
    "general": lambda recipe, sizes: (recipe.synthesis.general_samples, 2 * recipe.synthesis.general_samples),
    "view": lambda recipe, sizes: (
        sizes.num_train_documents * recipe.synthesis.views,
        (sizes.num_chunks or CHUNKS_PER_DOCUMENT * sizes.num_train_documents) * recipe.synthesis.views,
    ),
}


def teacher_work(stage: str, recipe: Recipe, run: RunFolder, least: int, most: int) -> tuple[str, float]:
    """Return the calls, tokens and money of a stage as a range, and the seconds of the most."""
    teacher = recipe.judge.as_teacher if stage == "judge" else recipe.writer
    entries = run.journal_entries(RunFile.TEACHER_JOURNAL)
    done = sum(entry.get("stage") == stage for entry in entries)
    low, high = max(0, least - done), most  # what is on record may be of other settings, and then counts for nothing
    prompt, written = (
        sum(entry[name] for entry in entries) / len(entries) if entries else guess
        for name, guess in zip(("num_prompt_tokens", "num_tokens"), _TOKENS_PER_CALL, strict=True)
    )
    took = [float(entry["seconds"]) for entry in entries if "seconds" in entry]
    embedded = teacher.url == EMBEDDED
    seconds = (sum(took) / len(took) if took else _SECONDS_PER_CALL[embedded]) / (
        1 if embedded else teacher.concurrency
    )
    work = f"{low:,}–{high:,} calls, {low * (prompt + written):,.0f}–{high * (prompt + written):,.0f} tokens"
    price = Spending(teacher).cost(round(prompt * high), round(written * high))
    if price:
        work += f", {_dollars(price * low / high)}–{_dollars(price)}"
        work += f" of a budget of {_dollars(teacher.budget)}" if teacher.budget else ""
    return work, high * seconds


def provable_effect(recipe: Recipe, run: RunFolder, sizes: Sizes) -> Iterator[str]:
    """Yield the smallest difference that the exam can prove, as far as it is known how many will be counts."""
    if (known := questions_by_document(recipe, run)) is not None:
        yield exam_power(known)
    else:
        learned = [recipe.exam.learned_per_document] * sizes.num_train_documents
        unseen = [2 * recipe.exam.unseen_per_document] * sizes.num_exam_documents
        held_out = [1] * sizes.num_held_out
        if counts := [size for size in learned + unseen + held_out if size]:
            yield exam_power(counts)


def _dollars(amount: float) -> str:
    return f"${amount:,.2f}" if amount >= 1 else f"${amount:.4f}"


def _known_later(recipe: Recipe) -> str:
    """Return when a figure will be known that the base's sizes give."""
    if base_folder(recipe) is None:
        return f"is known once {recipe.model.base} is fetched"
    return "is not predicted: config.json has no sizes of attention and MLP; --prove measures it"


def _memory(recipe: Recipe, shape: Shape | None) -> Iterator[str]:
    """Yield the predicted peak memory of training, term by term, and the micro-batch that goes with it."""
    if shape is None:
        yield f"memory {_known_later(recipe)}"
        return
    choice, memory, why_not = _predicted(recipe, shape)
    yield (
        f"memory of training: about {memory.total / 2**30:.1f} GiB at most = base {memory.base / 2**30:.1f} + trained "
        f"weights {memory.trained / 2**30:.1f} + activations {memory.activations / 2**30:.1f} + logits "
        f"{memory.logits / 2**30:.1f} + driver"
    )
    yield f"  {describe_choice(choice, shape.layers)}: {choice.why}"
    yield f"  the plain path: {why_not}" if why_not else "  the fast path"
    yield "  exact after real steps: tunewright plan RECIPE --prove"


def _predicted(recipe: Recipe, shape: Shape) -> tuple[Choice, MemoryEstimate, str]:
    """Return how a step would be computed here, its memory, and why not on the fast path ("" where it is)."""
    import torch

    from tunewright.training.compute_path import plain_path_reason

    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    why_not = plain_path_reason(recipe)
    if device != "cpu" and not recipe.model.sharded:
        require_room(recipe, shape, free_bytes(device))
    choice = choose(recipe, shape, free_bytes(device), not why_not, device != "cpu")
    return choice, predict_memory(recipe, shape, choice, not why_not), why_not


def _memory_document(recipe: Recipe, shape: Shape) -> PlannedMemory:
    choice, memory, why_not = _predicted(recipe, shape)
    return PlannedMemory(
        total=memory.total,
        base=memory.base,
        trained=memory.trained,
        activations=memory.activations,
        logits=memory.logits,
        capacity=f"{describe_choice(choice, shape.layers)}: {choice.why}",
        path="plain" if why_not else "fast",
        why_plain=why_not,
    )


def prove_plan(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Load the model and take real steps on the longest rows; print and return the memory and time that follow.

    Before there is a training set, a row of samples of ``training.max_tokens`` stands for it.
    """
    from tunewright.models.student import student_tokenizer
    from tunewright.training.loop import TrainingTask
    from tunewright.training.packing import Example
    from tunewright.training.profiling import first_capacity, prove
    from tunewright.training.stage import objective_of, read_training_data, start_session

    run, recipe = RunFolder(folder), with_stored_quantization(recipe).with_absolute_paths()
    require_base(recipe)
    tokenizer = student_tokenizer(recipe)
    examples: list[Example] = read_training_data(run, recipe, tokenizer).examples
    if not examples:
        sizes = count_sizes(recipe, run)
        console.line("there is no training set yet: samples of training.max_tokens stand for it")
        rows = -(-sizes.num_text_tokens // recipe.training.max_tokens)
        examples = stand_ins(max(1, sizes.num_samples, rows), recipe.training.max_tokens)
    session = start_session(run, recipe, tokenizer)
    settings = session.settings(recipe.training.learning_rate, max(1, recipe.training.epochs))
    capacity, why = first_capacity(recipe, session.path, session.device, session.compute)
    _, plan = prove(session.path, TrainingTask(examples, objective_of(recipe)), settings, capacity, why, recipe)
    if plan.planned_bytes:
        console.line(f"  predicted from the shapes alone: {plan.predicted_bytes / 2**30:.1f} GiB")
    return plan.as_dict()


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
