"""The command replay: training again from a receipt, to check that the same ingredients give the same adapter."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunewright import console
from tunewright.errors import ExportError, RunFolderError
from tunewright.export.receipt import DATA, RECEIPT, read_receipt
from tunewright.export.stage import ingredients_of
from tunewright.recipe import Recipe, load_recipe
from tunewright.run_folder import RunFile, RunFolder
from tunewright.storage import file_digest

_MUST = ("settings", "base", "data")  # if one of these differs, it is another training, and is not run
_MAY = ("versions", "machine")  # these may change the last bits: compared only when the digests differ


def replay(receipt: Path, folder: Path | None = None) -> None:
    """Train again from a receipt, and compare the adapters' digests.

    Args:
        receipt: an export, or its receipt.json.
        folder: the run folder with recipe and data; the one in the receipt when None.

    Raises:
        RunFolderError: there is no run folder, or its recipe or data differ from the receipt's.
        ExportError: the adapter differs; the error names the first ingredient that differs.
    """
    export = receipt.parent if receipt.name == RECEIPT else receipt
    content = read_receipt(export)
    made_of = content["made_of"]
    if made_of["machine"].get("device") == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before torch is loaded: the receipt's adapter was made on a CPU
    run = RunFolder.open(_run_of(export, content, folder))
    recipe = load_recipe(run.file(RunFile.RECIPE))
    if difference := _first_difference(made_of, ingredients_of(run, recipe), _MUST):
        raise RunFolderError(
            f"{run.path} does not hold the ingredients of {export / RECEIPT}",
            difference,
            "name its run folder: --dir DIR",
        )
    _use_threads(made_of["machine"].get("threads", ""))
    adapter = _train_again(run, recipe)
    if adapter == made_of["adapter"]:
        console.line(f"the same adapter: {adapter}")
        return
    raise ExportError(
        f"the adapter differs: it is {adapter[:16]}, the receipt says {made_of['adapter'][:16]}",
        _first_difference(made_of, _current(), _MAY) or "none of the ingredients in the receipt differs",
        "install the versions in the receipt, and replay on the machine that it names",
    )


def _run_of(export: Path, content: Mapping[str, Any], folder: Path | None) -> Path:
    if folder is not None:
        return folder
    if not content["run"]:
        raise RunFolderError(
            f"{export / RECEIPT} does not name its run",
            "the export was written outside its run folder",
            "name its run folder: --dir DIR",
        )
    return export / str(content["run"])


def _current() -> dict[str, Any]:
    from tunewright import environment

    return {"versions": environment.versions(), "machine": environment.machine()}


def _first_difference(expected: Mapping[str, Any], actual: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """Return the first ingredient that differs, with both values; empty where all are the same."""
    for name in names:
        before, now = _flat(name, expected[name]), _flat(name, actual[name])
        for key in dict.fromkeys([*before, *now]):
            if before.get(key) != now.get(key):
                return f"{key} was {before.get(key, 'absent')}, it is {now.get(key, 'absent')}"
    return ""


def _flat(name: str, value: Any) -> dict[str, Any]:
    """Return nested values by their dotted names."""
    if not isinstance(value, dict):
        return {name: value}
    return {key: inner for part, item in value.items() for key, inner in _flat(f"{name}.{part}", item).items()}


def _use_threads(number: str) -> None:
    """Use the training's number of threads: sums are split among them, and another split rounds differently."""
    if number:
        import torch

        torch.set_num_threads(int(number))


def _train_again(run: RunFolder, recipe: Recipe) -> str:
    """Return the digest of an adapter trained on the run's data in a temporary run folder."""
    from tunewright.training.stage import train_adapter

    with tempfile.TemporaryDirectory(prefix="replay-") as work:
        again = RunFolder.create(Path(work) / "run")
        for name in DATA:
            if run.file(name).is_file():
                shutil.copyfile(run.file(name), again.file(name))
        train_adapter(again, recipe)
        return file_digest(again.file(RunFile.ADAPTER))
