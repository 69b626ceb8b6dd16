"""What a push sends: each file with its size and digest, taken from a run only as its stages left it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright.errors import ExportError, RunFolderError, command
from tunewright.export.base_model import NamedBase, public_config
from tunewright.export.receipt import adapter_fault, read_receipt, verify
from tunewright.export.swap import RECEIPT, exports_in
from tunewright.export.tokenizer import portable_template
from tunewright.models.chat_template import load_tokenizer
from tunewright.models.loading import is_full
from tunewright.run_folder import RunFile, RunFolder
from tunewright.storage import file_digest

CARD = "README.md"
_TEMPLATE = "chat_template.jinja"
_DATA = {RunFile.TRAIN: "curate", RunFile.PAIRS: "pairs"}  # files of the training set and the stages that write them


@dataclass(frozen=True)
class File:
    """A file to send, its content on disk or in ``content``."""

    name: str
    size: int
    sha256: str
    path: Path | None = None
    content: bytes | None = None


@dataclass(frozen=True)
class Parcel:
    """All files of one repository but the card.

    ``kind`` is "adapter", "full" (a whole model as it was trained), or the target of an export. ``parity`` holds the
    sentences of an export's certificate; the weights of the run itself need none.
    """

    kind: str
    files: tuple[File, ...]
    parity: tuple[str, ...] = ()

    @property
    def is_examined(self) -> bool:
        """Whether these are the very files that sat the exam, no export of them."""
        return self.kind in ("adapter", "full")


def of_text(name: str, text: str) -> File:
    """Return a file of this text."""
    content = text.encode()
    return File(name, len(content), hashlib.sha256(content).hexdigest(), content=content)


def of_path(name: str, path: Path) -> File:
    """Return a file of the disk under the name that it gets in the repository."""
    return File(name, path.stat().st_size, file_digest(path), path=path)


def trained_weights(run: RunFolder, base: NamedBase) -> Parcel:
    """Return the run's adapter, or whole model, as it sat the exam.

    Where a configuration names a folder of this machine as its base, it names the base's hub name instead. The chat
    template gets what training adds to it from outside, as that of an export does.

    Raises:
        RunFolderError: it is not what its training left, or not what was examined.
    """
    folder = run.file(RunFile.ADAPTER)
    if fault := adapter_fault(run, strict=True):
        raise RunFolderError(
            f"{folder} is not what was examined, so it is not pushed", fault, f"make it anew: {run.again()}"
        )
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = (_sent(path.relative_to(folder).as_posix(), path, base) for path in paths)
    kind = "full" if is_full(folder) else "adapter"
    return Parcel(kind, tuple(file for file in files if file.name != CARD))


def exported(run: RunFolder, target: str) -> Parcel:
    """Return an export of the run, every file as its receipt has it.

    Args:
        run: a run folder with exports.
        target: the name of a folder in exports/, or an export target that only one of them is of.

    Raises:
        RunFolderError: there is no such export, several are, or it is of an earlier adapter.
        ExportError: a file of it was changed.
    """
    folder = _export_folder(run, target)
    receipt = _verified(run, folder)
    names = [*receipt["files"], RECEIPT]
    told = folder / "certificate.md"
    lines = told.read_text(encoding="utf-8").splitlines() if told.is_file() else []
    files = tuple(of_path(name, folder / name) for name in sorted(names) if name != CARD)
    return Parcel(str(receipt["target"]), files, tuple(line[2:] for line in lines if line.startswith("- ")))


def exports_of(run: RunFolder, target: str) -> list[Path]:
    """Return the export of that name, or else all that were exported to that target."""
    folders = exports_in(run.file(RunFile.EXPORTS))
    return [path for path in folders if path.name == target] or [path for path in folders if _is_of(path, target)]


def _is_of(folder: Path, target: str) -> bool:
    try:
        return bool(read_receipt(folder).get("target") == target)
    except ExportError:  # a damaged one goes by its name: that it is damaged is told once it is asked for
        return folder.name.startswith(f"{target}-")


def _export_folder(run: RunFolder, target: str) -> Path:
    found = exports_of(run, target)
    if len(found) == 1:
        return found[0]
    there = ", ".join(path.name for path in found or exports_in(run.file(RunFile.EXPORTS)))
    name_one, make = f"name one with --to: {there}", f"make it: {command('export', run.path, '--to', target)}"
    hint = name_one if found else f"{make}; or {name_one}" if there else make
    raise RunFolderError(
        f"{run.path} has {'several exports' if found else 'no export'} {target}", f"in {run.file('exports')}", hint
    )


def _verified(run: RunFolder, folder: Path) -> dict[str, Any]:
    """Return an export's receipt, if all stands as it was written and is of the adapter that is there now."""
    receipt = verify(folder)
    adapter = run.file(RunFile.ADAPTER)
    if not adapter.is_dir() or receipt["made_of"]["adapter"] != file_digest(adapter):
        raise RunFolderError(
            f"{folder} is not what was exported, so it is not pushed",
            "it was made of another adapter than the one that is there now",
            _anew(run, receipt),
        )
    return receipt


def _anew(run: RunFolder, receipt: Mapping[str, Any]) -> str:
    dtype = ("--dtype", receipt["dtype"]) if receipt.get("dtype") else ()
    base = ("--base", "original") if receipt.get("base") == "original" else ()
    return f"export it anew: {command('export', run.path, '--to', receipt['target'], *dtype, *base)}"


def training_data(run: RunFolder) -> tuple[File, ...]:
    """Return the training set's files, as curation left them; the exam stays here, or it would examine nobody again.

    Raises:
        RunFolderError: a file was changed, or there is none.
    """
    files = []
    for name, stage in _DATA.items():
        recorded = run.stage_record(stage).get("outputs", {}).get(name)
        path = run.file(name)
        if recorded is None and not path.exists():
            continue
        if not path.is_file() or file_digest(path) != recorded:
            raise RunFolderError(
                f"{path} is not what was trained on, so it is not pushed",
                f"it was changed after the stage {stage} wrote it",
                f"make it anew: {run.again()}",
            )
        if path.stat().st_size:
            files.append(of_path(f"data/{name}", path))
    if not files:
        raise RunFolderError(
            f"{run.path} has no training set to push", "it was trained on raw text alone", "push without --with-data"
        )
    return tuple(files)


def _sent(name: str, path: Path, base: NamedBase) -> File:
    """Return a file as it is sent: a configuration without the folders of this machine, a template without needs."""
    if name == _TEMPLATE:
        return of_text(name, portable_template(load_tokenizer(path.parent)))
    if name not in ("adapter_config.json", "config.json", "tokenizer_config.json"):
        return of_path(name, path)
    return of_text(name, public_config(path, base).decode())
