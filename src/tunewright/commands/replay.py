"""Training again from a receipt: whether the same ingredients give the same adapter, and which one differs if not."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunewright import console
from tunewright.errors import ExportError, RunFolderError
from tunewright.export.receipt import DATA, ingredients, read_receipt
from tunewright.export.swap import RECEIPT
from tunewright.recipe import load_recipe
from tunewright.run_folder import RunFile, RunFolder
from tunewright.storage import file_digest

_MUST = ("settings", "base", "data")  # another one of these is another training, which need not be run to know
_MAY = ("versions", "machine")  # these may change the last bits, and so are asked only when the digests differ


def replay(receipt: Path, folder: Path | None = None) -> None:
    """Train again what a receipt names, and compare the adapters' digests.

    Args:
        receipt: an export, or its receipt.json.
        folder: the run folder with recipe and data; as the receipt gives it when None.

    Raises:
        RunFolderError: the run folder is not found, or holds another recipe or other data than the receipt names.
        ExportError: the adapter is another one; the first ingredient that differs is named.
    """
    export = receipt.parent if receipt.name == RECEIPT else receipt
    content = read_receipt(export)
    made_of = content["made_of"]
    if made_of["machine"].get("device") == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before torch is loaded: the receipt's adapter was made on a CPU
    run = RunFolder.open(_run_of(export, content, folder))
    current = ingredients(run, load_recipe(run.file(RunFile.RECIPE)))
    if differs := _first_difference(made_of, current, _MUST):
        raise RunFolderError(
            f"{run.path} does not hold what {export / RECEIPT} was made of",
            differs,
            "name the run folder that it was made from: --dir DIR",
        )
    _use_threads(made_of["machine"].get("threads", ""))
    adapter = _train_again(run)
    if adapter == made_of["adapter"]:
        console.line(f"the same adapter: {adapter}")
        return
    raise ExportError(
        f"the adapter is another one: {adapter[:16]}, the receipt says {made_of['adapter'][:16]}",
        _first_difference(made_of, _now(), _MAY) or "no ingredient differs that a receipt knows of",
        "install the versions that the receipt names, and replay on the machine that it names",
    )


def _run_of(export: Path, content: Mapping[str, Any], folder: Path | None) -> Path:
    if folder is not None:
        return folder
    if not content["run"]:
        raise RunFolderError(
            f"{export / RECEIPT} does not say where its run is",
            "the export was written outside of the run folder",
            "name the run folder that it was made from: --dir DIR",
        )
    return export / str(content["run"])


def _now() -> dict[str, Any]:
    from tunewright import environment

    return {"versions": environment.versions(), "machine": environment.machine()}


def _first_difference(wanted: Mapping[str, Any], current: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """Return the first ingredient that differs, with both values; nothing where all are the same."""
    for name in names:
        before, now = _flat(name, wanted[name]), _flat(name, current[name])
        for key in dict.fromkeys([*before, *now]):
            if before.get(key) != now.get(key):
                return f"{key} was {before.get(key, 'absent')}, it is {now.get(key, 'absent')}"
    return ""


def _flat(name: str, value: Any) -> dict[str, Any]:
    """Return nested values by their dotted names."""
    if not isinstance(value, dict):
        return {name: value}
    return {key: inner for part, one in value.items() for key, inner in _flat(f"{name}.{part}", one).items()}


def _use_threads(number: str) -> None:
    """Split sums among as many threads as the training had: another split rounds otherwise."""
    if number:
        import torch

        torch.set_num_threads(int(number))


def _train_again(run: RunFolder) -> str:
    """Return the digest of an adapter trained on the run's data in a folder of its own."""
    from tunewright.training.stage import train_adapter

    recipe = load_recipe(run.file(RunFile.RECIPE))
    with tempfile.TemporaryDirectory(prefix="replay-") as work:
        again = RunFolder.create(Path(work) / "run")
        for name in DATA:
            if run.file(name).is_file():
                shutil.copyfile(run.file(name), again.file(name))
        train_adapter(again, recipe)
        return file_digest(again.file(RunFile.ADAPTER))
