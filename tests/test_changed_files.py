"""A changed byte of a run is named by file and line, and a changed line of a journal is not used."""

from __future__ import annotations

import json
import random
import subprocess
import sys

import pytest

from support import recorded_run
from support.flipped import files_of, flip, line_of, shown_changes
from support.tuned_run import make_tuned_run
from tunewright.cli import main
from tunewright.errors import RunFolderError
from tunewright.evaluation.answering import all_answers
from tunewright.models.model_pool import ModelWeights
from tunewright.recipe import load_recipe
from tunewright.records import Question
from tunewright.run_folder import Journal, RunFile, RunFolder
from tunewright.storage import chained_line, read_chain

OLD = b'{"n": 0, "text": "\xc3\xbc"}\n{"n": 1}\n'


def named(content, most_old):
    """Return the numbers of the lines that are named as changed or cut off."""
    chain = read_chain(content, most_old)
    lines = {number for first, last in chain.changed for number in range(first, last + 1)}
    return lines | ({chain.not_json} - {0}) | ({len(chain.links) + 1} if chain.torn else set())


@pytest.mark.parametrize("old", [b"", OLD])
@pytest.mark.parametrize("num", [1, 3])
def test_every_flipped_bit_of_a_journal_names_its_line(tmp_path, old, num):
    path = tmp_path / "j.jsonl"
    path.write_bytes(old)
    for number in range(num):
        Journal(path).append({"n": number, "text": f"ü {number}"})
    content, num_old = path.read_bytes(), old.count(b"\n")
    assert named(content, num_old) == set()
    for position in range(len(content)):
        for bit in range(8):
            changed = bytearray(content)
            changed[position] ^= 1 << bit
            lines = named(bytes(changed), num_old)
            assert line_of(content, position) in lines, (position, bit)
            assert old or len(lines) == 1 or 10 in (content[position], changed[position])


@pytest.mark.parametrize("change", ["drop", "double", "swap", "insert", "unlink"])
def test_whole_lines_that_move_are_named(tmp_path, change):
    path = tmp_path / "j.jsonl"
    for number in range(5):
        Journal(path).append({"n": number})
    lines = path.read_bytes().splitlines(keepends=True)
    if change == "drop":
        del lines[2]
    elif change == "double":
        lines.insert(2, lines[2])
    elif change == "swap":
        lines[2], lines[3] = lines[3], lines[2]
    elif change == "insert":
        lines.insert(2, b'{"n": 9}\n')
    else:
        lines[2] = b'{"n": 2}\n'
    path.write_bytes(b"".join(lines))
    journal = Journal(path)
    assert journal.changed
    assert journal.changed[0][0] in (3, 4)
    assert all(entry["n"] != 9 for entry in journal.entries)
    journal.append({"n": 5})
    assert Journal(path).entries[-1] == {"n": 5}


APPEND = """
import sys
from pathlib import Path
from tunewright.run_folder import Journal
journal = Journal(Path(sys.argv[1]))
for number in range(40):
    journal.append({"process": int(sys.argv[2]), "n": number})
"""


