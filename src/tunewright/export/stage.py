"""The stage export: an artifact is written, compared with the evaluated model, and then put in place of the old one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunewright import console, environment
from tunewright.errors import DiskFullError, RunFolderError, UserError, command, shell
from tunewright.export import adapter, merge
from tunewright.export.certificate import Certificate, certify, write_certificate
from tunewright.export.gguf import write
from tunewright.export.receipt import (
    ADAPTER_STAGES,
    DATA,
    EXAM,
    RECEIPT,
    adapter_fault,
    ingredients,
    public_recipe,
    require_replaceable,
    write_receipt,
)
from tunewright.export.reference import Reference, compute_reference, read_reference, reference_name, reference_prompts
from tunewright.export.target import Base, ExportRequest, Target
from tunewright.models.source import config_at_hand, read_config
from tunewright.models.stored_quantization import stored_nf4
from tunewright.models.student import student_tokenizer
from tunewright.recipe import Recipe, load_recipe
from tunewright.records import Question, Sample, Score
from tunewright.run_folder import RunFile, RunFolder
from tunewright.settings import Arm
from tunewright.storage import atomic_folder, disk_errors, file_digest, folder_aside, recover_folder

_SLACK = 1.02  # headers, tokenizers and the file system's own blocks


def export(run: RunFolder, target: str, out: Path | None = None, dtype: str = "", base: Base = "trained") -> Path:
    """Export a run's tuned model, and certify that it is the evaluated one.

    Args:
        run: a run folder with an adapter.
        target: a key of TARGETS.
        out: the folder to write; in the run folder's exports/ when None. An earlier export is replaced at the end.
        dtype: type of the weights; the target's default when empty.
        base: merge into the base as training loaded it, or as its files have it.

    Returns:
        The export's folder.

    Raises:
        UserError: an unknown target or type, no folder to write to, no adapter, or one that was changed after the
            evaluation.
        ExportError: the artifact differs from the evaluated model; an earlier export is kept.
        DiskFullError: no space; an earlier export is kept.
    """
    chosen, dtype = _choose(target, dtype)
    recipe = _evaluated_recipe(run)
    _require_original(recipe, base)
    parts = (target, dtype, "original" if base == "original" else "")
    folder = _resolved(out) if out is not None else run.file(RunFile.EXPORTS) / "-".join(filter(None, parts))
    require_replaceable(folder)
    with run.lock():
        request = ExportRequest(
            run.file(RunFile.ADAPTER),
            recipe,
            run.records_if_any(RunFile.EXAM, Question),
            dtype,
            base,
            run.records_if_any(RunFile.TRAIN, Sample),
        )

        def certificate(fresh: Path) -> Certificate:
            reference = _reference(run, request)  # slow, so after everything that refuses
            with chosen.runner(request, fresh) as runner:
                return certify(request, target, runner, reference, _tuned_scores(run))

        write_export(folder, chosen, request, certificate, lambda: receipt_content(run, request, target, folder))
    return folder


def write_export(
    folder: Path,
    target: Target,
    request: ExportRequest,
    certificate: Callable[[Path], Certificate],
    receipt: Callable[[], Mapping[str, Any]],
) -> None:
    """Write an export with its certificate and receipt; it takes the folder's name once everything is on disk.

    Args:
        folder: the export's; an earlier export there is replaced.
        target: the format.
        request: what it is made of.
        certificate: compares the artifact in the given folder with the evaluated model.
        receipt: returns the receipt's content.

    Raises:
        RunFolderError: the folder exists and is not an export.
        ExportError: the certificate is refused; an earlier export is kept.
        DiskFullError: no space; an earlier export is kept.
    """
    with replaced(folder, target.num_bytes(request)) as fresh:
        console.line(f"writing {folder}")
        target.write(request, fresh)
        write_certificate(fresh, certificate(fresh))
        write_receipt(fresh, receipt())


@contextmanager
def replaced(folder: Path, num_bytes: int) -> Iterator[Path]:
    """Yield an empty folder beside an export's that takes its name once the block ends and its files are on disk.

    Raises:
        RunFolderError: the folder exists and is not an export.
        DiskFullError: no space; an earlier export is kept.
    """
    recover_folder(folder, RECEIPT)
    require_replaceable(folder)
    require_replaceable(folder_aside(folder))
    _require_room(folder, num_bytes)
    with disk_errors(folder, num_bytes), atomic_folder(folder, RECEIPT) as fresh:
        yield fresh


def _require_room(folder: Path, num_bytes: int) -> None:
    """Refuse an export that the disk has no room for, before anything is written.

    Raises:
        DiskFullError: too little is free.
    """
    disk = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free, needed = shutil.disk_usage(disk).free, int(num_bytes * _SLACK)
    if free < needed:
        raise DiskFullError(
            f"not enough space for the export on the disk that holds {disk}",
            f"writing {folder.name} needs about {needed:,} bytes; {free:,} are free; nothing was written",
            "free some space, or name a folder on another disk: -o FOLDER",
        )


def _choose(target: str, dtype: str) -> tuple[Target, str]:
    """Return the target and its type of number."""
    if target not in TARGETS:
        raise UserError(f"there is no export target {target!r}", "", f"the targets are: {', '.join(TARGETS)}")
    allowed = TARGETS[target].dtypes
    if dtype and dtype not in allowed:
        hint = f"--dtype {', '.join(allowed)}" if allowed else "leave --dtype out: it is written as it was trained"
        raise UserError(f"a {target} export cannot have dtype {dtype!r}", "", hint)
    return TARGETS[target], dtype or (allowed[0] if allowed else "")


def _require_original(recipe: Recipe, base: Base) -> None:
    """Refuse to merge into an original that nobody has.

    Raises:
        UserError: the base's own files are quantized.
    """
    folder = config_at_hand(recipe.model.base, recipe.folder)
    if base == "original" and folder is not None and stored_nf4(read_config(folder)):
        raise UserError(
            f"{recipe.model.base} has no unquantized weights",
            "its own files are in NF4, and the adapter was trained on them",
            "leave --base out: the weights that were trained on are merged",
        )


def _resolved(out: Path) -> Path:
    """Return the folder that a path leads to: a link stays, and its target is replaced.

    Raises:
        UserError: the folder is in use, or has no name.
    """
    folder = Path(os.path.realpath(out))
    if not folder.name or folder == Path.cwd():
        raise UserError(
            f"{out} cannot become the export itself",
            "the whole folder is replaced at the end, and this one is in use",
            f"name a folder in it: {shell('-o', out / 'exported')}",
        )
    return folder


def _evaluated_recipe(run: RunFolder) -> Recipe:
    """Return the run's recipe if the adapter is the one that was trained and evaluated.

    Raises:
        RunFolderError: there is no adapter, or it was changed.
    """
    for name in (RunFile.RECIPE, RunFile.ADAPTER):
        if not run.file(name).exists():
            hint = run.again() if name != RunFile.RECIPE else command("run", "RECIPE.toml", "--dir", run.path)
            raise RunFolderError(f"{run.path} has no {name} yet", "there is nothing to export", hint)
    if fault := fault_of_adapter(run, strict=False):
        raise RunFolderError(f"the adapter of {run.path} is not the one that was evaluated", fault, run.again())
    if not run.file(RunFile.VERDICT).is_file():
        console.warning("this run has no verdict: the export is compared with a model that was not evaluated")
    return load_recipe(run.file(RunFile.RECIPE))


def fault_of_adapter(run: RunFolder, *, strict: bool) -> str:
    """Return why a run's adapter is not the one that was trained and evaluated; empty where it is."""
    records = {
        stage: run.stage_record(stage) if run.file(f"stages/{stage}.json").is_file() else None
        for stage in ADAPTER_STAGES
    }
    return adapter_fault(run.file(RunFile.ADAPTER), records, strict=strict)


