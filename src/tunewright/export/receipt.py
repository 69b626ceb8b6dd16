"""The receipt of an export: what it was made of, and the digest of every file; and the check that all still stand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunewright import environment
from tunewright.errors import ExportError, RunFolderError
from tunewright.export.swap import RECEIPT, put_back
from tunewright.models.source import locate
from tunewright.recipe import Recipe, dump_recipe
from tunewright.records import digest
from tunewright.run_folder import RunFile, RunFolder
from tunewright.settings import EMBEDDED, LOCAL, MAKES_PAIRS, NO_PART_OF_RESULT
from tunewright.storage import file_digest, write_atomic

DATA = (RunFile.TRAIN, RunFile.PAIRS, RunFile.DOCUMENTS, RunFile.SPLIT)  # what a training may read
_EXAM = (RunFile.EXAM, RunFile.SEAL, RunFile.VERDICT)
_OF_ADAPTER = (("train", "outputs", "the training wrote it"), ("evaluate", "ingredients", "it sat the exam"))
_OF_BASE = (".safetensors", ".json", ".model", ".jinja", ".txt")


def base_digest(recipe: Recipe) -> str:
    """Return the digest of the base model's files, by their content."""
    folder = locate(recipe.model.base, recipe.folder)
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix in _OF_BASE)
    return digest(*[(path.name, file_digest(path)) for path in files])


def file_digests(run: RunFolder, names: tuple[str, ...]) -> dict[str, str]:
    """Return the digests of those files that the run has."""
    return {name: file_digest(run.file(name)) for name in names if run.file(name).is_file()}


def ingredients(run: RunFolder, recipe: Recipe) -> dict[str, Any]:
    """Return all that the adapter was made of; what came of it may be gone.

    Versions and machine are those of the training, as its stage noted them; a run of an earlier tunewright has none.
    """
    record = run.stage_record("train")
    return {
        "settings": training_settings(recipe),
        "base": {"name": public_name(recipe.model.base), "digest": base_digest(recipe)},
        "data": file_digests(run, DATA),
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
    """Return a name without the folders that lead to it on this machine; a hub name stays as it is."""
    return Path(path).name if Path(path).is_absolute() or path.startswith("~") else path


def _public_url(url: str | tuple[str, ...]) -> str:
    """Return a teacher's kind in place of its address, which may be nobody else's business."""
    return url if isinstance(url, str) and url in ("", EMBEDDED, LOCAL) else "a server"


def public_recipe(recipe: Recipe) -> str:
    """Return the recipe's text with every path cut to its last part, and no server's address: it travels."""
    cut = {
        "documents": {"paths": tuple(map(public_name, recipe.documents.paths))},
        "synthesis": {
            "data": tuple(map(public_name, recipe.synthesis.data)),
            "extraction_schema": public_name(recipe.synthesis.extraction_schema),
        },
        "preference": {"data": tuple(map(public_name, recipe.preference.data))},
        "exam": {"file": public_name(recipe.exam.file)},
        "model": {"base": public_name(recipe.model.base)},
        "curation": {"reward": public_name(recipe.curation.reward)},
        "teacher": {"model": public_name(recipe.teacher.model), "url": _public_url(recipe.teacher.url)},
        "judge": {"model": public_name(recipe.judge.model), "url": _public_url(recipe.judge.url)},
        "evaluation": {"compare": tuple(map(public_name, recipe.evaluation.compare))},
    }
    sections = {name: getattr(recipe, name).model_copy(update=values) for name, values in cut.items()}
    return dump_recipe(recipe.model_copy(update=sections))


def seal(folder: Path, run: RunFolder, recipe: Recipe, facts: Mapping[str, Any]) -> None:
    """Write the receipt of a finished export: its facts, its ingredients, and the digest of every file."""
    content = {
        "format": 1,
        **facts,
        "made_of": {**ingredients(run, recipe), RunFile.ADAPTER: file_digest(run.file(RunFile.ADAPTER))},
        "exam": file_digests(run, _EXAM),
        "recipe": public_recipe(recipe),
        "exported_with": {"versions": environment.versions(), "machine": environment.machine()},
    }
    write_receipt(folder, content)


def write_receipt(folder: Path, content: Mapping[str, Any]) -> None:
    """Write the receipt: these facts, the digest of each file, and the digest of both."""
    whole = {**content, "files": manifest(folder)}
    write_atomic(folder / RECEIPT, _text({**whole, "digest": digest(whole)}))


def _text(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def manifest(folder: Path) -> dict[str, str]:
    """Return the digest of every file of an export except the receipt."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / RECEIPT)
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in files}


def adapter_fault(run: RunFolder, *, strict: bool) -> str:
    """Return why a run's adapter is not the one that was trained and sat the exam; nothing where it is.

    Args:
        run: a run folder.
        strict: a stage without a record is a fault as well; else it is passed over.
    """
    folder = run.file(RunFile.ADAPTER)
    if not folder.is_dir():
        return "there is none"
    found = file_digest(folder)
    for stage, part, what in _OF_ADAPTER:
        recorded = run.stage_record(stage).get(part, {}).get("adapter")
        damaged = run.file(f"stages/{stage}.json").is_file() and not run.stage_record(stage)
        if damaged or recorded is None and strict:
            return f"no record says that {what}"
        if recorded not in (None, found):
            return f"it was changed after {what}: its digest is not the recorded one"
    return ""


def read_receipt(folder: Path) -> dict[str, Any]:
    """Return an export's receipt.

    Raises:
        RunFolderError: the folder has none.
        ExportError: it is not as it was written.
    """
    put_back(folder.resolve())
    path = folder / RECEIPT
    if not path.is_file():
        raise RunFolderError(f"{folder} is not an export", f"it has no {RECEIPT}", "tunewright export DIR --to merged")
    raw = path.read_bytes()
    try:
        content: dict[str, Any] = json.loads(raw)
        whole = {key: value for key, value in content.items() if key != "digest"}
        sound = digest(whole) == content["digest"] and _text(content) == raw
    except (ValueError, KeyError, AttributeError, TypeError):
        sound = False
    if not sound:
        raise ExportError(f"{path} was changed after it was written", "its digest does not fit", _ANEW)
    return content


_ANEW = "export it anew, or copy it again: tunewright export DIR --to TARGET"


def verify(folder: Path) -> dict[str, Any]:
    """Return the receipt of an export whose files all are as they were written.

    Raises:
        RunFolderError: the folder is not an export.
        ExportError: a file was changed, is missing, or was added; each is named.
    """
    receipt = read_receipt(folder)
    expected, found = receipt["files"], manifest(folder)
    faults = [f"{name} was changed" for name in expected if name in found and found[name] != expected[name]]
    faults += [f"{name} is missing" for name in expected if name not in found]
    faults += [f"{name} was added" for name in found if name not in expected]
    if faults:
        raise ExportError(f"{folder} is not what was exported", "; ".join(faults), _ANEW)
    return receipt
