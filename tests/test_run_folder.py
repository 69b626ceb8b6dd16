import errno
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tunewright.errors import DiskFullError, RunFolderError, command
from tunewright.records import Rejection
from tunewright.run_folder import Journal, RunFolder


def test_a_journal_gives_back_what_was_appended(tmp_path):
    journal = Journal(tmp_path / "j.jsonl")
    for number in range(3):
        journal.append({"n": number, "text": "ü\n\ud800"})
    again = Journal(tmp_path / "j.jsonl")
    assert [entry["n"] for entry in again.entries] == [0, 1, 2]
    assert again.num_torn == 0


@pytest.mark.parametrize("cut", [1, 5, 8])
def test_a_torn_last_line_is_dropped_once_and_counted(tmp_path, cut):
    path = tmp_path / "j.jsonl"
    Journal(path).append({"n": 1})
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"n": 2}\n'[:cut])
    torn = Journal(path)
    assert torn.num_torn == 1
    assert path.read_bytes() == whole
    torn.append({"n": 3})
    assert [entry["n"] for entry in Journal(path).entries] == [1, 3]


def test_damage_in_the_middle_is_refused_not_cut_away(tmp_path):
    path = tmp_path / "j.jsonl"
    path.write_bytes(b'{"n": 1}\n{"n": \n{"n": 3}\n{"n": 4}\n')
    with pytest.raises(RunFolderError, match="damaged in line 2"):
        Journal(path)
    assert path.read_bytes().count(b"\n") == 4


def no_space(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_leaves_the_journal_whole(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "j.jsonl")
    journal.append({"n": 1})
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(DiskFullError):
        journal.append({"n": 2})
    monkeypatch.undo()
    assert [entry["n"] for entry in Journal(tmp_path / "j.jsonl").entries] == [1]


def test_a_second_process_is_refused_and_the_lock_dies_with_its_holder(tmp_path):
    run = RunFolder.create(tmp_path / "run")
    code = (
        "import sys, time; from pathlib import Path; from tunewright.run_folder import RunFolder\n"
        "with RunFolder.open(Path(sys.argv[1])).lock():\n    print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(run.path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunFolderError) as caught, run.lock():
            pass
        assert str(holder.pid) in caught.value.cause
        holder.kill()
    with run.lock():
        pass


def test_a_folder_of_other_things_is_not_taken_over(tmp_path):
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(RunFolderError, match="not empty"):
        RunFolder.create(tmp_path)
    with pytest.raises(RunFolderError, match="is not a run folder"):
        RunFolder.open(tmp_path)


def test_rejections_of_a_stage_replace_its_own_only(tmp_path):
    run = RunFolder.create(tmp_path / "run")
    run.reject("ingest", [Rejection(stage="ingest", id="1", reason="empty")])
    run.reject(
        "curate", [Rejection(stage="curate", id="2", reason="short"), Rejection(stage="curate", id="3", reason="short")]
    )
    assert run.reject("curate", [Rejection(stage="curate", id="4", reason="long")]) == {"long": 1}
    lines = [json.loads(line) for line in (tmp_path / "run" / "rejected.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["id"]) for line in lines] == [("ingest", "1"), ("curate", "4")]


def test_a_wrong_record_is_named_with_its_line(tmp_path):
    run = RunFolder.create(tmp_path / "run")
    run.write("rejected.jsonl", '{"stage": "a", "id": "1", "reason": "x"}\n{"stage": "a"}\n')
    with pytest.raises(RunFolderError, match="line 2 is not a Rejection"):
        run.read_records("rejected.jsonl", Rejection)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_write_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(RunFolderError, match="cannot write"):
        RunFolder.create(tmp_path / "run")


def test_a_path_through_a_file(tmp_path):
    Path(tmp_path / "file").write_text("x")
    with pytest.raises(RunFolderError, match="cannot write"):
        RunFolder.create(tmp_path / "file" / "run")


def test_commands_in_hints_can_be_pasted_whatever_the_folder_is_called(tmp_path):
    folder = tmp_path / 'it\'s $HOME; "mine"'
    with pytest.raises(RunFolderError) as caught:
        RunFolder.open(folder)
    pasted = shlex.split(caught.value.hint.partition(": ")[2])
    assert pasted == ["tunewright", "run", "RECIPE", "--dir", str(folder)]
    run = RunFolder.create(folder)
    assert shlex.split(run.again()) == ["tunewright", "run", str(folder / "recipe.toml"), "--dir", str(folder)]
    assert command("mark", Path("/runs/one"), "--read", "FILE...") == "tunewright mark /runs/one --read FILE..."


def test_missing_records_are_none_and_damaged_records_are_reported(tmp_path):
    run = RunFolder.create(tmp_path)
    assert run.records_if_any("rejected.jsonl", Rejection) == []
    run.reject("curate", [Rejection(stage="curate", id="a", reason="short")])
    assert [one.id for one in run.records_if_any("rejected.jsonl", Rejection)] == ["a"]
    run.write("rejected.jsonl", '{"stage": "curate"\n')
    with pytest.raises(RunFolderError):
        run.records_if_any("rejected.jsonl", Rejection)


@pytest.mark.parametrize("content", [None, b"", b"[]", b"null", b'{"outputs": ', b'"\xff"'])
def test_a_stage_whose_record_is_missing_or_damaged_noted_nothing(tmp_path, content):
    run = RunFolder.create(tmp_path)
    if content is not None:
        run.write("stages/train.json", content)
    assert run.stage_record("train") == {}
    run.write_json("stages/train.json", {"outputs": {"adapter": "0"}})
    assert run.stage_record("train") == {"outputs": {"adapter": "0"}}


def test_a_path_that_is_no_run_folder_suggests_what_was_meant(tmp_path):
    RunFolder.create(tmp_path / "demo")
    (tmp_path / "recipe.toml").write_text("seed = 1")
    for given, hint in (
        ("dem", f"did you mean {tmp_path / 'demo'}?"),
        ("recipe.toml", "runs/recipe"),
        ("x", "make one"),
    ):
        with pytest.raises(RunFolderError) as caught:
            RunFolder.open(tmp_path / given)
        assert hint in caught.value.hint
