"""The stages in order: the function of each, and everything that its result depends on."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tunewright.errors import RecipeError
from tunewright.models.data_sources import exam_path
from tunewright.models.source import identity
from tunewright.recipe import Recipe
from tunewright.records import digest
from tunewright.retention.suite import suite_digest
from tunewright.run_folder import RunFile, further_adapters
from tunewright.settings import (
    MAKES_PAIRS,
    NO_PART_OF_RESULT,
    Arm,
    PreferenceSettings,
    SynthesisSettings,
    TrainingSettings,
    is_url,
)
from tunewright.storage import file_digest

# Inputs outside the run folder: a name that a stage's record keeps, and the function ``recipe -> digest``.
OUTSIDE = {
    "source documents": "tunewright.documents.stage:source_digest",
    "base model": "tunewright.stages:base_identity",
    "teacher": "tunewright.stages:teacher_name",  # in place of teacher.url: servers of a fleet come and go
    "judge": "tunewright.stages:judge_name",
    "reward model": "tunewright.stages:reward_identity",
    "extraction schema": "tunewright.stages:extraction_schema_digest",
    "exam file": "tunewright.stages:exam_file_digest",
    "retention suite": "tunewright.stages:retention_digest",
    "chat data": "tunewright.curation.chat_formats:data_digest",
    "preference data": "tunewright.curation.preference_pairs:pairs_digest",
    "compared models": "tunewright.evaluation.extra_arms:compared_digest",
    "sentence model": "tunewright.stages:sentence_model_identity",
    "focus": "tunewright.stages:focus_digest",
    "start adapter": "tunewright.stages:start_digest",
}

# What version 0.1 called them in its records: by the function's name.
FORMER_OUTSIDE = {
    "source_digest": "source documents",
    "base_identity": "base model",
    "teacher_name": "teacher",
    "judge_name": "judge",
    "reward_identity": "reward model",
    "extraction_schema_digest": "extraction schema",
    "exam_file_digest": "exam file",
    "kept_digest": "retention suite",
    "data_digest": "chat data",
    "pairs_digest": "preference data",
    "compared_digest": "compared models",
}


@dataclass(frozen=True)
class Stage:
    """One step of the path.

    Attributes:
        function: "module:name" of ``(run, recipe) -> StageSummary``; imported only when the stage runs.
        settings: the part of the recipe that it depends on: sections, or single settings as "section.key".
        reads: files of the run folder that it depends on.
        writes: files and folders that it alone makes; their digests are recorded. Not among them are rejected.jsonl,
            which stages share, the journals and checkpoints that they resume from, and comparison.csv.
        outside: inputs outside the run folder, by their names in ``OUTSIDE``.
        shared: whether all processes of a multi-GPU launch take part, or the first one alone.
        version: raised when the stage's own work changes, so that older results count as stale.
    """

    name: str
    function: str
    settings: tuple[str, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    outside: tuple[str, ...] = ()
    shared: bool = False
    version: int = 1


_PROMPT = ("seed", "system_prompt", "refusal")
_TEACHER = ("teacher.temperature",)
_TRAINING = tuple(
    f"training.{key}" for key in TrainingSettings.model_fields if key not in {*NO_PART_OF_RESULT, "objective", "start"}
)
_PREFERENCE = tuple(f"preference.{key}" for key in PreferenceSettings.model_fields if key not in MAKES_PAIRS)
_STUDENT = ("model.base", "model.quantization", "model.compute", "model.added_tokens")
_SYNTHESIS = (
    *(
        f"synthesis.{key}"
        for key in SynthesisSettings.model_fields
        if key not in ("data", "columns", "coverage", "focus")
    ),
    "curation.evidence_match",
)
_DOCUMENTS = (RunFile.DOCUMENTS, RunFile.CHUNKS, RunFile.SPLIT)
_RESULTS = (RunFile.ANSWERS, RunFile.RETENTION_ANSWERS, RunFile.SCORES, RunFile.VERDICT)

STAGES = (
    Stage(
        "ingest",
        "tunewright.documents.stage:ingest",
        ("documents.chunk_tokens", "model.base"),
        (),
        (RunFile.DOCUMENTS, RunFile.CHUNKS),
        ("source documents", "base model"),
    ),
    Stage(
        "split",
        "tunewright.documents.stage:split",
        ("seed", "split", "curation.near_duplicate"),
        (RunFile.DOCUMENTS,),
        (RunFile.SPLIT,),
    ),
    Stage(
        "hold-out",
        "tunewright.curation.stage:hold_out",
        ("seed", "system_prompt", "exam.held_out_share", "curation.near_duplicate", "training.reasoning"),
        (),
        (RunFile.HELD_OUT,),
        ("chat data",),
    ),
    Stage(
        "exam",
        "tunewright.synthesis.stage:exam",
        (*_PROMPT, *_TEACHER, "exam"),
        _DOCUMENTS,
        (RunFile.EXAM, RunFile.RETENTION, RunFile.SEAL),
        ("exam file", "retention suite", "teacher"),
        version=3,
    ),
    Stage(
        "synth",
        "tunewright.synthesis.stage:synth",
        (
            *_PROMPT,
            *_TEACHER,
            *_SYNTHESIS,
        ),
        (*_DOCUMENTS, RunFile.EXAM),
        (RunFile.SAMPLES,),
        ("extraction schema", "teacher"),
        version=2,
    ),
    Stage(
        "curate",
        "tunewright.curation.stage:curate",
        (*_PROMPT, "curation", "model.base"),
        (*_DOCUMENTS, RunFile.EXAM, RunFile.SAMPLES, RunFile.EDITS),
        (RunFile.TRAIN,),
        ("chat data", "base model"),
        version=2,
    ),
    Stage(
        "pairs",
        "tunewright.curation.stage:curate_pairs",
        ("curation.ngram",),
        (RunFile.EXAM,),
        (RunFile.PAIRS,),
        ("preference data",),
    ),
    Stage(
        "train",
        "tunewright.training.stage:train_adapter",
        ("seed", *_STUDENT, "model.fp8", *_TRAINING, *_PREFERENCE),
        (RunFile.TRAIN,),
        (RunFile.ADAPTER, RunFile.METRICS, RunFile.PLAN),
        ("base model",),
        shared=True,
        version=5,
    ),
    Stage(
        "placebo",
        "tunewright.training.stage:train_placebo",
        ("seed", *_STUDENT, "model.fp8", *_TRAINING, *_PREFERENCE),
        (RunFile.TRAIN,),
        (RunFile.PLACEBO,),
        ("base model",),
        shared=True,
    ),
    Stage(
        "seeds",
        "tunewright.training.stage:train_seeds",
        ("seed", *_STUDENT, "model.fp8", *_TRAINING, *_PREFERENCE),
        (RunFile.TRAIN,),
        (),
        ("base model",),
        shared=True,
    ),
    Stage(
        "evaluate",
        "tunewright.evaluation.stage:evaluate",
        (*_PROMPT, *_STUDENT, "evaluation", "retrieval.passages"),
        (*_DOCUMENTS, RunFile.EXAM, RunFile.RETENTION, RunFile.SEAL, RunFile.TRAIN, RunFile.ADAPTER),
        (
            *_RESULTS,
            RunFile.RULE,
            RunFile.RULE_HISTORY,
        ),  # comparison.csv is the user's to fill in, and so no part of what must not change
        ("base model", "compared models", "sentence model"),
        version=15,
    ),
    Stage(
        "judge",
        "tunewright.evaluation.stage:judge_exam",
        ("seed", "refusal", "judge.forced"),
        (RunFile.EXAM, RunFile.CHUNKS, RunFile.ANSWERS),
        (RunFile.JUDGMENTS, RunFile.JUDGE),
        ("judge",),
    ),
    Stage(
        "verdict",
        "tunewright.annotation.stage:verdict",
        (),
        (
            RunFile.EXAM,
            RunFile.ANSWERS,
            RunFile.RETENTION_ANSWERS,
            RunFile.SCORES,
            RunFile.RULE,
            RunFile.RULE_HISTORY,
            RunFile.JUDGMENTS,
            RunFile.MARKS,
        ),
        (RunFile.VERDICT,),
        ("compared models",),
    ),
    Stage(
        "report",
        "tunewright.reporting.stage:report",
        (),
        (
            *_RESULTS,
            *_DOCUMENTS,
            RunFile.SEAL,
            RunFile.RULE,
            RunFile.EXAM,
            RunFile.RETENTION,
            RunFile.SAMPLES,
            RunFile.TRAIN,
            RunFile.REJECTED,
            RunFile.METRICS,
            RunFile.PLAN,
            RunFile.CURVE,
            RunFile.RECIPE,
            RunFile.RULE_HISTORY,
            RunFile.JUDGMENTS,
            RunFile.JUDGE,
            RunFile.MARKS,
            RunFile.MARKING_PLAN,
            RunFile.BENCHMARKS,
        ),
        (RunFile.REPORT, RunFile.DATA_REPORT),
        version=7,
    ),
)
STAGE_NAMES = tuple(stage.name for stage in STAGES)


def stages_of(recipe: Recipe) -> tuple[Stage, ...]:
    """Return the stages that a recipe needs, each with what it reads for this recipe.

    Own data needs no documents if the exam is the user's own or a part of the data. Raw text and preferences alone
    need no samples.
    """
    without = set()
    has_exam = recipe.exam.file or recipe.holds_out_data
    if not recipe.documents.paths and (recipe.synthesis.data or recipe.preference.data) and has_exam:
        without |= {"ingest", "split"}
    if not recipe.holds_out_data:
        without.add("hold-out")
    if not recipe.needs_samples:
        without |= {"synth", "curate"}
    if not recipe.preference.wanted:
        without.add("pairs")
    if not recipe.judge.url:
        without.add("judge")
    if Arm.PLACEBO not in recipe.evaluation.arms:
        without.add("placebo")
    if recipe.training.seeds == 1:
        without.add("seeds")
    if recipe.evaluation.primary == "score":
        without.add("verdict")
    more: tuple[str, ...] = (RunFile.PAIRS,) if recipe.preference.wanted else ()
    more += (RunFile.DOCUMENTS, RunFile.SPLIT) if recipe.training.text_share else ()
    stages = (_with_needs(stage, recipe, more) for stage in STAGES)
    return tuple(stage for stage in stages if stage.name not in without)


def _with_needs(stage: Stage, recipe: Recipe, files_of_training: tuple[str, ...]) -> Stage:
    """Return the stage with the inputs that it has under this recipe."""
    if stage.name == "ingest" and any(map(is_url, recipe.documents.paths)):
        return replace(stage, writes=(*stage.writes, RunFile.FETCHED))
    if stage.name == "evaluate" and recipe.evaluation.primary == "marks":  # the stage "verdict" writes it last
        stage = replace(stage, writes=tuple(name for name in stage.writes if name != RunFile.VERDICT))
    if stage.name == "evaluate" and recipe.training.reasoning == "keep":
        stage = replace(stage, settings=(*stage.settings, "training.reasoning"))
    if stage.name == "evaluate" and Arm.PLACEBO in recipe.evaluation.arms:
        stage = replace(stage, reads=(*stage.reads, RunFile.PLACEBO))
    if stage.name == "evaluate":
        return replace(stage, reads=(*stage.reads, *further_adapters(recipe.training.seeds).values()))
    if stage.name == "seeds":
        stage = replace(stage, writes=tuple(further_adapters(recipe.training.seeds).values()))
    if stage.name in ("train", "seeds") and recipe.distills:
        stage = _distilling(stage, recipe)
    if stage.name in ("train", "placebo", "seeds") and recipe.training.start:
        stage = replace(stage, outside=(*stage.outside, "start adapter"))
    if stage.name in ("train", "placebo", "seeds"):
        return replace(stage, reads=tuple(dict.fromkeys(stage.reads + files_of_training)))
    if stage.name == "pairs" and recipe.preference.make:
        return _making(stage, recipe)
    if stage.name in ("exam", "curate") and recipe.holds_out_data:
        stage = replace(stage, reads=(*stage.reads, RunFile.HELD_OUT))
    if stage.name == "curate":
        return _curating(stage, recipe)
    if stage.name == "synth" and recipe.synthesis.coverage:
        stage = replace(stage, settings=(*stage.settings, "synthesis.coverage"))
    if stage.name == "synth" and recipe.synthesis.focus:
        stage = replace(stage, outside=(*stage.outside, "focus"))
    if stage.name == "synth" and recipe.training.text_share == 1:
        return replace(stage, settings=(*stage.settings, "training.text_share", "preference.make"))
    return stage


def _distilling(stage: Stage, recipe: Recipe) -> Stage:
    """Return the stage "train" with the passages of its teacher, and the search that brings further ones."""
    stage = replace(
        stage,
        settings=(*stage.settings, "training.objective", "distillation"),
        reads=(*stage.reads, RunFile.CHUNKS, RunFile.SPLIT),
    )
    searches = recipe.distillation.distractors > 0
    return replace(stage, outside=(*stage.outside, "sentence model")) if searches else stage


def _curating(stage: Stage, recipe: Recipe) -> Stage:
    """Return the stage "curate" with the models that this recipe's rules call, and its version for own data."""
    if recipe.synthesis.data:
        stage = replace(stage, version=stage.version + 1, settings=(*stage.settings, "training.reasoning"))
    if recipe.curation.checks or recipe.curation.paraphrase_check:
        stage = replace(stage, settings=stage.settings + _TEACHER, outside=(*stage.outside, "teacher"))
    if recipe.curation.reward:
        outside = (*stage.outside, "reward model")
        stage = replace(stage, writes=(*stage.writes, RunFile.REWARDS), outside=outside)
    return stage


