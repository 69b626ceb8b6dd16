"""Every setting with its type, range, default and help, in the sections of a recipe."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from tunewright.console import is_key, url_secret

Task = Literal["answer-first", "passage-qa", "free-qa", "refusal", "unanswerable", "premise", "dialogue", "extraction"]
ANSWERING = ("answer-first", "passage-qa", "free-qa")  # what they write, the next four build on
BUILDING = ("refusal", "unanswerable", "premise", "dialogue")
Kind = Literal["factual", "numeric", "comparative", "methodological", "limitation", "multi-hop"]
TeacherCheck = Literal["answerable", "judge"]
Make = Literal["edits", "student", "best-of-n"]
Optimizer = Literal["adamw", "adamw-8bit", "paged-adamw-8bit"]
WrittenKind = Literal["free", "short", "choice"]
RULE_KINDS: tuple[WrittenKind, ...] = ("short", "choice")  # that rules write, without a teacher
Share = Annotated[float, Field(ge=0, le=1)]
Dollars = Annotated[float, Field(ge=0)]
Price = tuple[Dollars, Dollars]

# Marks of settings that hold paths: always a path, or a folder where there is one and else a name.
PATH = "path"
PATH_OR_NAME = "path or name"
PathText = Annotated[str, PATH]
ModelName = Annotated[str, PATH_OR_NAME]

_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
HUB = "hub:"  # the start of the name of a data set of the hub
EMBEDDED = "embedded"
LOCAL = "local"
SELF = "self"  # the recipe's base, as a local teacher
SYSTEM_PROMPT = (
    "You answer questions about a collection of documents. If the documents do not give the answer, "
    "say that they do not."
)
REFUSAL = "The documents do not give the answer to this question."


class Arm(StrEnum):
    """Who answers the exam."""

    BASE = "base"
    FEW_SHOT = "few-shot"
    SIMILAR_SHOT = "similar-shot"  # few-shot with the training samples most similar to the question
    RAG = "rag"
    ORACLE = "oracle"  # base with the passage that holds the answer: the most that retrieval could bring
    TUNED = "tuned"
    TUNED_RAG = "tuned+rag"
    MAJORITY = "majority"  # the most frequent labels as every answer: computed where there are labels
    PLACEBO = "placebo"  # an adapter trained by the same recipe on shuffled answers


_INSTEAD = 'write api_key_env = "TEACHER_API_KEY", and: export TEACHER_API_KEY=...'


def _texts(values: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield the texts in a setting's value, each with the setting's name; of an item, its list's."""
    if isinstance(values, str):
        yield name, values
    elif isinstance(values, Mapping):
        for key, value in values.items():
            yield from _texts(value, f"{name}.{key}" if name else str(key))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _texts(value, name)


def _secret_fault(name: str, text: str) -> str:
    """Return why a setting's text may not be written to a run folder; "" if it may."""
    if name in ("system_prompt", "refusal"):
        return ""  # prose may quote a URL
    if name == "api_key_env" and (is_key(text) or not re.fullmatch(r"([A-Za-z_][A-Za-z0-9_]*)?", text)):
        return f"is no name of an environment variable, and a key itself would be written to the run folder: {_INSTEAD}"
    part = url_secret(text, is_url=name.endswith("url"))
    return part and f"holds {part}, which would be written to the run folder; take it out, {_INSTEAD}"


class Settings(BaseModel):
    """A frozen group of settings."""

    # Defaults are validated too: 60 for a float becomes 60.0, as it reads back from TOML.
    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False, hide_input_in_errors=True
    )

    @model_validator(mode="before")
    @classmethod
    def _holds_no_secret(cls, values: Any) -> Any:
        """Refuse a secret in any value: settings are written to run folders, reports and job files."""
        for name, text in _texts(values):
            if fault := _secret_fault(name, text):
                raise PydanticCustomError("secret", "{fault}", {"setting": name, "fault": fault})
        return values


def is_url(path: str) -> bool:
    """Return whether an item of ``documents.paths`` is a URL, of any scheme."""
    return _URL.match(path) is not None


