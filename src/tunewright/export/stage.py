"""The export: written beside the old one, compared with the examined model, then put in its place."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunewright import console
from tunewright.errors import RunFolderError, UserError, command, shell
from tunewright.export import adapter, merge, receipt
from tunewright.export.certificate import certify, write_certificate
from tunewright.export.gguf import write
from tunewright.export.reference import reference
from tunewright.export.swap import replaced, require_replaceable
from tunewright.export.target import Base, Target
from tunewright.recipe import Recipe, load_recipe
from tunewright.run_folder import RunFile, RunFolder


def export(run: RunFolder, target: str, out: Path | None = None, dtype: str = "", base: Base = "trained") -> Path:
    """Export a run's tuned model, and certify that it is what was examined.

    Args:
        run: a run folder with an adapter.
        target: a key of TARGETS.
        out: where to; in the run folder's exports/ when None. An earlier export there is replaced at the very end.
        dtype: type of the weights; the target's default when empty.
        base: merge into the base as training saw it, or into the one of its files.

    Raises:
        UserError: an unknown target or type, no folder to write to, no adapter, or one that was changed after it was
            examined.
        ExportError: the artifact is not what was examined; the earlier one stands.
        DiskFullError: no space; the earlier one stands.
    """
    chosen, dtype = _choose(target, dtype)
    recipe = _examined_recipe(run)
    parts = (target, dtype, "original" if base == "original" else "")
    folder = _place(out) if out is not None else run.file(RunFile.EXPORTS) / "-".join(filter(None, parts))
    require_replaceable(folder)
    with run.lock(), replaced(folder, chosen.num_bytes(run, recipe, dtype)) as fresh:
        console.line(f"writing {folder}")
        chosen.write(run, recipe, fresh, dtype, base)
        examined = reference(run, recipe)  # slow, so after all that refuses
        with chosen.runner(run, recipe, fresh, dtype, base) as runner:
            certificate = certify(run, recipe, runner, examined, target, dtype, base)
        write_certificate(fresh, certificate)
        receipt.seal(fresh, run, recipe, _facts(run, folder, target, dtype, base))
    return folder


def _choose(target: str, dtype: str) -> tuple[Target, str]:
    """Return the target and its type of number."""
    if target not in TARGETS:
        raise UserError(f"there is no export target {target!r}", "", f"the targets are: {', '.join(TARGETS)}")
    allowed = TARGETS[target].dtypes
    if dtype and dtype not in allowed:
        told = f"--dtype {', '.join(allowed)}" if allowed else "leave --dtype out: it is written as it was trained"
        raise UserError(f"{target} is not written in {dtype!r}", "", told)
    return TARGETS[target], dtype or (allowed[0] if allowed else "")


def _place(out: Path) -> Path:
    """Return the folder itself where a link is named: the link stays, and what it leads to is replaced.

    Raises:
        UserError: nothing can be put in its place.
    """
    folder = Path(os.path.realpath(out))
    if not folder.name or folder == Path.cwd():
        raise UserError(
            f"an export is not written to {out} itself",
            "the whole folder is put in place at the end, and this one is in use",
            f"name a folder in it: {shell('-o', out / 'exported')}",
        )
    return folder


def _examined_recipe(run: RunFolder) -> Recipe:
    """Return the run's recipe, if the adapter stands as it was trained and examined.

    Raises:
        RunFolderError: there is no adapter, or it is another one by now.
    """
    for name in (RunFile.RECIPE, "adapter"):
        if not run.file(name).exists():
            hint = run.again() if name != RunFile.RECIPE else command("run", "RECIPE.toml", "--dir", run.path)
            raise RunFolderError(f"{run.path} has no {name} yet", "there is nothing to export", hint)
    if fault := receipt.adapter_fault(run, strict=False):
        raise RunFolderError(f"the adapter of {run.path} is not the one that was examined", fault, run.again())
    if not run.file(RunFile.VERDICT).is_file():
        console.warning("this run has no verdict: the export is compared with a model that no exam has seen")
    return load_recipe(run.file(RunFile.RECIPE))


def _facts(run: RunFolder, folder: Path, target: str, dtype: str, base: Base) -> dict[str, Any]:
    """Return what the receipt says of the export itself; where its run lies, if that is in or beside the run folder."""
    inside = folder.resolve().is_relative_to(run.path.resolve())
    levels = len(folder.resolve().relative_to(run.path.resolve()).parts) if inside else 0
    return {"target": target, "dtype": dtype, "base": base, "run": "/".join([".."] * levels)}


TARGETS: Mapping[str, Target] = {
    "adapter": Target(adapter.write_adapter, adapter.adapter_runner, adapter.adapter_bytes),
    "merged": Target(merge.write_merged, merge.merged_runner, merge.merged_bytes, ("bf16", "fp16", "fp32")),
    "gguf": Target(write.write_model_file, write.model_runner, write.model_bytes, write.MODEL_DTYPES),
    "gguf-adapter": Target(write.write_adapter_file, write.on_base_runner, write.adapter_file_bytes, ("f16",)),
    "ollama": Target(write.write_ollama_folder, write.ollama_runner, write.model_bytes, write.MODEL_DTYPES),
}
