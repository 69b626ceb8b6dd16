"""Who else sits the exam on request: adapters of other runs, adapters trained elsewhere, other base models."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tunewright.errors import UserError, command, shell
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

_ADAPTER = "adapter"
# What arms are called already, and what else stands beside arms' names in tables of answers and in marks.
_TAKEN = {*Arm, "kept"}
_TAKEN |= {"question", "gold", "winner", "tie", "both bad", "cannot tell", "neither"}
_HINT = "name a run folder, an adapter's folder in peft's format, a model's folder, or a hub name"


@dataclass(frozen=True)
class Compared:
    """One that sits the exam besides the recipe's arms: an adapter on the recipe's base, or another base.

    ``content`` names what it holds, so that a change is seen.
    """

    name: str
    content: str
    adapter: Path | None = None
    base: str = ""


def compared(recipe: Recipe) -> list[Compared]:
    """Return what ``evaluation.compare`` names, each under a name of its own.

    Raises:
        UserError: a path leads to nothing that can sit the exam, or to an adapter of another base.
    """
    found: list[Compared] = []
    taken = set(_TAKEN)
    for given in recipe.evaluation.compare:
        one = _one(given, recipe)
        name = free_name(one.name, taken)
        taken.add(name.lower())
        found.append(Compared(name, one.content, one.adapter, one.base))
    return found


def compared_digest(recipe: Recipe) -> str:
    """Return what names the content of all that ``evaluation.compare`` names; nothing where it names nothing."""
    found = compared(recipe)
    return digest(*[(one.name, one.content) for one in found]) if found else ""


def weights_of(one: Compared, recipe: Recipe) -> ModelWeights:
    """Return the weights that answer, quantized and computed as the recipe says."""
    if one.adapter is not None:
        return ModelWeights.of(recipe, one.adapter)
    model = recipe.model.model_copy(update={"base": one.base, "added_tokens": ()})
    return ModelWeights.of(recipe.model_copy(update={"model": model}))


def compared_table(verdict: Verdict) -> tuple[list[str], list[list[str]]] | None:
    """Return columns and rows of the differences to what was compared; None without any."""
    level = 1 - verdict.rule["alpha"]
    columns = ["compared on request", "difference", f"{level:.0%} interval", "p, adjusted"]
    rows = difference_rows(verdict.results.compared)
    return (columns, rows) if rows else None


def difference_rows(differences: Sequence[Difference]) -> list[list[str]]:
    """Return the rows of differences looked at beside the verdict: who, how much, interval, corrected p."""
    return [
        [f"{d.first} − {d.second}", signed(d.interval.mean), spread(d.interval), p_value(d.p_holm or 0.0)]
        for d in differences
    ]


def free_name(name: str, taken: set[str]) -> str:
    """Return the name, with a number after it where it is taken, and no sign that tables could not hold.

    Args:
        name: as a folder or a model is called.
        taken: in lower case, which is how names are told apart.
    """
    plain = re.sub(r"[^\w.+-]+", "-", name).strip("-.+") or "compared"
    number = 2
    free = plain
    while free.lower() in taken:
        free, number = f"{plain}-{number}", number + 1
    return free


def _one(given: str, recipe: Recipe) -> Compared:
    path = recipe.resolve(given)
    if given == EMBEDDED:
        return Compared(NAME, identity(EMBEDDED), base=EMBEDDED)
    if path.is_dir():
        if (path / "run.json").is_file() or (path / RunFile.RECIPE).is_file():
            return _of_run(path, recipe)
        if (path / "adapter_config.json").is_file():
            return _adapter(path, path.parent.name if path.name == _ADAPTER else path.name, recipe)
        if (path / "config.json").is_file():
            name = path.parent.name if path.name == _ADAPTER else path.name
            return Compared(name, identity(str(path)), base=str(path))
        cause = "the folder holds no run.json, no adapter_config.json and no config.json"
        raise UserError(f"{path} can sit no exam", cause, _HINT)
    # A hub name has one slash; where its first part is a folder here, a run was meant.
    if given.count("/") != 1 or given.startswith((".", "/", "~")) or (recipe.folder / given).parent.is_dir():
        raise UserError(f"there is nothing to compare at {given}", "no such folder", _HINT)
    return Compared(given.rpartition("/")[2], identity(given), base=given)


def _of_run(path: Path, recipe: Recipe) -> Compared:
    adapter = path / _ADAPTER
    if not adapter.is_dir():
        hint = f"train it first: {command('train', path / 'recipe.toml', '--dir', path)}"
        raise UserError(f"the run {path} has no adapter to compare", "its training has not finished", hint)
    if is_full(adapter):
        raise UserError(
            f"the run {path} trained every weight and has no adapter",
            "its tuned model is a whole model of its own",
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


def _adapter(folder: Path, name: str, recipe: Recipe, base: str | None = None) -> Compared:
    """Return an adapter's folder to compare, trained on the base of that name, or of the name in its own config.

    Raises:
        UserError: the config cannot be read, or the adapter belongs to another base than the recipe's.
    """
    if base is None:
        try:
            config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
            base = str(config.get("base_model_name_or_path") or "")
        except (OSError, ValueError, AttributeError) as error:
            raise UserError(f"cannot read {folder / 'adapter_config.json'}", str(error), _HINT) from error
    if base and not _same_base(base, recipe):
        raise UserError(
            f"the adapter in {folder} belongs to another base",
            f"it was trained on {base}; this recipe's model.base is {recipe.model.base}",
            "runs of several bases that sat the same exam stand side by side in: tunewright table DIR...",
        )
    return Compared(name, file_digest(folder), adapter=folder)


def _same_base(name: str, recipe: Recipe) -> bool:
    """Return whether a base's name means the recipe's base: the same folder's content, or the same last name."""
    own = recipe.model.base
    if recipe.resolve(name).is_dir() and recipe.resolve(own).is_dir():
        return identity(name, recipe.folder) == identity(own, recipe.folder)
    first, second = (NAME if one == EMBEDDED else Path(one).name for one in (name, own))
    return first.lower() == second.lower()