def path_kind(field: FieldInfo) -> str:
    """Return ``PATH`` or ``PATH_OR_NAME`` for a setting that is marked so, itself or in its items; else nothing."""
    marks = [*field.metadata, *(mark for item in get_args(field.annotation) for mark in get_args(item)[1:])]
    return next((mark for mark in marks if mark in (PATH, PATH_OR_NAME)), "")


class DocumentSettings(Settings):
    """[documents]: what is read, and how it is cut."""

    paths: tuple[PathText, ...] = Field((), description="files and folders, relative to this recipe; http(s) URLs")
    chunk_tokens: int = Field(256, ge=32, le=8192, description="longest chunk, in the student's tokens")


class SplitSettings(Settings):
    """[split]: which documents the exam keeps for itself."""

    exam_share: Share = Field(0.25, description="share of the documents held out for the exam")


class ExamSettings(Settings):
    """[exam]: the questions, written and sealed before any training data exists."""

    file: PathText = Field("", description="your own exam in place of the written one: a file as in synthesis.data")
    held_out_share: float = Field(
        0.0, ge=0, lt=1, description="share of synthesis.data that becomes the exam and is not trained on"
    )
    learned_per_document: int = Field(2, ge=0, description="questions on each training document")
    kinds: tuple[WrittenKind, ...] = Field(
        ("free", "short", "choice"),
        min_length=1,
        description="kinds of question in equal shares: free (by the teacher); short, choice (rules blank a value out)",
    )
    unseen_per_document: int = Field(4, ge=0, description="questions on each held-out document")
    retention_items: int = Field(
        400, ge=0, description="of the 480 bundled items of general ability, which show forgetting; 0: none"
    )


