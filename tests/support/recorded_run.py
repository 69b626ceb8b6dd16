"""A run folder that version 0.1.0 recorded, with its tiny model and its exports, unpacked where a test wants it."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pytest

from support import ABSTRACTS, TESTS
from tunewright.models.model_pool import ModelWeights
from tunewright.models.source import identity
from tunewright.recipe import Recipe
from tunewright.run_folder import RunFolder
from tunewright.storage import file_digest

ARCHIVE = TESTS / "recorded" / "run_0_1.tar.gz"
_ROOT = "@ROOT@"  # stands for the folder in which the run was recorded

# The recorded digests of what holds that folder's name (or, of the model, its files' times).
_RECIPE = "ea196579d946b753c0c3f669b2129ddb990a785c5751536ed1c9f480f7022ed2"
_ADAPTER = "0698126b88504e5c4d785ca078a561a1b86cb7c81e98d38d31ab7e9417d079ff"
_BASE = "19e531599925f11f"


def unpack(folder: Path) -> RunFolder:
    """Unpack the recipe, the model, the documents and the run below a folder, as if it had been recorded there."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    (folder / "abstracts").mkdir()
    for path in sorted(ABSTRACTS.glob("*.md"))[:12]:
        shutil.copy(path, folder / "abstracts")
    run = RunFolder(folder / "run")
    adapter, recipe = run.file("adapter"), run.file("recipe.toml")
    records = list(run.file("stages").glob("*.json"))
    for path in (folder / "recipe.toml", recipe, adapter / "adapter_config.json", *records):
        _replace(path, {_ROOT: str(folder)})
    digests = {_RECIPE: file_digest(recipe), _ADAPTER: file_digest(adapter), _BASE: identity(str(folder / "model"))}
    for path in records:
        _replace(path, digests)
    return run


def _replace(path: Path, words: dict[str, str]) -> None:
    text = path.read_text(encoding="utf-8")
    for old, new in words.items():
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


def answer_as_recorded(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the weights have the identity under which the run journaled their answers: it depends on the folder."""
    here = {identity(str(run.path.parent / "model")): _BASE, file_digest(run.file("adapter")): _ADAPTER}
    here["bfloat16"] = "float32"  # the type of the processor that recorded it
    weights_here = ModelWeights.of

    def recorded(recipe: Recipe, adapter: Path | None = None) -> ModelWeights:
        weights = weights_here(recipe, adapter)
        name = weights.identity
        for own, old in here.items():
            name = name.replace(own, old)
        return ModelWeights(weights.recipe, weights.adapter, name)

    monkeypatch.setattr(ModelWeights, "of", recorded)
