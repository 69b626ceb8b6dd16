"""The container files: what they copy and install is there, and ``launch`` runs a recipe in an image."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from support import ROOT
from tunewright.cli import main
from tunewright.recipe import toml_value

FILES = sorted((ROOT / "containers").glob("Containerfile.*"))
IMAGE = "registry.example/me/tunewright:cuda"


def instructions(path: Path) -> list[tuple[str, str]]:
    """Return the instructions of a container file with their arguments, lines joined."""
    text = re.sub(r"^#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.suffix)
def test_a_container_file_copies_what_there_is_and_installs_what_was_tested(path: Path) -> None:
    steps = instructions(path)
    assert steps[0][0] == "FROM"
    assert f"`{steps[0][1]}`" in (ROOT / "docs" / "other-machines.md").read_text(encoding="utf-8")
    copied = [name for step, words in steps if step == "COPY" for name in words.split()[:-1]]
    assert all((ROOT / name).exists() for name in copied)
    let_through = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert set(copied) == set(let_through)  # all else stays out of the build
    runs = [words for step, words in steps if step == "RUN"]
    assert any("pip install" in words and "--constraint constraints.txt ." in words for words in runs)
    assert any("grep '^torch=='" in words for words in runs)
    assert len(re.findall(r"^torch==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)) == 1
    assert json.loads(dict(steps)["ENTRYPOINT"]) == ["tunewright"]


def test_the_devcontainer_calls_a_target_of_make() -> None:
    content = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    program, target = content["postCreateCommand"].split()
    assert program == "make"
    assert f"\n{target}: " in (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.fixture
def recipe(tmp_path: Path, tiny_model: Path) -> Path:
    (tmp_path / "my papers").mkdir()
    (tmp_path / "my papers" / "a.md").write_text("# A\n\nText.\n")
    text = f'[documents]\npaths = ["my papers"]\n\n[model]\nbase = {toml_value(str(tiny_model))}\n'
    (tmp_path / "recipe.toml").write_text(text)
    return tmp_path / "recipe.toml"


def launched(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> tuple[str, str]:
    with pytest.raises(SystemExit) as end:
        main(["launch", *map(str, words)])
    assert end.value.code == code
    output = capsys.readouterr()
    return output.out, output.err


def test_launch_runs_in_an_image(recipe: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = yaml.safe_load(launched(capsys, recipe, "--print", "--gpu", "A100", "--image", IMAGE)[0])
    assert task["resources"]["image_id"] == f"docker:{IMAGE}"
    script, _ = launched(capsys, recipe, "--print", "--gpu", "a100", "--for", "slurm", "--image", IMAGE)
    words = shlex.split(next(line for line in script.splitlines() if line.startswith("apptainer")))
    start = words.index(f"docker://{IMAGE}")
    assert words[:3] == ["apptainer", "exec", "--nv"]
    assert words[start + 1 : start + 6] == ["python", "-m", "tunewright", "run", str(recipe)]
    bound = {after for word, after in zip(words, words[1:], strict=False) if word == "--bind"}
    assert {str(recipe.parent), str(tiny_model.parent)} <= bound
    assert "image_id" not in launched(capsys, recipe, "--print", "--gpu", "A100")[0]


def test_what_is_no_image_is_refused(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused = launched(capsys, recipe, "--print", "--gpu", "A100", "--image", "x; rm -rf /", code=1)[1]
    assert "no name of an image" in refused
    refused = launched(capsys, recipe, "--print", "--for", "notebook", "--gpu", "T4", "--image", IMAGE, code=1)[1]
    assert "a notebook brings its own" in refused
