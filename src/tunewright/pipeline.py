"""Running the stages in order: what is fresh, what is stale, what runs next."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from tunewright import console, distributed, environment
from tunewright.errors import ExportError, RecipeError, RunFolderError, command
from tunewright.export.receipt import RECEIPT, exports_in, verify
from tunewright.recipe import Recipe, dump_recipe, load_recipe, upgraded
from tunewright.records import StageSummary, digest
from tunewright.run_folder import JOURNALS, Change, RunFile, RunFolder
from tunewright.stages import FORMER_OUTSIDE, OUTSIDE, STAGE_NAMES, STAGES, Stage, stages_of
from tunewright.storage import file_digest
from tunewright.teacher.keys import recipe_keys, require_allowed


@dataclass(frozen=True)
class StageState:
    """What is known of a stage: fresh (nothing to do), stale (something changed) or new, and why."""

    stage: Stage
    state: str
    why: str
    summary: StageSummary | None = None
    duration_s: float = 0.0


def _load(reference: str) -> Callable[..., object]:
    module, _, name = reference.partition(":")
    function: Callable[..., object] = getattr(import_module(module), name)
    return function


def _setting(recipe: Recipe, key: str) -> object:
    value: object = recipe
    for part in key.split("."):
        value = getattr(value, part)
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else value


def _ingredients(run: RunFolder, recipe: Recipe, stage: Stage) -> dict[str, object]:
    """Return everything that a stage's result depends on, by name."""
    ingredients: dict[str, object] = {"version": stage.version}
    ingredients |= {key: _setting(recipe, key) for key in stage.settings}
    ingredients |= {name: file_digest(run.file(name)) if run.file(name).exists() else "absent" for name in stage.reads}
    return ingredients | {name: _load(OUTSIDE[name])(recipe) for name in stage.outside}


def _recorded(ingredients: dict[str, object]) -> dict[str, object]:
    """Return the ingredients in a stage's record by the names of today, with the defaults of newer settings."""
    named = upgraded({FORMER_OUTSIDE.get(name, name): value for name, value in ingredients.items()})
    defaults = Recipe().model_dump(mode="json")
    return {
        name: {**defaults[name], **value} if isinstance(value, dict) and isinstance(defaults.get(name), dict) else value
        for name, value in named.items()
    }


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def _state_file(stage: Stage) -> str:
    return f"stages/{stage.name}.json"


def stage_state(run: RunFolder, recipe: Recipe | None, stage: Stage) -> StageState:
    """Compare a stage's record with what it would be made from now; without a recipe only its outputs are checked."""
    if not run.file(_state_file(stage)).exists():
        return StageState(stage, "new", "never finished")
    try:
        record = run.stage_record(stage.name)
        summary = StageSummary.model_validate(record["summary"])
        duration_s, before = float(record["duration_s"]), _recorded(record["ingredients"])
        outputs = dict(record["outputs"])
    except (KeyError, TypeError, ValueError, RunFolderError):
        return StageState(stage, "stale", f"{_state_file(stage)} is damaged")
    for name, expected in outputs.items():
        path = run.file(name)
        if not path.exists():
            return StageState(stage, "stale", f"{name} is missing", summary, duration_s)
        if file_digest(path) != expected:
            return StageState(stage, "stale", f"{name} was changed", summary, duration_s)
    if recipe is not None:
        now = _ingredients(run, recipe, stage)
        before = dict.fromkeys(stage.reads, "absent") | before  # a file that an earlier version did not read
        changed = [
            name for name in sorted({*now, *before}) if _canonical(now.get(name)) != _canonical(before.get(name))
        ]
        if changed:
            return StageState(stage, "stale", f"{', '.join(changed)} changed", summary, duration_s)
    return StageState(stage, "fresh", "nothing changed", summary, duration_s)