def _making(stage: Stage, recipe: Recipe) -> Stage:
    """Return the stage "pairs" with the inputs of pairs that tunewright makes itself."""
    make = recipe.preference.make
    settings = (*stage.settings, "seed", "refusal", "preference.make")
    outside = stage.outside
    if set(make) & {"student", "best-of-n"}:
        settings += (*_STUDENT, "preference.samples")
        outside += ("base model",)
    if "best-of-n" in make:
        settings += ("curation.reward",)
        outside += ("reward model",)
    reads = (*stage.reads, RunFile.TRAIN, RunFile.DOCUMENTS, RunFile.CHUNKS)
    return replace(stage, settings=settings, reads=reads, outside=outside)


def base_identity(recipe: Recipe) -> str:
    """Return a digest of the base model's files, or its hub name."""
    return identity(recipe.model.base, recipe.folder)


def extraction_schema_digest(recipe: Recipe) -> str:
    """Return the digest of the extraction's schema, or nothing when there is none."""
    path = recipe.resolve(recipe.synthesis.extraction_schema)
    return file_digest(path) if recipe.synthesis.extraction_schema and path.is_file() else ""


def teacher_name(recipe: Recipe) -> str:
    """Return the teacher's name, as its journal has it."""
    from tunewright.teacher.identity import teacher_identity

    return teacher_identity(recipe.writer, recipe.folder)