class TeacherSettings(Settings):
    """[teacher]: the model that writes questions and answers."""

    url: str | tuple[str, ...] = Field(
        EMBEDDED,
        description='"embedded", "self" (model.base), "local" (in this process), an OpenAI-compatible URL or several',
    )
    model: ModelName = Field("", description='the model\'s name at that URL; for "local" a folder or a hub name')
    quantization: Literal["nf4-double", "nf4", "int8", "none"] = Field("none", description='of a "local" teacher')
    api_key_env: str = Field("", description="environment variable that holds the key; the key is never stored")
    concurrency: int = Field(
        64, ge=1, le=1024, description="most calls under way at once; fewer while the server is busy (embedded: 1)"
    )
    temperature: float = Field(0.0, ge=0, le=2, description="0 asks for the likeliest answer")
    reasoning: bool = Field(True, description="false asks a server for answers without reasoning first; it is faster")
    timeout_s: float = Field(120, gt=0, le=86400, description="longest wait for one whole answer")
    patience_s: float = Field(600, ge=0, le=604800, description="longest pause while the server says it is busy")
    price: Price = Field((0.0, 0.0), description="US dollars per million tokens: [prompt, completion]")
    budget: float = Field(0.0, ge=0, description="most US dollars that a run folder may cost; 0: no limit")

    @property
    def urls(self) -> tuple[str, ...]:
        """The URLs, one or several."""
        return (self.url,) if isinstance(self.url, str) else self.url

    @field_validator("url")
    @classmethod
    def _some(cls, url: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not url or len(set(url)) < len(url) and not isinstance(url, str):
            raise ValueError("names no URL, or one of them twice")
        return url

    @model_validator(mode="after")
    def _self_has_a_name(self) -> TeacherSettings:
        if self.url == SELF and (self.model or self.quantization != "none"):
            raise ValueError('teacher.url = "self" takes model.base and model.quantization; remove them from [teacher]')
        return self

    @model_validator(mode="after")
    def _budget_has_prices(self) -> TeacherSettings:
        if self.budget and not any(self.price):
            raise ValueError("teacher.budget needs teacher.price = [PROMPT, COMPLETION]")
        return self


class JudgeSettings(Settings):
    """[judge]: a model that reads the exam's answers beside the metrics; alone it never decides the verdict."""

    url: str = Field("", description='OpenAI-compatible URL, or "local" (in this process); empty: no judge')
    model: ModelName = Field("", description='the model\'s name at that URL; for "local" a folder or a hub name')
    api_key_env: str = Field("", description="environment variable that holds the key; the key is never stored")
    price: Price = Field((0.0, 0.0), description="US dollars per million tokens: [prompt, completion]")
    budget: float = Field(0.0, ge=0, description="most US dollars that its calls may cost; 0: no limit")
    forced: bool = Field(False, description="accept it even if it is also the teacher, or of the student's family")

    @property
    def as_teacher(self) -> TeacherSettings:
        """The judge's connection and budget, as those of a teacher."""
        return TeacherSettings.model_validate(self.model_dump(exclude={"forced"}))

    @model_validator(mode="after")
    def _needs_a_model(self) -> JudgeSettings:
        if self.url == SELF:
            raise ValueError('judge.url = "self" would judge its own answers; name another model')
        if self.url == EMBEDDED:
            raise ValueError("the embedded model is too small to judge; name a strong one in judge.url")
        if self.url and not self.model:
            raise ValueError("judge.url needs judge.model, the model's name there")
        return self


class SynthesisSettings(Settings):
    """[synthesis]: the training samples that the teacher writes."""

    tasks: tuple[Task, ...] = Field(
        ("answer-first", "refusal"),
        min_length=1,
        description="answer-first suits any teacher, passage-qa one that reads well, free-qa a strong one",
    )
    samples_per_document: int = Field(8, ge=0, description="questions asked of the teacher per document")
    coverage: int = Field(
        0,
        ge=0,
        le=8,
        description="questions on each sentence with a fact, in other words each; 0: samples_per_document decides",
    )
    focus: PathText = Field("", description="sentences to ask about, and no others: a file that `improve` writes")
    quotas: dict[str, float] = Field(
        {}, description='shares of the questions by "KIND", "KIND @ SECTION" or "@ SECTION"; empty: as they come'
    )
    refusal_share: Share = Field(
        0.15, description="of each task that builds on answered samples (refusal ... dialogue), as a share of them"
    )
    distractors: int = Field(0, ge=0, le=8, description="passages of other documents beside a shown one")
    extraction_schema: PathText = Field("", description="JSON schema of the task extraction, relative to this recipe")
    views: int = Field(0, ge=0, le=6, description="rewrites of each passage, as raw text (training.text_share)")
    general_samples: int = Field(0, ge=0, description="general instructions that the teacher makes up (Magpie)")
    data: tuple[PathText, ...] = Field(
        (),
        description="your own chats, beside or instead of synthesis: .jsonl, .json, .csv, .tsv, .parquet, folders, "
        "hub:OWNER/NAME[/CONFIG][@REVISION][:SPLIT]; with [START:END], these rows",
    )
    columns: dict[str, str] = Field(
        {}, description='your columns of data, pairs and exam by our names: {prompt = "question"}'
    )

    @field_validator("quotas")
    @classmethod
    def _of_known_kinds(cls, quotas: dict[str, float]) -> dict[str, float]:
        for name, share in quotas.items():
            kind = name.partition("@")[0].strip()
            if kind and kind not in get_args(Kind):
                raise ValueError(f"{kind!r} is no kind of question; there are {', '.join(get_args(Kind))}")
            if not share > 0:
                raise ValueError(f"the share of {name!r} must be above 0")
        return quotas


class CurationSettings(Settings):
    """[curation]: what may enter the training set."""

    evidence_match: float = Field(90, ge=50, le=100, description="fuzzy score that evidence must reach, of 100")
    near_duplicate: Share = Field(
        0.8, description="Jaccard similarity from which two samples are duplicates, and documents stay on one side"
    )
    embedding_duplicate: Share = Field(
        0.97, description="cosine of question+answer that is a duplicate; 0: compare no meaning"
    )
    privacy: Literal["drop", "mask", "keep"] = Field("drop", description="samples with personal data or secrets")
    ngram: int = Field(8, ge=3, le=32, description="words in a row shared with the exam that are a leak")
    paraphrase_check: bool = Field(False, description="ask the teacher whether near questions ask what the exam asks")
    checks: tuple[TeacherCheck, ...] = Field(
        (), description="also ask the teacher: answerable (2 calls a sample), judge (1)"
    )
    reward: ModelName = Field(
        "", description="reward model, a folder or a hub name; its scores rank, and drop nothing alone"
    )


class ModelSettings(Settings):
    """[model]: the student."""

    base: ModelName = Field(EMBEDDED, description='"embedded" (SmolLM2-135M-Instruct), a folder, or a hub name')
    quantization: Literal["nf4-double", "nf4", "int8", "none"] = Field("nf4-double", description="of the frozen base")
    compute: Literal["auto", "bf16", "fp16", "fp32"] = Field("auto", description="auto: what the hardware does best")
    added_tokens: tuple[str, ...] = Field((), description="new tokens; their embeddings are trained and saved")
    fp8: bool = Field(False, description="gradients through the base in 8 bit (Hopper and later): faster, coarser")
    sharded: bool = Field(False, description="spread an unquantized base over all GPUs of the launch (FSDP2)")


class TrainingSettings(Settings):
    """[training]: the adapter."""

    objective: Literal["sft", "distillation"] = Field(
        "sft", description="sft: the answers; distillation: what the base predicts with the passage in its prompt"
    )
    start: PathText = Field("", description="an adapter to start from, a folder of the same base; empty: a fresh one")
    method: Literal["lora", "rslora", "dora", "full"] = Field("lora", description="full trains every weight")
    rank: int = Field(16, ge=1, le=1024, description="LoRA rank: more learns more, takes more memory")
    alpha: float = Field(32, gt=0, description="LoRA scale; alpha / rank multiplies the adapter")
    dropout: float = Field(0.0, ge=0, lt=1, description="LoRA dropout")
    targets: tuple[str, ...] = Field(
        ("all-linear",), min_length=1, description='"all-linear", "attention", or names of layers'
    )
    optimizer: Optimizer = Field("adamw", description="8 bit takes a quarter of the memory for its states")
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="of the learning rate")
    learning_rate: float = Field(2e-4, gt=0, description="peak of the schedule")
    epochs: int = Field(3, ge=0, le=10_000, description="passes over the training set; 0 leaves only [preference]")
    batch_size: int = Field(16, ge=1, description="samples per optimizer step")
    micro_batch_tokens: int = Field(0, ge=0, description="tokens at once; 0 takes what fits; changes no result")
    kernels: Literal["auto", "off"] = Field("auto", description="off computes through transformers and peft alone")
    max_tokens: int = Field(1024, ge=16, description="longest sample; longer ones are left out and counted")
    held_out_share: float = Field(0.05, ge=0, le=0.5, description="share of the samples kept for the held-out loss")
    reasoning: Literal["strip", "keep"] = Field(
        "strip", description="of <think> blocks in your data and in all answers: removed, or trained on and shown"
    )
    text_share: Share = Field(0.0, description="share of the tokens that are the documents' raw text; 1: nothing else")
    text_overlap: int = Field(0, ge=0, description="tokens of context before a piece of raw text, without loss")
    warmup_share: Share = Field(0.05, description="share of the steps with a rising learning rate")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")
    checkpoint_steps: int = Field(50, ge=1, description="optimizer steps between checkpoints")
    seeds: int = Field(1, ge=1, le=10, description="adapters from so many seeds, all examined; the first is exported")
    tracker: Literal["", "tensorboard", "wandb", "mlflow", "trackio"] = Field("", description="also log there")


