"""init on chats, documents, and both."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from support.stand_in_hub import Repo, stand_in_hub
from support.time_limit import no_longer_than
from tunewright.commands.init import KNOWN_BASES, write_recipe
from tunewright.errors import DocumentError
from tunewright.models.families import FAMILIES
from tunewright.recipe import load_recipe

ROWS = [{"prompt": f"Where is ship {i}?", "completion": f"In dock {i % 7}."} for i in range(200)]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("name", ["chats.jsonl", "chats.json", "chats.csv"])
def test_chats_are_recognized_and_a_part_is_held_out(tmp_path, capsys, name):
    path = tmp_path / name
    if name.endswith(".csv"):
        path.write_text("prompt,completion\n" + "".join(f'{r["prompt"]},"{r["completion"]}"\n' for r in ROWS))
    else:
        path.write_text(json.dumps(ROWS)) if name.endswith(".json") else write(path, ROWS)
    write_recipe([path], tmp_path / "recipe.toml", force=False)
    recipe = load_recipe(tmp_path / "recipe.toml")
    assert (recipe.synthesis.data, recipe.documents.paths) == ((name,), ())
    assert (recipe.exam.held_out_share, recipe.system_prompt) == (0.25, "")
    assert "200 chats, recognized" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(("number", "warned"), [(59, True), (60, False)])
def test_too_few_chats_for_an_exam_are_warned_of(tmp_path, capsys, number, warned):
    path = write(tmp_path / "chats.jsonl", ROWS[:number])
    write_recipe([path], tmp_path / "recipe.toml", force=False)
    shown = " ".join(capsys.readouterr().err.split())
    assert (f"warning: {number} chat(s): with fewer than about 60" in shown) is warned
    exam = write(tmp_path / "exam.jsonl", [{"question": "Where is it?", "answer": "In dock 1."}])
    write_recipe([path], tmp_path / "recipe.toml", force=True, exam=exam)
    assert "chat(s)" not in capsys.readouterr().err


def test_an_exam_takes_the_place_of_held_out_chats(tmp_path):
    system = [{"messages": [{"role": "system", "content": "Be brief."}, *turns(row)]} for row in ROWS]
    exam = tmp_path / "exam.csv"
    exam.write_text("question,answer\nWhere?,Here.\n")
    write_recipe([write(tmp_path / "chats.jsonl", system)], tmp_path / "recipe.toml", force=False, exam=exam)
    recipe = load_recipe(tmp_path / "recipe.toml")
    assert (recipe.exam.file, recipe.exam.held_out_share, recipe.system_prompt) == ("exam.csv", 0, "Be brief.")


def turns(row):
    return [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]


def test_documents_beside_chats_give_both(tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    write(folder / "chats.jsonl", ROWS)
    (folder / "notes.md").write_text("# Notes\nThe gauge was read at noon.\n")
    (folder / "rows.jsonl").write_text('{"text": "The gauge was read at noon."}\n')
    write_recipe([folder], tmp_path / "recipe.toml", force=False)
    recipe = load_recipe(tmp_path / "recipe.toml")
    assert recipe.synthesis.data == ("mixed/chats.jsonl",)
    assert recipe.documents.paths == ("mixed/notes.md", "mixed/rows.jsonl")
    assert recipe.exam.held_out_share == 0  # the exam is written from the documents


def test_what_does_not_exist_is_refused(tmp_path):
    with pytest.raises(DocumentError, match="does not exist"):
        write_recipe([write(tmp_path / "a.jsonl", ROWS)], tmp_path / "r.toml", force=False, exam=tmp_path / "no.csv")


def test_what_is_no_file_is_left_to_ingest_and_a_name_that_is_no_text_is_refused(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.md").write_text("# Notes\nThe gauge was read at noon.\n")
    (folder / "gone.md").symlink_to("nowhere.md")
    (folder / "round").symlink_to("round")
    (folder / "to-a-folder.md").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe.md")
    with no_longer_than(60):
        write_recipe([folder], tmp_path / "r.toml", force=False)
    assert load_recipe(tmp_path / "r.toml").documents.paths == ("docs",)
    odd = folder.rename(tmp_path / os.fsdecode(b"d\xff"))
    with pytest.raises(DocumentError, match="cannot name"):
        write_recipe([odd], tmp_path / "other.toml", force=False)
    assert not (tmp_path / "other.toml").exists()


@pytest.mark.slow
def test_parquet_and_data_sets_of_the_hub_are_chats(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    pytest.importorskip("datasets")
    rows = pytest.importorskip("pyarrow").Table.from_pylist(ROWS)
    (tmp_path / "folder").mkdir()
    for name in ("chats.parquet", "folder/more.parquet"):
        parquet.write_table(rows, tmp_path / name)
    with stand_in_hub() as hub:
        hub.repos["datasets/me/chats"] = Repo(False, {"data/train.jsonl": json.dumps(ROWS[0]).encode() + b"\n"})
        environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")}
        environment |= {"TUNEWRIGHT_CACHE": str(tmp_path / "cache")}
        command = [sys.executable, "-m", "tunewright", "init", "chats.parquet", "folder", "hub:me/chats"]
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "401 chats, recognized" in " ".join(result.stderr.split())
    recipe = load_recipe(tmp_path / "recipe.toml")
    assert recipe.synthesis.data == ("chats.parquet", "folder", "hub:me/chats") and not recipe.documents.paths


def test_where_a_gpu_trains_the_placebo_arm_runs_too(abstracts, tmp_path, monkeypatch):
    monkeypatch.setattr("tunewright.commands.init._gpu_memory_gib", lambda: 24.0)
    write_recipe([abstracts], tmp_path / "recipe.toml", force=False)
    assert "placebo" in load_recipe(tmp_path / "recipe.toml").evaluation.arms


@pytest.mark.parametrize(
    "gib, taken",
    [(141, "Qwen/Qwen3-14B"), (24, "Qwen/Qwen3-14B"), (12, "ibm-granite/granite-4.1-8b"), (1, "embedded")],
)
def test_the_largest_base_that_fits_is_taken_and_three_are_shown(abstracts, tmp_path, monkeypatch, capsys, gib, taken):
    monkeypatch.setattr("tunewright.commands.init._gpu_memory_gib", lambda: float(gib))
    write_recipe([abstracts], tmp_path / "recipe.toml", force=False)
    assert load_recipe(tmp_path / "recipe.toml").model.base == taken
    printed = " ".join(capsys.readouterr().err.split())
    shown = [base for base in KNOWN_BASES if base.in_words() in printed]
    assert len(shown) == 3
    assert "as of 20" in printed
    recipe = load_recipe(tmp_path / "recipe.toml")
    assert recipe.teacher.url == ("self" if taken != "embedded" else "embedded")
    assert ("passage-qa" in recipe.synthesis.tasks) == (taken != "embedded")
    if taken != "embedded":
        assert all(base.gib < gib for base in shown)
        assert not next(base for base in shown if base.name == taken).is_gated


def test_known_bases_are_of_tested_families_with_layers_of_the_fast_path():
    assert all(FAMILIES[base.config["model_type"]].layers for base in KNOWN_BASES)
    sizes = {base.name: (base.shape.block_weights + base.shape.vocabulary_weights) / 1e9 for base in KNOWN_BASES}
    assert sizes["Qwen/Qwen3-8B"] == pytest.approx(8.2, abs=0.1)
    assert sizes["Qwen/Qwen3-14B"] == pytest.approx(14.8, abs=0.1)
    assert sizes["HuggingFaceTB/SmolLM3-3B"] == pytest.approx(3.08, abs=0.1)
    assert sizes["meta-llama/Llama-3.1-8B-Instruct"] == pytest.approx(8.03, abs=0.1)
    assert sizes["google/gemma-3-12b-it"] == pytest.approx(11.8, abs=0.2)  # its language model