def focus_digest(recipe: Recipe) -> str:
    """Return the digest of the list of sentences to ask about."""
    path = recipe.resolve(recipe.synthesis.focus)
    if not path.is_file():
        raise RecipeError(
            f"there is no list of sentences at {path}", "synthesis.focus names it", "correct it, or remove the line"
        )
    return file_digest(path)


def start_digest(recipe: Recipe) -> str:
    """Return the digest of the adapter that training goes on from."""
    path = recipe.resolve(recipe.training.start)
    if not (path / "adapter_config.json").is_file():
        raise RecipeError(
            f"there is no adapter at {path}", "training.start names it", "name a folder with adapter_config.json"
        )
    return file_digest(path)


def judge_name(recipe: Recipe) -> str:
    """Return the judge's name, as its journal has it."""
    from tunewright.teacher.identity import teacher_identity

    return teacher_identity(recipe.judge.as_teacher, recipe.folder)


def reward_identity(recipe: Recipe) -> str:
    """Return a digest of the reward model's files, or its hub name."""
    return identity(recipe.curation.reward, recipe.folder)


def sentence_model_identity(recipe: Recipe) -> str:
    """Return what names the models of the index, or nothing where it searches by words alone."""
    from tunewright.retrieval.sentence_model import sentence_model_identity as identity_of

    vectors = identity_of(recipe.retrieval.model, recipe.folder) if recipe.retrieval.model else ""
    reranker = identity(recipe.retrieval.reranker, recipe.folder) if recipe.retrieval.reranker else ""
    return f"{vectors} + {reranker}" if reranker else vectors


def retention_digest(recipe: Recipe) -> str:
    """Return the digest of the bundled retention suite, or nothing when the recipe takes no item of it."""
    return suite_digest() if recipe.exam.retention_items else ""


def exam_file_digest(recipe: Recipe) -> str:
    """Return the digest of the user's own exam, or nothing when there is none."""
    if not recipe.exam.file:
        return ""
    path = exam_path(recipe)
    if not path.is_file():
        raise RecipeError(f"there is no exam at {path}", "exam.file names it", "correct the path, or remove exam.file")
    # The number is raised when the same file reads as another exam; written exams stay fresh.
    return digest(2, file_digest(path), recipe.synthesis.columns)
