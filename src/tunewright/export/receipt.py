"""The receipt of an export: what it was made of, the digest of every file, and the check of both."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunewright.errors import ExportError, RunFolderError
from tunewright.models.source import locate
from tunewright.recipe import Recipe, dump_recipe
from tunewright.records import digest
from tunewright.run_folder import RunFile
from tunewright.settings import EMBEDDED, LOCAL, MAKES_PAIRS, NO_PART_OF_RESULT, SELF, is_url
from tunewright.storage import file_digest, restore_folder, restore_folders, write_atomic

RECEIPT = "receipt.json"
DATA = (RunFile.TRAIN, RunFile.PAIRS, RunFile.DOCUMENTS, RunFile.SPLIT)  # what a training may read
EXAM = (RunFile.EXAM, RunFile.SEAL, RunFile.VERDICT)
_ADAPTER_RECORDS = (("train", "outputs", "the training wrote it"), ("evaluate", "ingredients", "it was evaluated"))
ADAPTER_STAGES = tuple(stage for stage, *_ in _ADAPTER_RECORDS)  # the stages whose records name the adapter's digest
_OF_BASE = (".safetensors", ".json", ".model", ".jinja", ".txt")
_EXPORT_AGAIN = "export it again, or copy it again: tunewright export DIR --to TARGET"


def base_digest(recipe: Recipe) -> str:
    """Return a digest of the base model's files."""
    folder = locate(recipe.model.base, recipe.folder)
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix in _OF_BASE)
    return digest(*[(path.name, file_digest(path)) for path in files])


