from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from support.stand_in_hub import SHA, Repo, stand_in_hub
from tunewright.curation.chat_formats import data_digest, read_own_data
from tunewright.curation.preference_pairs import pairs_digest, read_own_pairs
from tunewright.errors import DocumentError, UserError
from tunewright.models.data_sources import chat_paths, exam_name, exam_path
from tunewright.recipe import Recipe, load_recipe
from tunewright.records import PreferencePair
from tunewright.settings import ExamSettings, PreferenceSettings, SynthesisSettings
from tunewright.synthesis.own_exam import read_own_exam

ROWS = [{"q": f"Where is ship {i}?", "a": f"In dock {i}.", "group": f"g{i}"} for i in range(10)]
COLUMNS = {"prompt": "q", "completion": "a"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "cache"))


def recipe(tmp_path, *data, columns=COLUMNS, exam="") -> Recipe:
    synthesis = SynthesisSettings(data=data, columns=columns)
    return Recipe(folder=tmp_path, synthesis=synthesis, exam=ExamSettings(file=exam))


def write(path):
    if path.suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pytest.importorskip("pyarrow").Table.from_pylist(ROWS), path)
    elif path.suffix in (".csv", ".tsv"):
        mark = "," if path.suffix == ".csv" else "\t"
        path.write_text("\n".join(mark.join(row.values()) for row in [{k: k for k in ROWS[0]}, *ROWS]) + "\n")
    else:
        path.write_text(json.dumps(ROWS) if path.suffix == ".json" else "".join(json.dumps(r) + "\n" for r in ROWS))


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv", ".parquet"])
def test_every_format_gives_the_same_samples_and_ranges_of_them(tmp_path, suffix):
    write(tmp_path / f"rows{suffix}")
    samples, faults = read_own_data(chat_paths(recipe(tmp_path, f"rows{suffix}")))
    assert [s.question for s in samples] == [row["q"] for row in ROWS] and not faults
    some, _ = read_own_data(chat_paths(recipe(tmp_path, f"rows{suffix}[2:5]")))
    assert some == samples[2:5]
    assert data_digest(recipe(tmp_path, f"rows{suffix}[2:5]")) != data_digest(recipe(tmp_path, f"rows{suffix}[2:6]"))


def test_a_folder_with_parquet(tmp_path):
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "a.parquet")
    write(tmp_path / "data" / "b.jsonl")
    assert len(read_own_data(chat_paths(recipe(tmp_path, "data")))[0]) == 20


def test_plain_files_are_read_where_they_are(tmp_path):
    write(tmp_path / "a.jsonl")
    assert chat_paths(recipe(tmp_path, "a.jsonl", columns={})) == [tmp_path / "a.jsonl"]
    assert chat_paths(recipe(tmp_path, "missing.jsonl", columns={})) == [tmp_path / "missing.jsonl"]


def test_a_column_that_is_not_there_is_named(tmp_path):
    write(tmp_path / "a.jsonl")
    with pytest.raises(DocumentError, match="no column nothing") as error:
        chat_paths(recipe(tmp_path, "a.jsonl", columns={"prompt": "nothing"}))
    assert "q, a, group" in str(error.value.cause)


@pytest.mark.parametrize("name", ["exam.json", "exam.tsv", "exam.jsonl[0:4]"])
def test_an_exam_of_any_format(tmp_path, name):
    rows = [{"question": row["q"], "answer": row["a"]} for row in ROWS]
    path = tmp_path / name.partition("[")[0]
    if path.suffix == ".tsv":
        path.write_text("question\tanswer\n" + "".join(f"{r['question']}\t{r['answer']}\n" for r in rows))
    else:
        path.write_text(json.dumps(rows) if path.suffix == ".json" else "".join(json.dumps(r) + "\n" for r in rows))
    questions, _ = read_own_exam(exam_path(recipe(tmp_path, exam=name)), "No.", {}, {})
    assert [q.gold for q in questions] == [r["answer"] for r in rows][: 4 if "[" in name else None]