def _run_stage(run: RunFolder, recipe: Recipe, stage: Stage, position: str) -> StageSummary:
    console.heading(f"{position} {stage.name}")
    if STAGE_NAMES.index(stage.name) <= STAGE_NAMES.index("train"):  # later stages have a trained adapter to lose
        from tunewright.models.base_contents import require_base

        require_base(recipe)
    ingredients = _ingredients(run, recipe, stage)
    files = (*stage.writes, _state_file(stage), *((RunFile.CHECKPOINTS,) if stage.name == "train" else ()))
    run.unnote(*files)
    run.log("start", stage=stage.name, fingerprint=digest(ingredients))
    start = time.monotonic()
    if stage.shared:
        distributed.processes().call(stage.name)
    summary = _load(stage.function)(run, recipe)
    assert isinstance(summary, StageSummary)
    duration_s = round(time.monotonic() - start, 2)
    run.write_json(
        _state_file(stage),
        {
            "stage": stage.name,
            "version": stage.version,
            "fingerprint": digest(ingredients),
            "ingredients": ingredients,
            "outputs": {name: file_digest(run.file(name)) for name in stage.writes},
            "summary": summary.model_dump(mode="json"),
            "duration_s": duration_s,
            "versions": environment.versions(),
            "machine": environment.machine(),
        },
    )
    run.log("finish", stage=stage.name, fingerprint=digest(ingredients), duration_s=duration_s)
    run.note(*files)
    console.line(f"  {summary_line(summary)}  ({duration_s:.1f} s)")
    return summary


def refresh(run: RunFolder, recipe: Recipe, stage: Stage, position: str) -> None:
    """Run a stage unless it is fresh; ``position`` is printed beside its name."""
    if stage_state(run, recipe, stage).state == "fresh":
        console.line(f"{position} {stage.name}: fresh", "dim")
    else:
        _run_stage(run, recipe, stage, position)


def summary_line(summary: StageSummary) -> str:
    """Return one line: in → out, what was rejected and why, and the figures."""
    parts = [f"{summary.num_in} in → {summary.num_out} out"]
    if summary.rejected:
        parts.append("rejected: " + ", ".join(f"{count} {reason}" for reason, count in summary.rejected.items()))
    parts += [
        f"{name.replace('_', ' ')} {value}" for name, value in summary.figures.items() if not name.startswith("advice_")
    ]
    return "; ".join(parts)


def run(recipe: Recipe, folder: str | Path, until: str = STAGES[-1].name, only: Sequence[str] = ()) -> RunFolder:
    """Run the stages that are not fresh, in order, up to and including ``until``.

    Args:
        recipe: what to do.
        folder: the run folder; made when it does not exist.
        until: the last stage.
        only: these stages alone, when given.

    Returns:
        The run folder.

    Raises:
        UserError: a fault in recipe, documents, model or folder.
        StageError: a stage failed; the same call continues from there.
    """
    if until not in STAGE_NAMES:
        raise RecipeError(f"there is no stage {until!r}", "", f"the stages are: {', '.join(STAGE_NAMES)}")
    recipe = _resolved(recipe)
    group = distributed.processes()
    if not group.is_first:
        return _follow(recipe.with_absolute_paths(), RunFolder(Path(folder)), group)
    opened = RunFolder.create(Path(folder))
    with opened.lock():
        recipe = recipe.with_absolute_paths()
        if not _is_recorded(opened, recipe):
            opened.write(RunFile.RECIPE, dump_recipe(recipe))
        if not only:
            opened.note(RunFile.RECIPE)
        stages = stages_of(recipe)
        if recipe.evaluation.compare and not only:  # a wrong path is an error before the hours of training, not after
            _load(OUTSIDE["compared models"])(recipe)
        last = STAGE_NAMES.index(until)  # which this recipe may not need: then the stages before it are the last ones
        due = [s for s in stages if STAGE_NAMES.index(s.name) <= last and (not only or s.name in only)]
        _require_keys(opened, recipe, due)
        for stage in due:
            refresh(opened, recipe, stage, f"[{stages.index(stage) + 1}/{len(stages)}]")
    group.call("")
    return opened


def _require_keys(run: RunFolder, recipe: Recipe, stages: Sequence[Stage]) -> None:
    """Ask at the start of a run, not after hours, for the keys that its stages will send.

    Raises:
        RecipeError: a key is not allowed for its server.
    """
    uses = [use for use in recipe_keys(recipe) if use.state not in ("allowed", "this machine", "its own service")]
    for stage in stages if uses else ():
        if stage_state(run, recipe, stage).state != "fresh":
            require_allowed([use for use in uses if use.section in stage.outside])