def ingredients(recipe: Recipe, data: Mapping[str, str], record: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything that an adapter was made of.

    Args:
        recipe: the run's.
        data: digests of the run's files among DATA.
        record: of the stage train, which notes versions and machine; an old record has neither.
    """
    return {
        "settings": training_settings(recipe),
        "base": {"name": public_name(recipe.model.base), "digest": base_digest(recipe)},
        "data": dict(data),
        "versions": record.get("versions", {}),
        "machine": record.get("machine", {}),
    }


def training_settings(recipe: Recipe) -> dict[str, Any]:
    """Return the settings that an adapter depends on."""
    model = recipe.model.model_dump(mode="json", exclude={"base"})
    preference = recipe.preference.model_dump(mode="json", exclude=set(MAKES_PAIRS))
    training = recipe.training.model_dump(mode="json", exclude=set(NO_PART_OF_RESULT))
    return {"seed": recipe.seed, "model": model, "training": training, "preference": preference}


def public_name(path: str) -> str:
    """Return a path's last part if it shows folders of this machine, a URL without its query, a hub name as it is."""
    if is_url(path):
        return path.partition("?")[0]
    return Path(path).name if Path(path).is_absolute() or path.startswith("~") else path


def _public_url(url: str | tuple[str, ...]) -> str:
    """Return a teacher's kind in place of its address, which may be private."""
    return url if isinstance(url, str) and url in ("", EMBEDDED, LOCAL, SELF) else "a server"


def public_recipe(recipe: Recipe) -> str:
    """Return the recipe's text for publication: every path cut to its last part, no server's address."""
    cut = {
        "documents": {"paths": tuple(map(public_name, recipe.documents.paths))},
        "synthesis": {
            "data": tuple(map(public_name, recipe.synthesis.data)),
            "extraction_schema": public_name(recipe.synthesis.extraction_schema),
            "focus": public_name(recipe.synthesis.focus),
        },
        "preference": {"data": tuple(map(public_name, recipe.preference.data))},
        "exam": {"file": public_name(recipe.exam.file)},
        "training": {"start": public_name(recipe.training.start)},
        "model": {"base": public_name(recipe.model.base)},
        "curation": {"reward": public_name(recipe.curation.reward)},
        "teacher": {"model": public_name(recipe.teacher.model), "url": _public_url(recipe.teacher.url)},
        "judge": {"model": public_name(recipe.judge.model), "url": _public_url(recipe.judge.url)},
        "evaluation": {"compare": tuple(map(public_name, recipe.evaluation.compare))},
    }
    sections = {name: getattr(recipe, name).model_copy(update=values) for name, values in cut.items()}
    return dump_recipe(recipe.model_copy(update=sections))


def write_receipt(folder: Path, content: Mapping[str, Any]) -> None:
    """Write the receipt of a finished export: its content, and the digest of every file."""
    signed = {**content, "files": manifest(folder)}
    write_atomic(folder / RECEIPT, _text({**signed, "digest": digest(signed)}))


def _text(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def manifest(folder: Path) -> dict[str, str]:
    """Return the digest of every file of an export except the receipt."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / RECEIPT)
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in files}


def adapter_fault(adapter: Path, records: Mapping[str, Mapping[str, Any] | None], *, strict: bool) -> str:
    """Return why an adapter is not the one that was trained and evaluated; empty where it is.

    Args:
        adapter: the run's adapter.
        records: of each of ADAPTER_STAGES: None where the stage left none, empty where it is damaged.
        strict: a missing record is a fault as well.
    """
    if not adapter.is_dir():
        return "there is none"
    current = file_digest(adapter)
    for stage, part, event in _ADAPTER_RECORDS:
        record = records[stage]
        recorded = (record or {}).get(part, {}).get(RunFile.ADAPTER)
        damaged = record is not None and not record
        if damaged or recorded is None and strict:
            return f"no record says that {event}"
        if recorded not in (None, current):
            return f"it was changed after {event}: its digest is not the recorded one"
    return ""


def exports_in(folder: Path) -> list[Path]:
    """Return the exports in a folder by name, with those that a stopped swap left aside."""
    restore_folders(folder, RECEIPT)
    return sorted(path.parent for path in folder.glob(f"*/{RECEIPT}") if not path.parent.name.startswith("."))


def require_replaceable(folder: Path) -> None:
    """Refuse to replace anything but an export or an empty folder.

    Raises:
        RunFolderError: the path is a file, or a folder with other content.
    """
    if not folder.exists() or (folder / RECEIPT).is_file() or (folder.is_dir() and not any(folder.iterdir())):
        return
    raise RunFolderError(
        f"{folder} is not an export, so it is not replaced",
        f"it has no {RECEIPT}" if folder.is_dir() else "it is a file",
        "name another folder: -o FOLDER",
    )


def read_receipt(folder: Path) -> dict[str, Any]:
    """Return an export's receipt.

    Raises:
        RunFolderError: the folder has none.
        ExportError: it is not as it was written.
    """
    restore_folder(folder.resolve(), RECEIPT)
    path = folder / RECEIPT
    if not path.is_file():
        raise RunFolderError(
            f"{folder} is not an export", f"it has no {RECEIPT}", "write one: tunewright export DIR --to merged"
        )
    raw = path.read_bytes()
    try:
        content: dict[str, Any] = json.loads(raw)
        signed = {key: value for key, value in content.items() if key != "digest"}
        sound = digest(signed) == content["digest"] and _text(content) == raw
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        sound = False
    if not sound:
        raise ExportError(f"{path} was changed after it was written", "its digest does not match", _EXPORT_AGAIN)
    return content


def verify(folder: Path) -> dict[str, Any]:
    """Return the receipt of an export after checking every file against it.

    Raises:
        RunFolderError: the folder is not an export.
        ExportError: a file was changed, is missing, or was added; each is named.
    """
    receipt = read_receipt(folder)
    expected, actual = receipt["files"], manifest(folder)
    faults = [f"{name} was changed" for name in expected if name in actual and actual[name] != expected[name]]
    faults += [f"{name} is missing" for name in expected if name not in actual]
    faults += [f"{name} was added" for name in actual if name not in expected]
    if faults:
        raise ExportError(f"{folder} is not what was exported", "; ".join(faults), _EXPORT_AGAIN)
    return receipt