def test_several_processes_append_to_one_chain(tmp_path):
    path = tmp_path / "j.jsonl"
    processes = [subprocess.Popen([sys.executable, "-c", APPEND, path, str(name)]) for name in range(3)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    journal = Journal(path)
    assert journal.changed == []
    for name in range(3):
        assert [entry["n"] for entry in journal.entries if entry["process"] == name] == list(range(40))


def test_what_a_killed_writer_left_is_cut_before_the_next_line(tmp_path):
    first, second = Journal(tmp_path / "j.jsonl"), Journal(tmp_path / "j.jsonl")
    first.append({"n": 1})
    with first.path.open("ab") as file:
        file.write(b'{"n": 2, "cha')
    second.append({"n": 3})
    again = Journal(first.path)
    assert again.entries == [{"n": 1}, {"n": 3}]
    assert (again.changed, again.num_torn) == ([], 0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The run of version 0.1 with digests noted of all its files, and three linked lines in its journals."""
    run = recorded_run.unpack(tmp_path_factory.mktemp("recorded"))
    with run.lock():
        for _ in range(3):
            run.log("looked at")
        run.note(*files_of(run.path))
    assert run.changes() == []
    return run


def test_a_flipped_bit_in_any_file_is_named_with_its_line(run):
    dice = random.Random(0)
    names = files_of(run.path)
    assert len(names) > 40
    for name in names:
        content = run.file(name).read_bytes()
        for _ in range(4):
            position = dice.randrange(len(content))
            flip(run.file(name), position, dice.randrange(8))
            shown = shown_changes(run.path)
            run.file(name).write_bytes(content)
            assert name in shown
            if name.endswith((".jsonl", ".json", ".toml", ".html")) and "exports/" not in name:
                line = line_of(content, position)
                # Of lines without links, only all together are known.
                assert f"{name} line {line}" in shown or f"{name} line 1 to" in shown, (name, line, shown)


@pytest.mark.parametrize("name", ["recipe.toml", "exam.jsonl", "answers.jsonl", "teacher.jsonl", "stages/train.json"])
@pytest.mark.parametrize("command", [("report",), ("exam",), ("export", "--to", "adapter")])
def test_the_commands_name_it_without_a_traceback(run, name, command, tmp_path, capfd):
    copy = recorded_run.unpack(tmp_path)
    with copy.lock():
        copy.note(*files_of(copy.path))
    flip(copy.file(name), copy.file(name).stat().st_size // 2, 0)
    verb, *more = command
    if verb == "export" and name == "teacher.jsonl":
        more = ["--to", "nothing"]  # it matters for no export, which would be written
    with pytest.raises(SystemExit):
        main([verb, str(copy.path), *more])
    shown = capfd.readouterr().err
    assert f"{name} line" in shown
    assert "Traceback" not in shown
    assert "defect" not in shown
    if verb == "export" and name != "teacher.jsonl":
        assert "error: files of" in shown


def test_an_old_run_opens_and_says_what_is_not_covered(tmp_path, capsys):
    old = recorded_run.unpack(tmp_path)
    assert old.changes() == []
    assert {"exam.jsonl", "teacher.jsonl", "answers-journal.jsonl", "stages/train.json"} <= set(old.uncovered())
    entries = old.journal(RunFile.TEACHER_JOURNAL).entries
    with old.lock():
        old.note("exam.jsonl")
    assert "exam.jsonl" not in old.uncovered()
    assert "teacher.jsonl" in old.uncovered()
    old.file(RunFile.VECTORS).write_bytes(b"")  # a damaged one is computed again, by its own digest
    assert "vectors.safetensors" not in old.uncovered()
    old.journal(RunFile.TEACHER_JOURNAL).append(entries[0])
    content = old.file(RunFile.TEACHER_JOURNAL).read_bytes()
    flip(old.file(RunFile.TEACHER_JOURNAL), content.index(b'"text"') + 12, 0)
    assert "teacher.jsonl line 1 to" in shown_changes(old.path)  # what was old is covered by the first linked line


def test_missing_and_shortened_files_are_named(run, tmp_path):
    copy = recorded_run.unpack(tmp_path)
    with copy.lock():
        copy.note(*files_of(copy.path))
    copy.file("scores.jsonl").unlink()
    journal = copy.file(RunFile.ANSWERS_JOURNAL)
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-1]))
    shown = shown_changes(copy.path)
    assert "scores.jsonl is missing" in shown
    assert "answers-journal.jsonl line" in shown


def relinked(path):
    """Write the lines of a journal with links of one's own."""
    raw, head = b"", ""
    for line in path.read_text().splitlines():
        line, head = chained_line({k: v for k, v in json.loads(line).items() if k != "chain"}, head)
        raw += line
    path.write_bytes(raw)


@pytest.mark.parametrize("how", ["as text", "without links", "with new links"])
def test_answers_edited_in_the_journal_are_generated_again(tmp_path, tiny_model, how, capsys):
    run = make_tuned_run(tmp_path / "run", tiny_model)
    with run.lock():
        run.note()
    journal = run.file(RunFile.ANSWERS_JOURNAL)
    recipe = load_recipe(run.file(RunFile.RECIPE))
    questions = run.read_records(RunFile.EXAM, Question)
    weights = {"base": ModelWeights.of(recipe), "tuned": ModelWeights.of(recipe, run.file(RunFile.ADAPTER))}

    def answers():
        given = all_answers(run.journal(RunFile.ANSWERS_JOURNAL), recipe, questions, weights)[0]
        return [(answer.arm, answer.text, answer.gold_nll) for answer in given]

    first, lines = answers(), [json.loads(line) for line in journal.read_text().splitlines()]
    for output in lines[-1]["outputs"].values():
        output.update(text="Nurses.", finish="stop")
    if how == "without links":
        for line in lines:
            del line["chain"]
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    if how == "with new links":
        relinked(journal)
    assert "answers-journal.jsonl line" in shown_changes(run.path)
    assert answers() == first
    assert "not as written, and not used: line" in capsys.readouterr().err
    assert answers() == first


def test_damage_before_the_last_line_of_an_old_journal_is_refused(tmp_path):
    run = RunFolder.create(tmp_path / "run")
    run.file(RunFile.TEACHER_JOURNAL).write_bytes(b'{"n": 1}\n{"n": \n{"n": 3}\n')
    with pytest.raises(RunFolderError, match="line 2"):
        run.journal(RunFile.TEACHER_JOURNAL)
