"""The arms compared on request: adapters of other runs, adapters trained elsewhere, other base models."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tunewright.errors import UserError, command, reading, shell
from tunewright.evaluation.results import Difference
from tunewright.evaluation.verdict import Verdict
from tunewright.models.loading import is_full
from tunewright.models.model_pool import ModelWeights
from tunewright.models.source import NAME, identity
from tunewright.recipe import Recipe, load_recipe
from tunewright.records import digest
from tunewright.run_folder import RunFile
from tunewright.settings import EMBEDDED, Arm
from tunewright.statistics.intervals import p_value, signed, spread
from tunewright.storage import file_digest

# The names of the recipe's arms, and the other words that appear beside arms' names in tables of answers and in marks.
_TAKEN = {*Arm, "kept"}
_TAKEN |= {"question", "gold", "winner", "tie", "both bad", "cannot tell", "neither"}
_HINT = "name a run folder, an adapter's folder in peft's format, a model's folder, or a hub name"


@dataclass(frozen=True)
class ExtraArm:
    """An arm besides the recipe's own: an adapter on the recipe's base, or another base.

    ``content`` is a digest of its files, so that a change is seen.
    """

    name: str
    content: str
    adapter: Path | None = None
    base: str = ""


def extra_arms(recipe: Recipe) -> list[ExtraArm]:
    """Return the arms that ``evaluation.compare`` names, each under a unique name.

    Raises:
        UserError: a path leads to nothing that can answer the exam, or to an adapter of another base.
    """
    arms: list[ExtraArm] = []
    taken = set(_TAKEN)
    for reference in recipe.evaluation.compare:
        arm = _extra_arm(reference, recipe)
        name = free_name(arm.name, taken)
        taken.add(name.lower())
        arms.append(replace(arm, name=name))
    return arms


def compared_digest(recipe: Recipe) -> str:
    """Return a digest of all arms that ``evaluation.compare`` names; empty where it names none."""
    arms = extra_arms(recipe)
    return digest(*[(arm.name, arm.content) for arm in arms]) if arms else ""


def weights_of(arm: ExtraArm, recipe: Recipe) -> ModelWeights:
    """Return an arm's weights, quantized and computed as the recipe says."""
    if arm.adapter is not None:
        return ModelWeights.of(recipe, arm.adapter)
    model = recipe.model.model_copy(update={"base": arm.base, "added_tokens": ()})
    return ModelWeights.of(recipe.model_copy(update={"model": model}))


def compared_table(verdict: Verdict) -> tuple[list[str], list[list[str]]] | None:
    """Return columns and rows of the differences to the arms compared on request; None without any."""
    level = 1 - verdict.rule["alpha"]
    columns = ["compared on request", "difference", f"{level:.0%} interval", "p, adjusted"]
    rows = difference_rows(verdict.results.compared)
    return (columns, rows) if rows else None


def difference_rows(differences: Sequence[Difference]) -> list[list[str]]:
    """Return a row for each exploratory difference: the two arms, the difference, its interval, the corrected p."""
    return [
        [f"{d.first} − {d.second}", signed(d.interval.mean), spread(d.interval), p_value(d.p_holm or 0.0)]
        for d in differences
    ]


def free_name(name: str, taken: set[str]) -> str:
    """Return the name without the characters that tables cannot hold, and with a number where it is taken.

    Args:
        name: of a folder or a model.
        taken: in lower case; names that differ only in case count as the same.
    """
    plain = re.sub(r"[^\w.+-]+", "-", name).strip("-.+") or "compared"
    number = 2
    free = plain
    while free.lower() in taken:
        free, number = f"{plain}-{number}", number + 1
    return free


def _extra_arm(reference: str, recipe: Recipe) -> ExtraArm:
    path = recipe.resolve(reference)
    if reference == EMBEDDED:
        return ExtraArm(NAME, identity(EMBEDDED), base=EMBEDDED)
    if path.is_dir():
        if (path / "run.json").is_file() or (path / RunFile.RECIPE).is_file():
            return _of_run(path, recipe)
        if (path / "adapter_config.json").is_file():
            return _adapter(path, path.parent.name if path.name == RunFile.ADAPTER else path.name, recipe)
        if (path / "config.json").is_file():
            name = path.parent.name if path.name == RunFile.ADAPTER else path.name
            return ExtraArm(name, identity(str(path)), base=str(path))
        cause = "the folder holds no run.json, no adapter_config.json and no config.json"
        raise UserError(f"{path} cannot answer the exam", cause, _HINT)
    # A hub name has one slash; where its first part is a folder here, the user means a run.
    is_path = reference.count("/") != 1 or reference.startswith((".", "/", "~"))
    if is_path or (recipe.folder / reference).parent.is_dir():
        raise UserError(f"there is nothing to compare at {reference}", "the folder does not exist", _HINT)
    return ExtraArm(reference.rpartition("/")[2], identity(reference), base=reference)


def _of_run(path: Path, recipe: Recipe) -> ExtraArm:
    adapter = path / RunFile.ADAPTER
    if not adapter.is_dir():
        hint = f"train it first: {command('train', path / RunFile.RECIPE, '--dir', path)}"
        raise UserError(f"the run {path} has no adapter to compare", "its training has not finished", hint)
    if is_full(adapter):
        raise UserError(
            f"the run {path} trained every weight and has no adapter",
            "its tuned model is a whole model",
            f"compare it as another base: {shell('--compare', adapter)}",
        )
    theirs = load_recipe(path / RunFile.RECIPE).model if (path / RunFile.RECIPE).is_file() else None
    if theirs and theirs.added_tokens != recipe.model.added_tokens:
        raise UserError(
            f"the adapter of {path} has other added tokens than this recipe",
            f"{list(theirs.added_tokens)} there, {list(recipe.model.added_tokens)} here",
            "compare runs with the same model.added_tokens",
        )
    return _adapter(adapter, path.name, recipe, theirs.base if theirs else None)


def _adapter(folder: Path, name: str, recipe: Recipe, base: str | None = None) -> ExtraArm:
    """Return the arm of an adapter's folder, trained on the named base, or on the base that its config names.

    Raises:
        UserError: the config cannot be read, or the adapter belongs to another base than the recipe's.
    """
    if base is None:
        with reading("file", folder / "adapter_config.json", _HINT):
            config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
            base = str(config.get("base_model_name_or_path") or "")
    if base and not _same_base(base, recipe):
        raise UserError(
            f"the adapter in {folder} belongs to another base model",
            f"it was trained on {base}; this recipe's model.base is {recipe.model.base}",
            "to compare runs of several bases on the same exam: tunewright compare DIR...",
        )
    return ExtraArm(name, file_digest(folder), adapter=folder)


def _same_base(name: str, recipe: Recipe) -> bool:
    """Return whether a name means the recipe's base: the same content of its folder, or the same last part."""
    own = recipe.model.base
    if recipe.resolve(name).is_dir() and recipe.resolve(own).is_dir():
        return identity(name, recipe.folder) == identity(own, recipe.folder)
    first, second = (NAME if base == EMBEDDED else Path(base).name for base in (name, own))
    return first.lower() == second.lower()