def _resolved(recipe: Recipe) -> Recipe:
    """Return the recipe with what its own chats decide (the system prompt) and its base (the quantization)."""
    from tunewright.models.student import with_stored_quantization

    recipe = with_stored_quantization(recipe)
    if not recipe.synthesis.data:
        return recipe
    resolved = _load("tunewright.curation.chat_formats:with_own_system_prompt")(recipe)
    assert isinstance(resolved, Recipe)
    return resolved


def _is_recorded(run: RunFolder, recipe: Recipe) -> bool:
    """Return whether the run's own recipe has the same settings, however it is written."""
    try:
        return load_recipe(run.file(RunFile.RECIPE)).model_dump() == recipe.model_dump()
    except RecipeError:
        return False


def _follow(recipe: Recipe, run: RunFolder, group: distributed.Processes) -> RunFolder:
    """Take part, in silence, in the stages that the first process of the launch calls to."""
    console.silence()
    by_name = {stage.name: stage for stage in STAGES}
    number = 1
    while task := group.next_task(number):
        _load(by_name[task].function)(run, recipe)
        number += 1
    return run


def states(run: RunFolder, recipe: Recipe | None = None) -> list[StageState]:
    """Return every stage's state; once one is not fresh, those after it that read its files are stale too."""
    recipe = _resolved(recipe).with_absolute_paths() if recipe else None
    result: list[StageState] = []
    dirty: set[str] = set()
    for stage in stages_of(recipe) if recipe else STAGES:
        state = stage_state(run, recipe, stage)
        touched = sorted(dirty & set(stage.reads))
        if state.state == "fresh" and touched:
            state = StageState(stage, "stale", f"{touched[0]} will change", state.summary, state.duration_s)
        if state.state != "fresh":
            dirty |= set(stage.writes)
        result.append(state)
    return result


def require(run: RunFolder, *names: str) -> None:
    """Refuse with the command that makes the missing files.

    Raises:
        RunFolderError: a file is not there yet.
    """
    for name in names:
        if not run.file(name).exists():
            raise RunFolderError(
                f"{run.path} has no {name} yet",
                "the stage that writes it has not finished",
                command("run", "RECIPE", "--dir", run.path),
            )


# Changes of these change no result: pages are written again, comparison.csv is the user's to fill in, and lines of a
# journal that were changed are not used.
_WITHOUT_EFFECT = (RunFile.REPORT, RunFile.DATA_REPORT, RunFile.COMPARISON, *JOURNALS, RunFile.FILES)


def warn_of_changes(run: RunFolder) -> list[Change]:
    """Print each file of a run and of its exports that is not as it was written; return those that matter."""
    changes = run.changes()
    for folder in exports_in(run.file(RunFile.EXPORTS)):
        try:
            verify(folder)
        except ExportError as error:  # a sentence per file, or one of the receipt
            of_receipt = RECEIPT in error.headline
            for fault in [f"{error.headline}: {error.cause}"] if of_receipt else error.cause.split("; "):
                console.warning(fault if of_receipt else f"{folder}/{fault}")
    for change in changes:
        console.warning(f"{run.path}/{change}")
    return [change for change in changes if change.file not in _WITHOUT_EFFECT]


def require_unchanged(run: RunFolder) -> None:
    """Print what is not as it was written, and refuse where it matters.

    Raises:
        RunFolderError: a file that matters was changed or is missing.
    """
    if changes := warn_of_changes(run):
        raise RunFolderError(
            f"files of {run.path} are not as they were written",
            "; ".join(map(str, changes)),
            f"undo the change, or rebuild them: {run.again()}",
        )


def require_untouched(run: RunFolder) -> None:
    """Refuse a run whose files are not those that its stages wrote.

    Raises:
        RunFolderError: a file was changed, is missing, or its stage never finished.
    """
    recipe_file = run.file(RunFile.RECIPE)
    for stage in stages_of(load_recipe(recipe_file)):
        state = stage_state(run, None, stage)
        if state.state != "fresh" and stage.name != STAGE_NAMES[-1]:
            raise RunFolderError(
                f"the stage {stage.name} of {run.path} is not as it was made",
                f"{state.why}; a report would not show what was evaluated",
                f"run it again: {run.again()}",
            )
