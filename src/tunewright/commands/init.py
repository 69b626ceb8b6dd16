"""A recipe fitted to the documents or chats and to this machine; and the recipes of the demos."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tunewright import console
from tunewright.curation.chat_formats import is_chat_file, read_own_data
from tunewright.documents.stage import source_files
from tunewright.environment import __version__
from tunewright.errors import DocumentError, command, is_text, regular
from tunewright.models.data_sources import PARQUET, chat_paths, is_hub
from tunewright.models.hardware import Shape
from tunewright.models.memory_plan import SPARE, Choice, predict_memory
from tunewright.recipe import Recipe, at_home, dump_recipe
from tunewright.settings import (
    EMBEDDED,
    RULE_KINDS,
    SELF,
    Arm,
    DocumentSettings,
    EvaluationSettings,
    ExamSettings,
    ModelSettings,
    RetrievalSettings,
    SynthesisSettings,
    TeacherSettings,
    TrainingSettings,
)
from tunewright.statistics.power import LEAST_DOCUMENTS
from tunewright.storage import write_output
from tunewright.text.encoding import decode_text
from tunewright.text.languages import ENGLISH, LANGUAGES, main_language

_BYTES_PER_SAMPLE = 200  # of source text: about one fact in two sentences
_WANTED_QUESTIONS = 60  # per ring: enough to see a difference of about a quarter
_ANSWER_TOKENS = 128
_FEW_DOCUMENTS = 20
_LEAST_TEACHER = 3e9  # weights of a base that is its own teacher
_LEAST_HELD_OUT, _MOST_HELD_OUT, _LARGEST_SHARE = 30, 200, 0.5  # chats for the exam; of all chats
_FEW_STEPS = 60
_CHARACTERS_PER_TOKEN = 3  # of an answer; fewer than average, so that answers fit
_FOR_ALL = ("model.base", "training.learning_rate", "training.batch_size", "evaluation.max_new_tokens")


def triage_demo() -> Recipe:
    """Return the recipe of ``tunewright demo``: labeled incident reports to JSON, five minutes on two CPU cores."""
    from tunewright.examples import FOLDER, TRIAGE_PROMPT

    return Recipe(
        system_prompt=TRIAGE_PROMPT,
        exam=ExamSettings(file=str(FOLDER / "triage.exam.jsonl"), retention_items=24),
        synthesis=SynthesisSettings(data=(str(FOLDER / "triage.train.jsonl"),)),
        training=TrainingSettings(
            epochs=3, batch_size=4, learning_rate=1e-3, held_out_share=0.0, max_tokens=512, checkpoint_steps=10
        ),
        evaluation=EvaluationSettings(max_new_tokens=96),
    )


def papers_demo() -> Recipe:
    """Return the recipe of ``tunewright demo papers``: 24 abstracts, written exam and samples."""
    from tunewright.examples import abstracts_folder

    return Recipe(
        documents=DocumentSettings(paths=(str(abstracts_folder()),), chunk_tokens=128),
        exam=ExamSettings(kinds=RULE_KINDS, learned_per_document=2, unseen_per_document=3, retention_items=100),
        synthesis=SynthesisSettings(samples_per_document=5, refusal_share=0.1),
        training=TrainingSettings(epochs=4, batch_size=8, learning_rate=7e-4, checkpoint_steps=10),
        retrieval=RetrievalSettings(passages=1),
        evaluation=EvaluationSettings(few_shot=2, max_new_tokens=_ANSWER_TOKENS),
    )


# What people change first, beside what was decided for them.
_OFTEN_CHANGED = ("documents.paths", "teacher.url", "teacher.model", "teacher.api_key_env", "synthesis.tasks")


_LANGUAGE_FILES, _LANGUAGE_BYTES = 20, 8000  # that tell the documents' language
_CHATS_OFTEN_CHANGED = ("synthesis.data", "exam.file", "evaluation.few_shot", "training.epochs")


def write_recipe(
    documents: Sequence[Path], output: Path, force: bool, full: bool = False, exam: Path | None = None
) -> None:
    """Write an annotated recipe for these documents and chats; ``full`` writes every setting.

    Args:
        documents: files, folders and names of the hub's data sets; those of chats become synthesis.data.
        output: where to write it.
        force: replace an existing file.
        full: write every setting.
        exam: the user's own exam, instead of one that is written or held out.

    Raises:
        RecipeError: the file exists and ``force`` is not given, or it cannot be written.
        DocumentError: no documents or chats at these paths.
    """
    named = [*documents, exam] if exam else documents
    if missing := [str(path) for path in named if not is_hub(str(path)) and not at_home(path).exists()]:
        is_web = missing[0].startswith(("http:/", "https:/"))
        hint = 'list URLs in the recipe: documents.paths = ["https://..."]' if is_web else ""
        raise DocumentError(f"{missing[0]} does not exist", "", hint or "name documents, or a folder with documents")
    folder = output.parent.absolute()
    texts, chats = _texts_and_chats([at_home(path) for path in documents])
    draft = Recipe(
        documents=DocumentSettings(paths=tuple(_relative(path, folder) for path in texts)),
        synthesis=SynthesisSettings(data=tuple(_relative(path, folder) for path in chats)),
        exam=ExamSettings(file=_relative(exam, folder) if exam else ""),
        folder=folder,
    )
    files = source_files(draft) if texts else []
    if not files and not chats:
        raise DocumentError(
            "no documents found", ", ".join(map(str, documents)), "name documents, or a folder with documents"
        )
    recipe, notes = _fit(draft, len(files), sum(path.stat().st_size for _, path in files if path.is_file()))
    often = set(_OFTEN_CHANGED) if files else set()
    what = [f"{len(files)} file(s)"] if files else []
    if (code := _documents_language([path for _, path in files])) != ENGLISH.code:
        recipe, spoken = _in_language(recipe, code)
        notes |= spoken
    if chats:
        recipe, more, num_chats = _fit_chats(recipe)
        notes = notes | more if files else {key: notes[key] for key in notes if key in _FOR_ALL} | more
        often |= set(_CHATS_OFTEN_CHANGED)
        what.append(f"{num_chats} chats")
    if exam:
        notes["exam.file"] = "your own exam"
    header = (
        f"# A recipe of tunewright {__version__} for {' and '.join(what)}. All settings: init --full.\n"
        f"# See what it will do:  {command('plan', output)}\n"
        f"# Run it:               {command('run', output)}\n"
    )
    text = dump_recipe(recipe, notes) if full else dump_recipe(recipe, notes, {*notes, *often})
    write_output(output, header + text, force)
    _report(output, what, notes, len(files), num_chats if chats and not files and not exam else 0)


def _report(output: Path, what: Sequence[str], notes: Mapping[str, str], num_files: int, num_chats: int) -> None:
    """Print what was decided and why, and what to type next."""
    console.line(f"wrote {output} for {' and '.join(what)}")
    for key, note in notes.items():
        console.line(f"  {key}: {note}")
    if 0 < num_files < _FEW_DOCUMENTS:
        console.warning(
            f"{num_files} file(s): with fewer than about {_FEW_DOCUMENTS} documents an exam can hardly prove "
            f"anything, and with fewer than {LEAST_DOCUMENTS} it gives no verdict"
        )
    if 0 < num_chats < 2 * _LEAST_HELD_OUT:
        console.warning(
            f"{num_chats} chat(s): with fewer than about {2 * _LEAST_HELD_OUT}, half of them held out, an exam can "
            f"hardly prove anything, and with fewer than {2 * LEAST_DOCUMENTS} it gives no verdict"
        )
    console.line(f"next: {command('plan', output)}")
    console.line(f"then: {command('preview', output)}  (what a fine-tune can bring at most, in minutes)")


def _documents_language(paths: Sequence[Path]) -> str:
    """Return the code of the language of the text files among the documents; English where there are none."""
    texts = [path for path in paths if path.suffix.lower() in (".md", ".txt")][:_LANGUAGE_FILES]
    return main_language(decode_text(content) for content in map(_beginning, texts) if content)


def _beginning(path: Path) -> bytes:
    """Return the first bytes of a file; none of one that cannot be read, which ingest counts with its reason."""
    try:
        with regular(path).open("rb") as file:
            return file.read(_LANGUAGE_BYTES)
    except OSError:
        return b""


def _in_language(recipe: Recipe, code: str) -> tuple[Recipe, dict[str, str]]:
    """Return the recipe with the system prompt and the refusal of this language, and why."""
    language = LANGUAGES.get(code)
    if language is None:
        reason = f"the documents' language ({code}) is none that tunewright speaks: write it in that language"
        return recipe, {"system_prompt": reason, "refusal": reason}
    reason = f"in the documents' language, {language.name}"
    spoken = {"system_prompt": language.system_prompt, "refusal": language.refusal}
    if recipe.teacher.url == EMBEDDED:
        console.warning(
            f"the embedded teacher writes English only: on documents in {language.name}, rules write the exam and the "
            "samples; a stronger teacher (teacher.url) writes them in that language"
        )
    return recipe.model_copy(update=spoken), dict.fromkeys(spoken, reason)


def _texts_and_chats(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Return the files and folders of documents, and those of chats; a folder that holds both is listed by file."""
    texts: list[Path] = []
    chats: list[Path] = []
    for path in paths:
        if is_hub(str(path)) or path.suffix.lower() == PARQUET:  # no documents: what is no chat is counted
            chats.append(path)
            continue
        if path.is_file():
            (chats if is_chat_file(path) else texts).append(path)
            continue
        files = [file for _, file in source_files(Recipe(documents=DocumentSettings(paths=(str(path.absolute()),))))]
        of_chats = [file for file in files if file.suffix.lower() == PARQUET or is_chat_file(file)]
        if not of_chats:
            texts.append(path)
        elif len(of_chats) == len(files):
            chats.append(path)
        else:
            chats += of_chats
            texts += [file for file in files if file not in of_chats]
    return texts, chats