class DistillationSettings(Settings):
    """[distillation]: the base with the passage teaches the adapter without it; of training.objective."""

    temperature: float = Field(1.0, gt=0, le=10, description="divides the logits of teacher and student")
    cross_entropy: Share = Field(0.0, description="share of the loss that is the answer's own cross-entropy")
    distractors: int = Field(0, ge=0, le=8, description="passages beside the right one, as RAG would retrieve them")


# Of [training]: what decides how a step is computed or watched, or what is in the training set already.
NO_PART_OF_RESULT = frozenset({"checkpoint_steps", "micro_batch_tokens", "reasoning", "seeds", "tracker"})

# Of [preference]: where the pairs come from; for the training, what they are stands in its place.
MAKES_PAIRS = frozenset({"data", "make", "samples"})


class PreferenceSettings(Settings):
    """[preference]: DPO on pairs of a better and a worse answer, after the training or alone."""

    data: tuple[PathText, ...] = Field((), description="your pairs, as synthesis.data: prompt, chosen, rejected")
    make: tuple[Make, ...] = Field((), description="pairs made of the training set; the first named has precedence")
    samples: int = Field(4, ge=2, le=64, description="student's answers per prompt, for student and best-of-n")
    loss: Literal["sigmoid", "normalized", "ipo"] = Field("sigmoid", description="DPO, length-normalized DPO, or IPO")
    beta: float = Field(0.1, gt=0, description="pull towards the reference; larger stays closer")
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="share of the pairs that may be labeled wrong")
    reference: Literal["sft", "base"] = Field("sft", description="the model before DPO, or without any adapter")
    learning_rate: float = Field(5e-6, gt=0, description="peak of the schedule")
    epochs: int = Field(1, ge=1, le=10_000, description="passes over the pairs")

    @property
    def wanted(self) -> bool:
        """Whether there is anything to prefer: pairs of the user's own, or made ones."""
        return bool(self.data or self.make)

    @field_validator("make")
    @classmethod
    def _each_once(cls, make: tuple[Make, ...]) -> tuple[Make, ...]:
        if len(set(make)) < len(make):
            raise ValueError("a way to make pairs is named twice")
        return make


