"""Every command on every page runs here on a tiny model, or its mark says which test runs it, or why none does."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from support import ABSTRACTS, ROOT
from support.able_teacher import able
from support.faulty_server import fake_teacher
from support.page_commands import Block, blocks, pages
from support.warm_process import run_command

BLOCKS = [block for page in pages() for block in blocks(page)]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
TAKING_SETTINGS = {"plan", "preview", "run", "train", "evaluate", "curve", "launch"}
EXAMPLES = ROOT / "src" / "tunewright" / "examples"


def test_marks_are_read_as_they_are_written(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "Text.\n\n<!-- run -->\n\n    tunewright plan r.toml \\\n      --prove  # why\n    other\n\nText:\n\n    pip install x\n\n"
        "<!-- not run: it needs a GPU -->\n\n    tunewright run r.toml\n\n    tunewright report DIR\n\n<!-- run by a.py::test_b -->\n\n    git x\n"
    )
    first, second, third, fourth = blocks(page)
    assert (first.mark, first.commands) == ("run", [["tunewright", "plan", "r.toml", "--prove"]])
    assert second.mark == ""
    assert (third.mark, third.why, len(third.lines)) == ("not run", "it needs a GPU", 2)
    assert (fourth.mark, fourth.why) == ("run by", "a.py::test_b")


def test_there_is_a_tutorial_for_each_way_in_and_each_is_run():
    assert {path.stem for path in TUTORIALS} == {
        "papers-and-refusals", "labels-to-json", "raw-text-small-card", "instructions-and-preferences",
        "facts-by-distillation",
    }  # fmt: skip
    for path in TUTORIALS:
        commands = [words for block in blocks(path) if block.mark == "run" for words in block.commands]
        assert [words[1] for words in commands].count("init") == 1, path
        assert {"plan", "run"} & {words[1] for words in commands}, path


def write_world(folder: Path) -> None:
    """Write the files that the pages speak of: papers, chats with labels, preference pairs."""
    (folder / "papers").mkdir()
    for source in sorted(ABSTRACTS.glob("*.md"))[:12]:
        shutil.copy(source, folder / "papers")
    lines = (EXAMPLES / "triage.train.jsonl").read_text(encoding="utf-8").splitlines()
    for name in ("tickets.jsonl", "chats.jsonl"):
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    pairs = []
    for line in lines[:12]:
        messages = json.loads(line)["messages"]
        pairs.append({"prompt": messages[1]["content"][:200], "chosen": messages[2]["content"], "rejected": "{}"})
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")


def smaller(folder: Path, model: Path, url: str) -> list[str]:
    """Return the settings that make a page's commands small, and point them to a tiny model and a teacher here.

    After fewer epochs, the tuned model answers with no words, as its base does, and there is nothing to mark.
    """
    changes = {
        "model.base": str(model), "model.quantization": "none", "training.epochs": 3, "training.rank": 4,
        "training.max_tokens": 2048, "training.learning_rate": 0.01, "training.batch_size": 8, "evaluation.max_new_tokens": 8, "retrieval.model": "",
        "exam.retention_items": 24,
    }  # fmt: skip
    if "papers" in (folder / "recipe.toml").read_text(encoding="utf-8"):
        changes |= {"teacher.url": url, "teacher.model": "fake", "synthesis.samples_per_document": 4}
        changes |= {"exam.learned_per_document": 1, "exam.unseen_per_document": 2, "exam.kinds": ["free"]}
    return [f"--set={name}={json.dumps(value)}" for name, value in changes.items()]


def typed(words: list[str], folder: Path, model: Path, url: str) -> None:
    """Run a command of a page in a folder; it has to end well."""
    program, verb, *rest = words
    assert program == "tunewright", words
    if "ID" in rest:
        sample = (folder / "runs" / "recipe" / "train.jsonl").read_text(encoding="utf-8").splitlines()[0]
        rest[rest.index("ID")] = json.loads(sample)["id"]
    if verb == "init":
        (folder / "recipe.toml").unlink(missing_ok=True)  # of an earlier page
    settings = smaller(folder, model, url) if verb in TAKING_SETTINGS else []
    result = run_command([verb, *settings, *rest], {**os.environ, "NO_COLOR": "1"}, cwd=folder)
    assert result.returncode == 0, f"{' '.join(words)}\n{result.stderr[-3000:]}"


def run_blocks(chosen: list[Block], folder: Path, model: Path) -> None:
    with fake_teacher(able) as server:
        for block in chosen:
            for words in block.commands:
                typed(words, folder, model, server.url)


@pytest.mark.slow  # each recipe kind trains in tests/test_recipes.py; here, a user's path with every command
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_works_as_it_is_typed(page, tmp_path, tiny_model):
    write_world(tmp_path)
    run_blocks([block for block in blocks(page) if block.mark == "run"], tmp_path, tiny_model)


@pytest.fixture(scope="module")
def papers_world(tmp_path_factory, tiny_model):
    """A folder with papers, a recipe and its finished run, as the how-to pages have it."""
    folder = tmp_path_factory.mktemp("pages")
    write_world(folder)
    with fake_teacher(able) as server:
        for words in (["init", "papers/", "-o", "recipe.toml"], ["run", "recipe.toml"]):
            typed(["tunewright", *words], folder, tiny_model, server.url)
    return folder


OTHERS = sorted({block.page for block in BLOCKS if block.mark == "run"} - set(TUTORIALS))


@pytest.mark.slow  # every command has its own quicker test
@pytest.mark.parametrize("page", OTHERS, ids=lambda page: page.stem)
def test_the_commands_of_a_page_run_on_a_finished_run(page, papers_world, tiny_model):
    run_blocks([block for block in blocks(page) if block.mark == "run"], papers_world, tiny_model)
