"""A stop at any moment of an export leaves the old one complete under its name, and never half of one."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from pathlib import Path

import pytest

from support.exported_run import adapted_run, make_recipe
from tunewright.errors import DiskFullError, ExportError, RunFolderError, UserError
from tunewright.export.certificate import Certificate
from tunewright.export.receipt import RECEIPT, exports_in, manifest, verify
from tunewright.export.stage import TARGETS, export, receipt_content, replaced, write_export
from tunewright.export.target import ExportRequest
from tunewright.recipe import load_recipe
from tunewright.storage import recover_folder, restore_folder

WRITES = ("fsync", "mkdir", "write_text", "save_file")
OPERATIONS = (*WRITES, "rename", "rmtree", "copyfile")


def dying(monkeypatch, at: int, how, names=OPERATIONS) -> None:
    """Let the n-th file operation of an export end it."""
    import safetensors.torch

    calls: list[int] = []
    homes = {"fsync": os, "rename": Path, "mkdir": Path, "rmtree": shutil, "write_text": Path, "copyfile": shutil}
    for name in names:
        home = homes.get(name, safetensors.torch)
        monkeypatch.setattr(home, name, counting(getattr(home, name), calls, at, how))


def counting(original, calls: list[int], at: int, how):
    """Return the operation with a look at the count before it is done."""

    def call(*args, **kwargs):
        calls.append(1)
        if len(calls) == at:
            how()
        return original(*args, **kwargs)

    return call


def certificate_of(folder: Path) -> Certificate:
    return Certificate.model_validate_json((folder / "certificate.json").read_text())


def write_adapter(run, folder: Path, certificate: Certificate) -> None:
    """Export the adapter as the stage does, with a certificate that was computed before: comparing writes no file."""
    request = ExportRequest(run.file("adapter"), load_recipe(run.file("recipe.toml")))
    with run.lock():
        write_export(
            folder,
            TARGETS["adapter"],
            request,
            lambda fresh: certificate,
            lambda: receipt_content(run, request, "adapter", folder),
        )


def killed(run, folder: Path, certificate: Certificate, at: int) -> bool:
    """Export in a forked child that kills itself at its n-th file operation; return whether it finished."""
    child = os.fork()
    if not child:
        code = 1
        try:
            with pytest.MonkeyPatch.context() as patch:
                dying(patch, at, lambda: os.kill(os.getpid(), signal.SIGKILL))
                write_adapter(run, folder, certificate)
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or status == 0
    return status == 0


@pytest.fixture
def run(tiny_model, tmp_path):
    return adapted_run(tmp_path / "run", make_recipe(tiny_model))


@pytest.mark.slow
def test_a_kill_at_every_file_operation_leaves_the_old_or_the_new_complete(run):
    """Each child dies one operation later; one of the two is in place after it, complete and verified."""
    folder = export(run, "adapter")
    certificate = certificate_of(folder)
    old = manifest(folder)
    run.file("adapter/notes.md").write_text("of a second training")  # another digest, so another receipt
    before, kills, is_old = (folder / RECEIPT).read_bytes(), 0, []
    while not killed(run, folder, certificate, kills + 1):
        kills += 1
        recover_folder(folder, RECEIPT)
        verify(folder)
        is_old.append((folder / RECEIPT).read_bytes() == before)
        assert kills < 200
    assert kills > 8
    assert is_old[0]
    assert is_old == sorted(is_old, reverse=True)  # once the new one is in place, it stays
    assert {key: value for key, value in manifest(folder).items() if "certificate" not in key} == {
        key: value for key, value in old.items() if "certificate" not in key
    }
    assert (folder / RECEIPT).read_bytes() != before
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith(".")] == []


def test_a_half_written_folder_of_a_killed_export_is_removed_by_the_next(run):
    folder = export(run, "adapter")
    certificate = certificate_of(folder)
    shutil.rmtree(folder)
    left, at = [], 4
    while not left:  # the first operations are of other files
        assert not killed(run, folder, certificate, at)
        left, at = [path.name for path in run.file("exports").iterdir() if path.name.startswith(".")], at + 1
    assert left == [".adapter.tunewright.tmp"]
    assert not run.file("exports/adapter").exists()
    export(run, "adapter")
    assert sorted(path.suffix for path in run.file("exports").iterdir()) == ["", ".npz"]


@pytest.mark.parametrize("operation", range(1, 8))
def test_ctrl_c_leaves_the_old_export_and_nothing_beside_it(run, monkeypatch, operation):
    folder = export(run, "adapter")
    before = manifest(folder)
    run.file("adapter/more").write_text("changed")
    with monkeypatch.context() as patch:
        dying(patch, operation, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            export(run, "adapter")
    verify(folder)
    assert manifest(folder) == before
    assert not [path for path in folder.parent.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("operation", [1, 2, 3, 12])
def test_a_full_disk_is_an_error_with_the_bytes_and_leaves_the_old_export(run, monkeypatch, operation):
    folder = export(run, "merged", dtype="fp32")
    before = manifest(folder)

    def full():
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        dying(patch, operation, full, WRITES)
        with pytest.raises(DiskFullError, match="no space left on the disk"):
            export(run, "merged", dtype="fp32")
    verify(folder)
    assert manifest(folder) == before
    assert not [path for path in folder.parent.iterdir() if path.name.startswith(".")]


def test_too_little_space_is_an_error_before_anything_is_written(run, monkeypatch, tmp_path):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(DiskFullError, match="not enough space") as caught:
        export(run, "merged", out=tmp_path / "out")
    assert "nothing was written" in caught.value.cause
    assert not list(tmp_path.glob("*out*"))


def test_an_artifact_that_differs_from_the_evaluated_model_never_takes_the_name(run, monkeypatch):
    """A merge with a wrong scale is refused with the first difference, and the old export is kept."""
    from tunewright.export import merge

    folder = export(run, "merged", dtype="fp32")
    before = manifest(folder)
    right = merge.read_deltas

    def wrong(path):
        deltas = right(path)
        return type(deltas)(deltas.file, deltas.rank, deltas.scale * 10, deltas.layers, deltas.tokens)

    monkeypatch.setattr(merge, "read_deltas", wrong)
    with pytest.raises(ExportError, match="differs from the evaluated model") as caught:
        export(run, "merged", dtype="fp32")
    assert "the likeliest next token is the same at" in caught.value.cause
    assert "the evaluated model says" in caught.value.cause
    assert manifest(folder) == before


def test_a_template_that_lost_a_token_is_refused_with_conversation_position_and_both_tokens(run, monkeypatch):
    from tunewright.export import tokenizer

    monkeypatch.setattr(
        tokenizer, "portable_template", lambda tokenizer: tokenizer.chat_template.replace("<|im_end|>", "")
    )
    with pytest.raises(ExportError, match="differs from the evaluated model") as caught:
        export(run, "adapter")
    assert "200 of 200 prompts differ" in caught.value.cause
    assert "conversation 0 (plain" in caught.value.cause
    assert "'<|im_end|>'" in caught.value.cause
    assert not run.file("exports/adapter").exists()


def test_a_folder_that_is_not_an_export_is_not_replaced(run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(RunFolderError, match="is not an export, so it is not replaced"):
        export(run, "adapter", out=tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    with pytest.raises(RunFolderError, match="is not an export"), replaced(tmp_path / "mine" / "thesis.txt", 0):
        raise AssertionError("never begun")


def test_other_folders_beside_an_export_are_never_removed(tmp_path):
    """Neither by a reader nor by an export into the folder, whatever their names."""
    folder = tmp_path / "models"
    kept = [tmp_path / f".models{end}" / "precious.txt" for end in (".old", ".new", ".tmp", ".tunewright.old")]
    for path in kept:
        path.parent.mkdir()
        path.write_text("years of work")
    folder.mkdir()
    with pytest.raises(RunFolderError, match="is not an export"):
        verify(folder)
    with pytest.raises(RunFolderError, match="is not an export, so it is not replaced"), replaced(folder, 0):
        raise AssertionError("never begun")
    recover_folder(folder, RECEIPT)
    assert [path.read_text() for path in kept] == ["years of work"] * 4


def _export_with(folder: Path, text: str) -> Path:
    folder.mkdir()
    (folder / RECEIPT).write_text(text)
    return folder


def test_a_reader_restores_the_export_of_a_stopped_swap_and_deletes_nothing(tmp_path):
    _export_with(tmp_path / ".one.tunewright.old", "old")
    assert exports_in(tmp_path) == [tmp_path / "one"]
    aside = _export_with(tmp_path / ".one.tunewright.old", "older")
    restore_folder(tmp_path / "one", RECEIPT)
    assert (aside / RECEIPT).read_text() == "older"
    recover_folder(tmp_path / "one", RECEIPT)
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
    assert (tmp_path / "one" / RECEIPT).read_text() == "old"


def test_a_reader_between_the_two_renames_does_not_keep_the_new_export_out(tmp_path, monkeypatch):
    folder, rename = _export_with(tmp_path / "one", "old"), Path.rename

    def rename_after_a_reader(path, new):
        if path.name.endswith(".tmp") and Path(new) == folder and not looks:
            looks.append(1)
            restore_folder(folder, RECEIPT)
            assert (folder / RECEIPT).read_text() == "old"
        return rename(path, new)

    looks: list[int] = []
    monkeypatch.setattr(Path, "rename", rename_after_a_reader)
    with replaced(folder, 0) as fresh:
        (fresh / RECEIPT).write_text("new")
    assert looks
    assert (folder / RECEIPT).read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_a_linked_folder_stays_a_link_and_the_current_folder_is_refused(run, tmp_path, monkeypatch):
    (tmp_path / "disk" / "one").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "one")
    assert export(run, "adapter", out=tmp_path / "link") == tmp_path / "disk" / "one"
    assert (tmp_path / "link").is_symlink()
    verify(tmp_path / "link")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for out in (".", "/", "../here"):
        with pytest.raises(UserError, match="cannot become the export itself"):
            export(run, "adapter", out=Path(out))
    with pytest.raises(RunFolderError, match="is not an export, so it is not replaced"):
        export(run, "adapter", out=tmp_path / "disk")


def test_the_hint_for_a_run_without_its_recipe_names_no_file_of_it(run):
    run.file("recipe.toml").unlink()
    with pytest.raises(RunFolderError, match="has no recipe.toml") as caught:
        export(run, "adapter")
    assert "run RECIPE.toml" in caught.value.hint


@pytest.mark.parametrize("record", [{"ingredients": {"adapter": "another"}}, []])
def test_an_adapter_that_was_changed_after_its_evaluation_is_refused(run, record):
    run.write_json("stages/evaluate.json", record)
    with pytest.raises(RunFolderError, match="is not the one that was evaluated"):
        export(run, "adapter")


def test_unknown_targets_and_types_list_the_choices(run):
    with pytest.raises(UserError, match="no export target 'onnx'") as caught:
        export(run, "onnx")
    assert "adapter, merged" in caught.value.hint
    with pytest.raises(UserError, match="cannot have dtype 'int3'") as caught:
        export(run, "merged", dtype="int3")
    assert "bf16, fp16, fp32" in caught.value.hint


def test_the_certificate_has_the_exam_on_both_and_the_other_base(tiny_model, tmp_path):
    run = adapted_run(tmp_path / "run", make_recipe(tiny_model, {}, {"quantization": "nf4"}))
    folder = export(run, "merged", dtype="bf16")
    certificate = certificate_of(folder)
    assert (certificate.exam.questions, certificate.exam.examined) == (8, 0.25)
    assert 0 <= certificate.exam.exported <= 1
    assert certificate.original_base.mean_kl > 10 * certificate.distributions.mean_kl
    original = export(run, "merged", dtype="fp32", base="original")
    assert original != folder
    lowered = certificate_of(original)
    assert lowered.floor == 0.5
    assert lowered.distributions.mean_kl == pytest.approx(lowered.original_base.mean_kl, rel=1e-2)
    assert f"{certificate.original_base.same} of" in (folder / "certificate.md").read_text()


def test_the_reference_is_computed_once(run):
    def references():
        return [(path.name, path.stat().st_mtime_ns) for path in run.file("exports").glob("reference-*")]

    export(run, "adapter")
    before = references()
    assert len(before) == 1
    assert verify(export(run, "merged", dtype="fp32"))["target"] == "merged"
    assert references() == before