def test_without_the_extra_an_error_names_it(tmp_path, monkeypatch):
    write(tmp_path / "a.parquet")
    for package in ("datasets", "pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, package, None)
    for name in ("a.parquet", f"hub:me/chats@{SHA}"):
        with pytest.raises(DocumentError) as error:
            chat_paths(recipe(tmp_path, name))
        assert "tunewright[hub]" in str(error.value.hint)
    with pytest.raises(DocumentError, match="no name of a data set"):
        chat_paths(recipe(tmp_path, "hub:chats"))


READ = """
import sys
from tunewright.curation.chat_formats import data_digest, read_own_data
from tunewright.curation.preference_pairs import pairs_digest, read_own_pairs
from tunewright.models.data_sources import chat_paths, hub_revisions
from tunewright.recipe import load_recipe
recipe = load_recipe(sys.argv[1]).with_absolute_paths()
samples, _ = read_own_data(chat_paths(recipe))
print(len(samples), samples[0].question, hub_revisions(recipe.synthesis.data)[0], data_digest(recipe))
"""


def read(path, endpoint):
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(path.parent / "hf")}
    command = [sys.executable, "-c", READ, path]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_a_data_set_of_the_hub_is_pinned_and_then_read_without_it(tmp_path):
    pytest.importorskip("datasets")
    path = tmp_path / "recipe.toml"
    path.write_text(
        '[synthesis]\ndata = ["hub:me/chats@main:train[2:6]"]\ncolumns = {prompt = "q", completion = "a"}\n'
    )
    assert load_recipe(path).with_absolute_paths().synthesis.data == ("hub:me/chats@main:train[2:6]",)

    lines = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    with stand_in_hub() as hub:
        hub.repos["datasets/me/chats"] = Repo(False, {"data/train.jsonl": lines})
        first = read(path, hub.url)
        assert first.stdout.startswith(f"4 Where is ship 2? {SHA} "), first.stderr
        gone = hub.url
    assert read(path, gone).stdout == first.stdout


def test_no_code_of_a_repository_runs(tmp_path):
    pytest.importorskip("datasets")
    path = tmp_path / "recipe.toml"
    path.write_text('[synthesis]\ndata = ["hub:me/chats"]\n')
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\n".encode()
    with stand_in_hub() as hub:
        hub.repos["datasets/me/chats"] = Repo(
            False, {"data/train.jsonl": b'{"prompt": "a", "completion": "b"}\n', "chats.py": code}
        )
        result = read(path, hub.url)
    assert result.returncode and "scripts are no longer supported" in result.stderr
    assert not (tmp_path / "ran").exists()


def test_columns_also_rename_those_of_the_exam_and_of_pairs(tmp_path):
    (tmp_path / "e.csv").write_text("frage;antwort;document\nWarum?;Darum.;d\n", encoding="utf-8")
    (tmp_path / "p.jsonl").write_text('{"frage": "Warum?", "gut": "Darum.", "rejected": "Nein."}\n', encoding="utf-8")
    columns = {"prompt": "frage", "completion": "antwort", "chosen": "gut"}
    own = recipe(tmp_path, columns=columns, exam="e.csv")
    [question], _ = read_own_exam(exam_path(own), "No.", {}, {}, columns)
    assert (question.question, question.gold, question.document) == ("Warum?", "Darum.", "d")
    own = own.model_copy(update={"preference": PreferenceSettings(data=("p.jsonl",))})
    [(_, pair)] = read_own_pairs(own)
    assert isinstance(pair, PreferencePair) and (pair.chosen, pair.rejected) == ("Darum.", "Nein.")
    other = own.model_copy(update={"synthesis": SynthesisSettings(columns={})})
    assert pairs_digest(own) != pairs_digest(other)


def test_an_exam_that_is_a_folder_or_a_part_is_called_by_its_own_name(tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "a.json").write_text('[{"question": "Why?"}]')
    for name in ("parts", "parts/a.json[0:1]"):
        own = recipe(tmp_path, columns={}, exam=name)
        with pytest.raises(UserError) as error:
            read_own_exam(exam_path(own), "No.", {}, {}, {}, exam_name(own))
        assert str(tmp_path / name) in error.value.headline and "cache" not in str(error.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DocumentError, match="there is no exam at .*empty"):
        exam_path(recipe(tmp_path, columns={}, exam="empty"))