class RetrievalSettings(Settings):
    """[retrieval]: the search behind the rag arms, the similar-shot arm and /why."""

    model: ModelName = Field(
        EMBEDDED,
        description='vectors beside words: "embedded" (all-MiniLM-L6-v2), a folder or a hub name; empty: words alone',
    )
    reranker: ModelName = Field(
        "", description="cross-encoder that reorders the first 20 passages: a folder or a hub name; empty: none"
    )
    passages: int = Field(
        0,
        ge=0,
        le=32,
        description="passages in the rag arms; 0: the fewest whose recall on the exam equals that of five",
    )


class EvaluationSettings(Settings):
    """[evaluation]: the arms that answer the exam, and the margin of the verdict."""

    arms: tuple[Arm, ...] = Field(
        tuple(arm for arm in Arm if arm not in (Arm.MAJORITY, Arm.PLACEBO)),
        min_length=1,
        description="who answers the exam; a verdict needs base and tuned; placebo trains on shuffled answers",
    )
    use: Literal["task", "assistant"] = Field(
        "task",
        description="task: the adapter serves beside its base for this task; "
        "assistant: in place of the base, so general ability is guarded",
    )
    primary: Literal["score", "marks"] = Field(
        "score", description="what compares tuned with a rival: the score, or blind marks by people with a judge's help"
    )
    few_shot: int = Field(3, ge=1, le=32, description="examples in the few-shot and similar-shot arms")
    max_new_tokens: int = Field(64, ge=1, le=8192, description="longest answer; longer ones are cut and counted")
    margin: float = Field(0.10, gt=0, lt=1, description="smallest difference worth having (the verdict's delta)")
    forgetting_margin: float = Field(
        0.05, gt=0, lt=1, description="largest harmless loss of accuracy in general ability"
    )
    compare: tuple[ModelName, ...] = Field(
        (), description="who else answers the exam: run folders, adapters, other bases; they change no verdict"
    )

    @field_validator("compare")
    @classmethod
    def _compared_once(cls, compare: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(compare)) < len(compare) or not all(compare):
            raise ValueError("names nothing, or the same twice")
        return compare

    @field_validator("arms")
    @classmethod
    def _each_once(cls, arms: tuple[Arm, ...]) -> tuple[Arm, ...]:
        if len(set(arms)) < len(arms):
            raise ValueError("an arm is named twice")
        return arms
