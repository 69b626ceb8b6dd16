"""A stop at any moment of an export leaves the old one whole under its name, and never a half one."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from pathlib import Path

import pytest

from support.exported_run import adapted_run, make_recipe
from tunewright.errors import DiskFullError, ExportError, RunFolderError, UserError
from tunewright.export import receipt, stage
from tunewright.export.certificate import Certificate
from tunewright.export.receipt import manifest, verify
from tunewright.export.stage import export
from tunewright.export.swap import RECEIPT, exports_in, put_back, recover, replaced

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


def uncompared(patch, folder: Path) -> None:
    """Let the next exports skip the comparison, which writes nothing, with the certificate of an earlier one."""
    certificate = Certificate.model_validate_json((folder / "certificate.json").read_text())
    patch.setattr(stage, "certify", lambda *args: certificate)
    patch.setattr(stage, "reference", lambda *args: None)


def killed(run, at: int, **options) -> bool:
    """Export in a forked child that kills itself at its n-th file operation; return whether it got through."""
    child = os.fork()
    if not child:
        code = 1
        try:
            with pytest.MonkeyPatch.context() as patch:
                dying(patch, at, lambda: os.kill(os.getpid(), signal.SIGKILL))
                export(run, "adapter", **options)
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or status == 0
    return status == 0


@pytest.fixture
def run(tiny_model, tmp_path):
    return adapted_run(tmp_path / "run", make_recipe(tiny_model))


def test_a_kill_at_every_file_operation_leaves_the_old_or_the_new_whole(run, monkeypatch):
    """Each child dies one operation later; what stands after it is one of the two, complete and verified."""
    folder = export(run, "adapter")
    uncompared(monkeypatch, folder)
    old = manifest(folder)
    run.file("adapter/notes.md").write_text("of a second training")  # another digest, so another receipt
    before, kills, stood = (folder / RECEIPT).read_bytes(), 0, []
    while not killed(run, kills + 1):
        kills += 1
        recover(folder)
        verify(folder)
        stood.append((folder / RECEIPT).read_bytes() == before)
        assert kills < 200
    assert kills > 8
    assert stood[0]
    assert stood == sorted(stood, reverse=True)  # once the new one is in place, it stays
    assert {key: value for key, value in manifest(folder).items() if "certificate" not in key} == {
        key: value for key, value in old.items() if "certificate" not in key
    }
    assert (folder / RECEIPT).read_bytes() != before
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith(".")] == []


def test_a_half_written_folder_of_a_killed_export_is_cleaned_up_by_the_next(run, monkeypatch):
    folder = export(run, "adapter")
    uncompared(monkeypatch, folder)
    shutil.rmtree(folder)
    assert not killed(run, 4)
    left = [path.name for path in run.file("exports").iterdir() if path.name.startswith(".")]
    assert left == [".adapter.tunewright-new"]
    assert not run.file("exports/adapter").exists()
    export(run, "adapter")
    assert sorted(path.suffix for path in run.file("exports").iterdir()) == ["", ".npz"]


@pytest.mark.parametrize("operation", range(1, 8))
def test_ctrl_c_leaves_the_old_one_and_nothing_beside_it(run, monkeypatch, operation):
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
def test_a_full_disk_is_told_with_the_bytes_and_leaves_the_old_one(run, monkeypatch, operation):
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


def test_too_little_space_is_told_before_anything_is_written(run, monkeypatch, tmp_path):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(DiskFullError, match="not enough space") as caught:
        export(run, "merged", out=tmp_path / "out")
    assert "nothing was written" in caught.value.cause
    assert not list(tmp_path.glob("*out*"))


def test_an_artifact_that_is_not_what_was_examined_never_takes_the_name(run, monkeypatch):
    """A merge that forgets the adapter's scale: refused with the first difference, and the old export stands."""
    from tunewright.export import merge

    folder = export(run, "merged", dtype="fp32")
    before = manifest(folder)
    right = merge.read_deltas

    def wrong(path):
        deltas = right(path)
        return type(deltas)(deltas.file, deltas.rank, deltas.scale * 10, deltas.layers, deltas.tokens)

    monkeypatch.setattr(merge, "read_deltas", wrong)
    with pytest.raises(ExportError, match="is not what was examined") as caught:
        export(run, "merged", dtype="fp32")
    assert "the likeliest next token is the same at" in caught.value.cause
    assert "the examined model says" in caught.value.cause
    assert manifest(folder) == before


def test_a_template_that_lost_a_token_is_refused_with_conversation_position_and_both_tokens(run, monkeypatch):
    from tunewright.export import tokenizer

    monkeypatch.setattr(
        tokenizer, "portable_template", lambda tokenizer: tokenizer.chat_template.replace("<|im_end|>", "")
    )
    with pytest.raises(ExportError, match="is not what was examined") as caught:
        export(run, "adapter")
    assert "200 of 200 prompts differ" in caught.value.cause
    assert "conversation 0 (plain" in caught.value.cause
    assert "'<|im_end|>'" in caught.value.cause
    assert not run.file("exports/adapter").exists()


