"""A full disk, a read-only folder, a full memory, a FIFO: an error with its cause, and work that goes on afterwards."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.faults import disk_of, read_only
from support.faulty_server import fake_teacher
from support.whole_path import asks, write_recipe
from tunewright import pipeline
from tunewright.cli import main, report_error
from tunewright.errors import DiskFullError, DocumentError, ModelError, UserError, reading
from tunewright.models.data_sources import chat_paths, exam_path
from tunewright.models.model_files import reading_model
from tunewright.recipe import Recipe, load_recipe
from tunewright.records import Answer
from tunewright.run_folder import RunFolder
from tunewright.settings import ExamSettings, SynthesisSettings
from tunewright.storage import file_digest

COMMANDS = (
    ("run", "{recipe}", "--dir", "{run}"),
    ("run", "{recipe}", "--dir", "{run}", "--set", "training.epochs=3"),
    ("status", "{run}"),
    ("report", "{run}"),
    ("exam", "{run}"),
    ("inspect", "{run}"),
    ("export", "{run}", "--to", "adapter"),
    ("mark", "{run}"),
)


class AcceleratorError(RuntimeError):
    """As torch names an error of the driver."""


class OutOfMemoryError(RuntimeError):
    """As torch names its own."""


GPU = [
    AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1.2 GiB free."),
    RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 17179869184 bytes."),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("HIP out of memory. Tried to allocate 20.00 MiB"),
]
MACHINE = [
    MemoryError(),
    OSError(12, os.strerror(12)),
    RuntimeError("[enforce fail at alloc_cpu.cpp:119] . DefaultCPUAllocator: can't allocate memory: 4096 bytes"),
    RuntimeError("unable to mmap 99 bytes from file <model.safetensors>: Cannot allocate memory (12)"),
]


@pytest.mark.parametrize("error", [*GPU, *MACHINE], ids=lambda error: f"{type(error).__name__} {error}"[:40])
def test_a_lack_of_memory_in_any_words_is_no_defect(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    wrapped = ValueError("a library's own words")
    wrapped.__cause__ = error
    for raised in (error, wrapped) if error in GPU else (error,):
        assert report_error(raised) == 3
        shown = capsys.readouterr().err
        assert ("the memory of the GPU is full" if error in GPU else "the memory of this machine is used up") in shown
        assert "defect" not in shown and "hint" in shown
        assert ("nvidia-smi" in shown) == (error in GPU)


@pytest.mark.parametrize("error", GPU, ids=lambda error: str(error)[:30])
def test_a_lack_of_memory_is_not_blamed_on_the_file_that_was_loaded(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error)), reading_model("base", tmp_path):
        raise error
    with pytest.raises(type(error)), reading("exam", tmp_path / "x.csv", ""):
        raise error
    with pytest.raises(ModelError), reading_model("base", tmp_path):
        raise RuntimeError("the shapes differ")


def test_a_parquet_that_is_none_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "cache"))
    good = tmp_path / "good.parquet"
    rows = [{"question": f"Where is ship {n}?", "answer": f"In dock {n}."} for n in range(50)]
    parquet.write_table(pytest.importorskip("pyarrow").Table.from_pylist(rows), good)
    raw = good.read_bytes()
    (tmp_path / "in").mkdir()
    cases = {
        "empty.parquet": b"",
        "cut.parquet": raw[: len(raw) // 2],
        "tail.parquet": raw[len(raw) // 2 :],
        "middle.parquet": raw[:8] + bytes(len(raw) - 16) + raw[-8:],
        "text.parquet": b"question,answer\na,b\n",
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
    os.mkfifo(tmp_path / "fifo.parquet")
    os.mkfifo(tmp_path / "in" / "fifo.parquet")
    for name in (*cases, "fifo.parquet", "in"):
        own = Recipe(
            folder=tmp_path,
            synthesis=SynthesisSettings(data=(name,)),
            exam=ExamSettings(file=name),
        )
        for read in (chat_paths, exam_path):
            with pytest.raises(DocumentError, match="cannot read the data") as caught:
                read(own)
            assert name in caught.value.headline and caught.value.cause and caught.value.hint
            assert ("FIFO" in caught.value.cause) == (name in ("fifo.parquet", "in"))


@pytest.mark.slow  # test_storage fills the disk in a single write
def test_a_disk_that_fills_up_in_any_stage_stops_it_and_a_larger_one_continues(
    tmp_path: Path, tiny_model: Path, abstracts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with fake_teacher(asks) as teacher:
        for path in sorted(abstracts.iterdir())[5:]:
            path.unlink()
        small = {"exam": {"retention_items": 0}, "evaluation": {"arms": ["base", "few-shot", "rag", "tuned"]}}
        file = write_recipe(tmp_path, tiny_model, teacher.url, abstracts, **small)
        recipe, folder = load_recipe(file), tmp_path / "run"
        stages = [state.stage.name for state in pipeline.states(RunFolder.create(folder), recipe)]
        stopped = []
        for stage in stages:
            for free_bytes in (0, 4096):
                try:
                    with disk_of(folder, free_bytes):
                        pipeline.run(recipe, folder, until=stage)
                except DiskFullError as error:
                    stopped.append(stage)
                    assert report_error(error) == 3
                    assert "resumes" in error.hint and "bytes" in error.cause
            pipeline.run(recipe, folder, until=stage)
        assert set(stopped) == set(stages)
        whole = pipeline.run(recipe, tmp_path / "whole")
        assert file_digest(folder / "adapter") == file_digest(whole.file("adapter"))
        answers = [
            [(answer.question, answer.arm, answer.text) for answer in run.read_records("answers.jsonl", Answer)]
            for run in (RunFolder.open(folder), whole)
        ]
        assert answers[0] == answers[1]
        capsys.readouterr()
        before = file_digest(folder)
        words = {"recipe": file, "run": folder}
        for command in COMMANDS:
            with read_only(folder):
                try:
                    main([word.format(**words) for word in command])
                    code = 0
                except SystemExit as end:
                    code = end.code
            shown = capsys.readouterr().err
            assert code in (0, 1, 3), command
            assert "defect" not in shown, (command, shown)
            assert code == 0 or ("Read-only" in shown and "hint" in shown), (command, shown)
            assert file_digest(folder) == before, command


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), RuntimeError("Permission denied (os error 13)")]
)
def test_what_may_not_be_read_is_not_fetched_again(tmp_path, error):
    """Libraries say it in words of their own; another copy would not be read either."""
    for context in (reading("exam", tmp_path / "e f", "bring another"), reading_model("base model", tmp_path / "e f")):
        with pytest.raises((UserError, ModelError)) as caught, context:
            raise error
        assert caught.value.hint == f"let your user read it: chmod -R u+rX '{tmp_path}/e f'"
