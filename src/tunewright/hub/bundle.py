"""The files that a push sends, each with its size and digest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright.errors import ExportError, RunFolderError, command
from tunewright.export.base_model import NamedBase, public_config
from tunewright.export.receipt import RECEIPT, exports_in, read_receipt, verify
from tunewright.export.tokenizer import portable_template
from tunewright.models.chat_template import load_tokenizer
from tunewright.models.loading import is_full
from tunewright.run_folder import RunFile
from tunewright.storage import file_digest

CARD = "README.md"
_TEMPLATE = "chat_template.jinja"


@dataclass(frozen=True)
class BundleFile:
    """A file to send, its content on disk or in ``content``."""

    name: str
    size: int
    sha256: str
    path: Path | None = None
    content: bytes | None = None


@dataclass(frozen=True)
class Bundle:
    """All files of a repository except the card.

    Attributes:
        kind: "adapter", "full" (a whole model as it was trained), or the target of an export.
        files: sorted by name.
        parity: the sentences of an export's certificate; empty for the run's own weights, which need none.
    """

    kind: str
    files: tuple[BundleFile, ...]
    parity: tuple[str, ...] = ()

    @property
    def is_evaluated(self) -> bool:
        """Whether these are the very files that were evaluated, not an export of them."""
        return self.kind in ("adapter", "full")


def file_of_text(name: str, text: str) -> BundleFile:
    """Return a file with this text."""
    content = text.encode()
    return BundleFile(name, len(content), hashlib.sha256(content).hexdigest(), content=content)


def file_on_disk(name: str, path: Path) -> BundleFile:
    """Return a file on disk under its name in the repository."""
    return BundleFile(name, path.stat().st_size, file_digest(path), path=path)


def weights_bundle(adapter: Path, base: NamedBase) -> Bundle:
    """Return a run's adapter, or whole model, as it was evaluated.

    Configurations name the base by its hub name instead of a folder of this machine. The chat template gets what
    training adds to it, as that of an export does.
    """
    paths = sorted(path for path in adapter.rglob("*") if path.is_file())
    files = (_sent(path.relative_to(adapter).as_posix(), path, base) for path in paths)
    kind = "full" if is_full(adapter) else "adapter"
    return Bundle(kind, tuple(file for file in files if file.name != CARD))


def export_bundle(exports: Path, target: str, adapter: Path) -> Bundle:
    """Return an export of a run, every file as its receipt has it.

    Args:
        exports: the run's folder of exports.
        target: the name of a folder in it, or an export target that only one of them has.
        adapter: the run's adapter.

    Raises:
        RunFolderError: there is no such export, there are several, or it is of an earlier adapter.
        ExportError: a file of it was changed.
    """
    folder = _export_folder(exports, target)
    receipt = _verified(folder, adapter)
    names = [*receipt["files"], RECEIPT]
    certificate = folder / "certificate.md"
    lines = certificate.read_text(encoding="utf-8").splitlines() if certificate.is_file() else []
    files = tuple(file_on_disk(name, folder / name) for name in sorted(names) if name != CARD)
    return Bundle(str(receipt["target"]), files, tuple(line[2:] for line in lines if line.startswith("- ")))


def exports_of(exports: Path, target: str) -> list[Path]:
    """Return the export of that name, or else all exports to that target."""
    folders = exports_in(exports)
    return [path for path in folders if path.name == target] or [path for path in folders if _is_of(path, target)]


def _is_of(folder: Path, target: str) -> bool:
    try:
        return bool(read_receipt(folder).get("target") == target)
    except ExportError:  # a damaged one is matched by its name; the damage is reported when it is read
        return folder.name.startswith(f"{target}-")


def _export_folder(exports: Path, target: str) -> Path:
    run = exports.parent
    matches = exports_of(exports, target)
    if len(matches) == 1:
        return matches[0]
    names = ", ".join(path.name for path in matches or exports_in(exports))
    choose, make = f"name one with --to: {names}", f"make it: {command('export', run, '--to', target)}"
    hint = choose if matches else f"{make}; or {choose}" if names else make
    raise RunFolderError(f"{run} has {'several exports' if matches else 'no export'} {target}", f"in {exports}", hint)


def _verified(folder: Path, adapter: Path) -> dict[str, Any]:
    """Return an export's receipt if its files are unchanged and it was made of the current adapter."""
    receipt = verify(folder)
    if not adapter.is_dir() or receipt["made_of"][RunFile.ADAPTER] != file_digest(adapter):
        raise RunFolderError(
            f"{folder} is not an export of the current adapter, so it is not pushed",
            "it was made of another adapter",
            _export_again(adapter.parent, receipt),
        )
    return receipt


def _export_again(run: Path, receipt: Mapping[str, Any]) -> str:
    dtype = ("--dtype", receipt["dtype"]) if receipt.get("dtype") else ()
    base = ("--base", "original") if receipt.get("base") == "original" else ()
    return f"export it again: {command('export', run, '--to', receipt['target'], *dtype, *base)}"


def _sent(name: str, path: Path, base: NamedBase) -> BundleFile:
    """Return a file as it is sent: configurations without folders of this machine, the template made portable."""
    if name == _TEMPLATE:
        return file_of_text(name, portable_template(load_tokenizer(path.parent)))
    if name not in ("adapter_config.json", "config.json", "tokenizer_config.json"):
        return file_on_disk(name, path)
    return file_of_text(name, public_config(path, base).decode())