def test_a_folder_that_is_not_an_export_is_not_replaced(run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(RunFolderError, match="is not an export and is not replaced"):
        export(run, "adapter", out=tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    with pytest.raises(RunFolderError, match="is not an export"), replaced(tmp_path / "mine" / "thesis.txt", 0):
        raise AssertionError("never begun")


def test_what_others_keep_beside_a_folder_is_never_removed(run, tmp_path):
    """Neither by a look at a folder nor by an export into it, whatever the neighbors are called."""
    folder = tmp_path / "models"
    kept = [tmp_path / f".models{end}" / "precious.txt" for end in (".old", ".new", ".tunewright-old")]
    for path in kept:
        path.parent.mkdir()
        path.write_text("years of work")
    folder.mkdir()
    with pytest.raises(RunFolderError, match="is not an export"):
        verify(folder)
    with pytest.raises(RunFolderError, match="is not an export and is not replaced"), replaced(folder, 0):
        raise AssertionError("never begun")
    recover(folder)
    assert [path.read_text() for path in kept] == ["years of work"] * 3


def _made(folder: Path, said: str) -> Path:
    folder.mkdir()
    (folder / RECEIPT).write_text(said)
    return folder


def test_a_reader_puts_back_what_a_stopped_swap_left_and_deletes_nothing(tmp_path):
    _made(tmp_path / ".one.tunewright-old", "old")
    assert exports_in(tmp_path) == [tmp_path / "one"]
    aside = _made(tmp_path / ".one.tunewright-old", "older")
    put_back(tmp_path / "one")
    assert (aside / RECEIPT).read_text() == "older"
    recover(tmp_path / "one")
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
    assert (tmp_path / "one" / RECEIPT).read_text() == "old"


def test_a_look_between_the_two_renames_does_not_keep_the_new_export_out(tmp_path, monkeypatch):
    folder, rename = _made(tmp_path / "one", "old"), Path.rename

    def looked_at(path, new):
        if path.name.endswith("-new") and Path(new) == folder and not looks:
            looks.append(1)
            put_back(folder)
            assert (folder / RECEIPT).read_text() == "old"
        return rename(path, new)

    looks: list[int] = []
    monkeypatch.setattr(Path, "rename", looked_at)
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
    monkeypatch.setattr(stage, "reference", None)  # told before anything is computed
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for out in (".", "/", "../here"):
        with pytest.raises(UserError, match="an export is not written to"):
            export(run, "adapter", out=Path(out))
    with pytest.raises(RunFolderError, match="is not an export and is not replaced"):
        export(run, "adapter", out=tmp_path / "disk")


def test_a_run_without_its_recipe_is_not_told_to_run_it(run):
    run.file("recipe.toml").unlink()
    with pytest.raises(RunFolderError, match="has no recipe.toml") as caught:
        export(run, "adapter")
    assert "run RECIPE.toml" in caught.value.hint


@pytest.mark.parametrize("record", [{"ingredients": {"adapter": "another"}}, []])
def test_an_adapter_that_was_changed_after_its_exam_is_refused(run, record):
    run.write_json("stages/evaluate.json", record)
    with pytest.raises(RunFolderError, match="is not the one that was examined"):
        export(run, "adapter")


def test_unknown_targets_and_types_list_the_choices(run):
    with pytest.raises(UserError, match="no export target 'onnx'") as caught:
        export(run, "onnx")
    assert "adapter, merged" in caught.value.hint
    with pytest.raises(UserError, match="not written in 'int3'") as caught:
        export(run, "merged", dtype="int3")
    assert "bf16, fp16, fp32" in caught.value.hint


def test_the_certificate_has_the_exam_on_both_and_the_other_base(tiny_model, tmp_path):
    run = adapted_run(tmp_path / "run", make_recipe(tiny_model, {}, {"quantization": "nf4"}))
    folder = export(run, "merged", dtype="bf16")
    certificate = Certificate.model_validate_json((folder / "certificate.json").read_text())
    assert (certificate.exam.questions, certificate.exam.examined) == (8, 0.25)
    assert 0 <= certificate.exam.exported <= 1
    assert certificate.original_base.mean_kl > 10 * certificate.distributions.mean_kl
    original = export(run, "merged", dtype="fp32", base="original")
    assert original != folder
    lowered = Certificate.model_validate_json((original / "certificate.json").read_text())
    assert lowered.floor == 0.5
    told = lowered.distributions.mean_kl
    assert told == pytest.approx(lowered.original_base.mean_kl, rel=1e-2)
    assert f"{certificate.original_base.same} of" in (folder / "certificate.md").read_text()


def test_the_reference_is_computed_once(run, monkeypatch):
    from tunewright.export import reference

    export(run, "adapter")
    monkeypatch.setattr(reference, "_compute", None)
    export(run, "merged", dtype="fp32")
    assert receipt.read_receipt(run.file("exports/merged-fp32"))["target"] == "merged"
    assert set(stage.TARGETS) >= {"adapter", "merged"}