def ingredients_of(run: RunFolder, recipe: Recipe) -> dict[str, Any]:
    """Return everything that a run's adapter was made of; the adapter itself may be missing."""
    return ingredients(recipe, _digests(run, DATA), run.stage_record("train"))


def receipt_content(run: RunFolder, request: ExportRequest, target: str, folder: Path) -> dict[str, Any]:
    """Return a receipt's content: the export, what it was made of, and what exported it."""
    inside = folder.resolve().is_relative_to(run.path.resolve())
    levels = len(folder.resolve().relative_to(run.path.resolve()).parts) if inside else 0
    return {
        "format": 1,
        "target": target,
        "dtype": request.dtype,
        "base": request.base,
        "run": "/".join([".."] * levels),  # the way to the run folder; empty where the export is outside of it
        "made_of": {**ingredients_of(run, request.recipe), RunFile.ADAPTER: file_digest(request.adapter)},
        "exam": _digests(run, EXAM),
        "recipe": public_recipe(request.recipe),
        "exported_with": {"versions": environment.versions(), "machine": environment.machine()},
    }


def _digests(run: RunFolder, names: tuple[str, ...]) -> dict[str, str]:
    """Return the digests of those files that the run has."""
    return {name: file_digest(run.file(name)) for name in names if run.file(name).is_file()}


def _reference(run: RunFolder, request: ExportRequest) -> Reference:
    """Return the evaluated model's distributions; computed once and kept in the run folder."""
    tokenizer = student_tokenizer(request.recipe)
    prompts = reference_prompts(tokenizer, request.recipe.system_prompt, request.questions)
    exports = run.file(RunFile.EXPORTS)
    file = exports / reference_name(request.adapter, request.recipe, prompts)
    if not file.is_file():
        content = compute_reference(request.adapter, request.recipe, tokenizer, prompts)
        for old in exports.glob("*reference-*.npz*"):
            old.unlink()
        run.write(f"{RunFile.EXPORTS}/{file.name}", content)
    return read_reference(file, request.recipe, tokenizer, prompts)


def _tuned_scores(run: RunFolder) -> dict[str, float]:
    """Return the tuned model's primary score by question; empty where it has not answered the exam."""
    scores = run.records_if_any(RunFile.SCORES, Score)
    return {score.question: score.primary for score in scores if score.arm == Arm.TUNED}


TARGETS: Mapping[str, Target] = {
    "adapter": Target(adapter.write_adapter, adapter.adapter_runner, adapter.adapter_bytes),
    "merged": Target(merge.write_merged, merge.merged_runner, merge.merged_bytes, ("bf16", "fp16", "fp32")),
    "gguf": Target(write.write_model_file, write.model_runner, write.model_bytes, write.MODEL_DTYPES),
    "gguf-adapter": Target(write.write_adapter_file, write.on_base_runner, write.adapter_file_bytes, ("f16",)),
    "ollama": Target(write.write_ollama_folder, write.ollama_runner, write.model_bytes, write.MODEL_DTYPES),
}
