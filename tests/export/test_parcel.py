"""Exports are pushed only as their receipt has them, and only those of the adapter that is there now."""

import hashlib

import pushable
import pytest

from tunewright.errors import ExportError, RunFolderError
from tunewright.export.parcel import exported
from tunewright.export.receipt import _write
from tunewright.rundir import file_digest


def export(run, name="merged-bf16", target="merged"):
    """Write an export's folder with its receipt, as the export stage leaves it."""
    folder = run.file(f"exports/{name}")
    run.write(f"exports/{name}/model.safetensors", b"w" * 3000)
    run.write(f"exports/{name}/README.md", "of the export")
    run.write(f"exports/{name}/certificate.md", "# Parity\n\n- prompts: 3 of 3\n- KL: 0\n")
    # A real receipt but for what it was made of: there is no base model behind these files.
    _write(folder, {"target": target, "made_of": {"adapter": file_digest(run.file("adapter"))}})
    return folder


@pytest.fixture
def run(tmp_path):
    return pushable.write(tmp_path / "run")


def test_an_export_is_sent_whole_with_its_receipt_and_its_certificate(run):
    export(run)
    parcel = exported(run, "merged")
    assert [file.name for file in parcel.files] == ["certificate.md", "model.safetensors", "receipt.json"]
    assert parcel.files[1].sha256 == hashlib.sha256(b"w" * 3000).hexdigest()
    assert (parcel.kind, parcel.parity, parcel.is_examined) == ("merged", ("prompts: 3 of 3", "KL: 0"), False)
    assert exported(run, "merged-bf16") == parcel


def test_several_or_none_are_told_with_their_names(run):
    with pytest.raises(RunFolderError) as told:
        exported(run, "gguf")
    assert "tunewright export" in told.value.hint
    export(run, "gguf-q8_0", "gguf")
    export(run, "gguf-q4_0", "gguf")
    with pytest.raises(RunFolderError) as told:
        exported(run, "gguf")
    assert "gguf-q4_0, gguf-q8_0" in told.value.hint
    assert exported(run, "gguf-q4_0").kind == "gguf"


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("model.safetensors", b"other", "model.safetensors was changed"),
        ("extra.py", b"x", "extra.py was added"),
        ("receipt.json", None, "receipt.json was changed"),
        ("receipt.json", b"{}", "receipt.json was changed"),
        ("receipt.json", b"\xff", "receipt.json was changed"),
    ],
)
def test_a_changed_export_is_refused(run, name, content, words):
    folder = export(run)
    if content is None:
        content = (folder / name).read_bytes().replace(b'"merged"', b'"adapter"')
    (folder / name).write_bytes(content)
    with pytest.raises(ExportError) as told:
        exported(run, "merged")
    assert words in str(told.value)


def test_an_export_of_an_earlier_adapter_is_refused(run):
    export(run)
    run.write("adapter/adapter_model.safetensors", b"trained anew")
    with pytest.raises(RunFolderError, match="earlier adapter"):
        exported(run, "merged")