def _relative(path: Path, folder: Path) -> str:
    if is_hub(str(path)):
        return str(path)
    absolute = at_home(path).absolute()
    if not is_text(str(absolute)):
        raise DocumentError(f"a recipe cannot name {absolute}", "that name is not UTF-8", "rename it")
    return str(absolute.relative_to(folder)) if absolute.is_relative_to(folder) else str(absolute)


def _fit(draft: Recipe, num_files: int, num_bytes: int) -> tuple[Recipe, dict[str, str]]:
    """Return the recipe with the derived values, and the reason of each."""
    notes: dict[str, str] = {}
    samples = max(4, min(40, num_bytes // max(1, num_files) // _BYTES_PER_SAMPLE))
    notes["synthesis.samples_per_document"] = f"one per {_BYTES_PER_SAMPLE} bytes of an average file"
    held_out = max(1, round(num_files * draft.split.exam_share))
    unseen = max(2, min(8, -(-_WANTED_QUESTIONS // held_out)))
    learned = max(1, min(4, -(-_WANTED_QUESTIONS // max(1, num_files - held_out))))
    notes["exam.unseen_per_document"] = f"about {_WANTED_QUESTIONS} questions over {held_out} held-out document(s)"
    notes["exam.learned_per_document"] = f"about {_WANTED_QUESTIONS} questions over {num_files - held_out} document(s)"
    model, training, teacher, tasks = draft.model, draft.training, draft.teacher, draft.synthesis.tasks
    evaluation = EvaluationSettings(max_new_tokens=_ANSWER_TOKENS)
    memory_gib = _gpu_memory_gib()
    fitting = bases_that_fit(memory_gib)
    free = [base for base in fitting if not base.is_gated]
    if free:
        model = ModelSettings(base=free[0].name)
        training = TrainingSettings()
        shown = "; ".join(base.in_words() for base in fitting[:_SHOWN])
        notes["model.base"] = (
            f"the largest that a GPU with {memory_gib:.0f} GiB trains and that is not gated, of those that fit "
            f"(as of {_AS_OF}): {shown}; any hub name or folder will do"
        )
        evaluation = EvaluationSettings(max_new_tokens=_ANSWER_TOKENS, arms=(*evaluation.arms, Arm.PLACEBO))
        notes["evaluation.arms"] = "all; placebo costs one more training, and tells knowledge from form"
    else:
        training = TrainingSettings(batch_size=8, learning_rate=5e-4)
        smallest = "; ".join(base.in_words() for base in sorted(KNOWN_BASES, key=lambda base: base.gib)[:_SHOWN])
        notes["model.base"] = (
            f"no GPU here that trains a larger one: the embedded 135M model; on one (as of {_AS_OF}): {smallest}"
        )
        notes["training.learning_rate"] = "small models need a higher one"
        notes["training.batch_size"] = "small data sets gain from more steps"
    if free and free[0].shape.block_weights + free[0].shape.vocabulary_weights >= _LEAST_TEACHER:
        teacher, tasks = TeacherSettings(url=SELF), ("passage-qa", "refusal")
        notes["teacher.url"] = (
            "the base writes questions and, with the passage, answers: nothing leaves this machine; a stronger model "
            "at an OpenAI-compatible URL writes better data"
        )
        notes["synthesis.tasks"] = "the base is its own teacher: it answers each question with its passage in view"
    else:
        notes["teacher.url"] = (
            "the embedded teacher is small; a stronger one at an OpenAI-compatible URL writes better data"
        )
        notes["exam.kinds"] = "rules write sounder questions than the embedded teacher; with a stronger one, add free"
    kinds = RULE_KINDS if teacher.url == EMBEDDED else draft.exam.kinds
    notes["evaluation.max_new_tokens"] = "a verdict needs whole answers; raise it where the report counts cut ones"
    fitted = draft.model_copy(
        update={
            "exam": ExamSettings(
                file=draft.exam.file, kinds=kinds, learned_per_document=learned, unseen_per_document=unseen
            ),
            "synthesis": SynthesisSettings(samples_per_document=samples, data=draft.synthesis.data, tasks=tasks),
            "teacher": teacher,
            "model": model,
            "training": training,
            "evaluation": evaluation,
        }
    )
    return fitted, notes


def _fit_chats(draft: Recipe) -> tuple[Recipe, dict[str, str], int]:
    """Return the recipe with the values that follow from the chats, the reason of each, and the number of chats."""
    samples, malformed = read_own_data(chat_paths(draft))
    notes = {"synthesis.data": f"{len(samples)} chats, recognized by their format"}
    if malformed:
        notes["synthesis.data"] += f"; {len(malformed)} rows are no chats"
    update: dict[str, object] = {}
    exam, training, evaluation = draft.exam, draft.training, draft.evaluation
    if not draft.documents.paths:
        systems = {sample.messages[0].content if sample.messages[0].role == "system" else "" for sample in samples}
        update["system_prompt"] = systems.pop() if len(systems) == 1 else ""
        notes["system_prompt"] = (
            "the system turn of all chats"
            if update["system_prompt"]
            else ("the chats have different system turns" if systems else "the chats have no system turn")
        )
        if not exam.file:
            share = min(_LARGEST_SHARE, max(_LEAST_HELD_OUT, min(_MOST_HELD_OUT, len(samples) / 4)) / len(samples))
            exam = exam.model_copy(update={"held_out_share": float(f"{share:.2g}")})
            notes["exam.held_out_share"] = (
                f"about {round(share * len(samples))} of the chats are the exam and are not trained on; "
                "or bring an exam: init --exam FILE"
            )
        evaluation = evaluation.model_copy(update={"use": "task"})
        notes["evaluation.use"] = "chats teach a task: the verdict compares tuning with prompts and examples"
        steps = len(samples) * training.epochs / training.batch_size
        if steps < _FEW_STEPS:
            training = training.model_copy(update={"epochs": min(6, round(training.epochs * _FEW_STEPS / steps))})
            notes["training.epochs"] = "few samples need more passes"
        longest = max(len(sample.answer) for sample in samples) // _CHARACTERS_PER_TOKEN
        tokens = min(2048, max(32, -(-longest // 32) * 32))
        evaluation = evaluation.model_copy(update={"max_new_tokens": tokens})
        notes["evaluation.max_new_tokens"] = "room for the longest answer of the chats"
    longest = max(sum(len(m.content) for m in sample.messages) for sample in samples) // _CHARACTERS_PER_TOKEN
    if longest > training.max_tokens:
        training = training.model_copy(update={"max_tokens": min(8192, -(-longest // 1024) * 1024)})
        notes["training.max_tokens"] = "room for the longest chat"
    update |= {"exam": exam, "training": training, "evaluation": evaluation}
    return draft.model_copy(update=update), notes, len(samples)


def _gpu_memory_gib() -> float:
    import torch

    return torch.cuda.get_device_properties(0).total_memory / 2**30 if torch.cuda.is_available() else 0.0


@dataclass(frozen=True)
class KnownBase:
    """A base that ``init`` proposes.

    Attributes:
        name: on the hub.
        config: the sizes in its config.json, as far as a plan needs them.
        license: as its model card states it.
        is_gated: whether its license has to be accepted on the hub first.
    """

    name: str
    config: Mapping[str, Any]
    license: str
    is_gated: bool = False

    @cached_property
    def shape(self) -> Shape:
        """Its sizes."""
        return Shape.of(self.config)

    @cached_property
    def gib(self) -> float:
        """The memory of its training with a recipe's defaults and the smallest rows, by the plan's formula."""
        recipe = Recipe()
        return predict_memory(recipe, self.shape, Choice(recipe.training.max_tokens, 0), fast=True).total / 2**30

    def in_words(self) -> str:
        """Return name, size, memory and license."""
        billions = (self.shape.block_weights + self.shape.vocabulary_weights) / 1e9
        gated = ", gated" if self.is_gated else ""
        return f"{self.name} ({billions:.1f}B, {self.gib:.0f} GiB, {self.license}{gated})"


def bases_that_fit(memory_gib: float) -> list[KnownBase]:
    """Return the known bases whose training a GPU with this memory holds, the largest first."""
    room = memory_gib * (1 - SPARE)
    return sorted((base for base in KNOWN_BASES if base.gib <= room), key=lambda base: -base.shape.block_weights)


def _known(name: str, kind: str, license: str, sizes: str, tied: bool = True, is_gated: bool = False) -> KnownBase:
    """Return a row of the table; ``sizes``: hidden, intermediate, layers, heads, key heads, head size, vocabulary."""
    config = dict(zip(_SIZES, map(int, sizes.split()), strict=True))
    return KnownBase(name, {"model_type": kind, **config, "tie_word_embeddings": tied}, license, is_gated)


_SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
)
_SHOWN = 3
_AS_OF = "2026-11"
# Instruction-tuned bases of the fast path. Above 15B, an epoch takes hours on one GPU: name such a base yourself.
KNOWN_BASES = (
    _known("Qwen/Qwen3-14B", "qwen3", "Apache-2.0", "5120 17408 40 40 8 128 151936", tied=False),
    _known("Qwen/Qwen3-8B", "qwen3", "Apache-2.0", "4096 12288 36 32 8 128 151936", tied=False),
    _known("Qwen/Qwen3-4B-Instruct-2507", "qwen3", "Apache-2.0", "2560 9728 36 32 8 128 151936"),
    _known("Qwen/Qwen3-1.7B", "qwen3", "Apache-2.0", "2048 6144 28 16 8 128 151936"),
    _known("ibm-granite/granite-4.1-8b", "granite", "Apache-2.0", "4096 12800 40 32 8 128 100352"),
    _known("ibm-granite/granite-4.1-3b", "granite", "Apache-2.0", "2560 8192 40 40 8 64 100352"),
    _known("HuggingFaceTB/SmolLM3-3B", "smollm3", "Apache-2.0", "2048 11008 36 16 4 128 128256"),
    _known("google/gemma-3-12b-it", "gemma3_text", "Gemma terms", "3840 15360 48 16 8 256 262208", is_gated=True),
    _known(
        "meta-llama/Llama-3.1-8B-Instruct",
        "llama",
        "Llama 3.1 license",
        "4096 14336 32 32 8 128 128256",
        tied=False,
        is_gated=True,
    ),
)

# The demos by name; each has a run folder of its own.
DEMOS: dict[str, Callable[[], Recipe]] = {"triage": triage_demo, "papers": papers_demo}
