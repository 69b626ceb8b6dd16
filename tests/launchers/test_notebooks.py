"""The notebooks are what the recipes say, and one of them goes all the way in a real kernel, twice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from support import ROOT
from support.documentation import generator
from support.faulty_server import fake_teacher
from support.whole_path import asks
from tunewright.examples import abstracts_folder
from tunewright.launchers.launch import launch
from tunewright.launchers.notebooks import notebook

NAMES = sorted(name for name in generator().PAGES if name.endswith(".ipynb"))


@pytest.mark.parametrize("name", NAMES)
def test_the_notebooks_are_fresh_and_valid(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert text == generator().PAGES[name](), "run: make docs"
    nbformat.validate(nbformat.reads(text, as_version=4), version=4, version_minor=5)
    cells = json.loads(text)["cells"]
    assert len({cell["id"] for cell in cells}) == len(cells)
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells if cell["cell_type"] == "code")


def test_each_gpu_has_a_notebook_and_there_is_no_other_file() -> None:
    assert sorted(f"notebooks/{path.name}" for path in (ROOT / "notebooks").iterdir()) == NAMES
    assert [json.loads((ROOT / name).read_text())["metadata"]["colab"]["gpuType"] for name in NAMES] == ["A100", "T4"]


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_holds_its_recipe_word_for_word(name: str) -> None:
    cells = {cell["id"]: "".join(cell["source"]) for cell in json.loads((ROOT / name).read_text())["cells"]}
    stem = Path(name).stem.removesuffix("_a100")
    _, _, body = cells["recipe"].partition("\n")
    assert f"{body}\n" == (ROOT / "recipes" / f"{stem}.toml").read_text(encoding="utf-8")


def _executed(name: str, folder: Path, parameters: dict[str, Any]) -> dict[str, str]:
    """Execute a notebook with its parameters replaced, as papermill does; return what each code cell printed."""
    book = nbformat.read(ROOT / name, as_version=4)
    index = next(n for n, cell in enumerate(book.cells) if "parameters" in cell.metadata.get("tags", []))
    given = "".join(f"{key} = {value!r}\n" for key, value in parameters.items())
    book.cells.insert(index + 1, nbformat.v4.new_code_cell(given, id="injected"))
    NotebookClient(book, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    return {
        cell.id: "".join(str(output.get("text") or output.get("data", "")) for output in cell.outputs)
        for cell in book.cells
        if cell.cell_type == "code"
    }


@pytest.mark.slow
def test_a_notebook_goes_from_documents_to_adapter_and_run_again_does_nothing_twice(
    tiny_model: Path, tmp_path: Path
) -> None:
    student = Path(shutil.copytree(tiny_model, tmp_path / "student"))
    ends = {"eos_token_id": [2, *range(200, 400)]}  # at one token or another, soon: a random model hardly ever would
    (student / "generation_config.json").write_text(json.dumps(ends))
    (tmp_path / "papers").mkdir()
    for path in sorted(abstracts_folder().glob("*.md"))[:4]:
        shutil.copy(path, tmp_path / "papers" / f"{path.stem}.txt")
    with fake_teacher(asks) as server:
        settings = [f"teacher.url={server.url}", "teacher.model=fake", "training.epochs=1", "training.batch_size=4"]
        settings += ["synthesis.samples_per_document=3", "exam.unseen_per_document=1", "exam.learned_per_document=1"]
        settings += ["evaluation.arms=['base','tuned']", "evaluation.max_new_tokens=4", "training.max_tokens=1024"]
        parameters = {"BASE": str(student), "SETTINGS": settings, "INSTALL": "nothing-is-to-be-installed"}
        first = _executed("notebooks/t4_7b.ipynb", tmp_path, parameters)
        calls, adapter = len(server.seen), tmp_path / "run" / "adapter" / "adapter_model.safetensors"
        trained = adapter.stat().st_mtime_ns
        again = _executed("notebooks/t4_7b.ipynb", tmp_path, parameters)
        assert (len(server.seen), adapter.stat().st_mtime_ns) == (calls, trained)
    assert "memory of training" in first["plan"]
    assert "verdict:" in first["run"]
    assert again["plan"].count("nothing: fresh") > 5
    for outputs in (first, again):
        assert "<iframe srcdoc=" in outputs["report"]
        assert "adapter.zip" in outputs["take"]
        assert outputs["chat"]
    assert (tmp_path / "adapter.zip").stat().st_size > adapter.stat().st_size / 2


def test_a_failing_command_stops_the_notebook_with_its_error(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "a.txt").write_text("A study of 426 patients.")
    with pytest.raises(Exception, match="unknown setting(.|\n)*tunewright plan ended with 1"):
        _executed("notebooks/t4_7b.ipynb", tmp_path, {"BASE": str(tiny_model), "SETTINGS": ["training.epoch=1"]})


def test_any_recipe_becomes_a_notebook(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "papers").mkdir()
    (tmp_path / "schema.json").write_text("{}")
    text = '# Mine: "quoted"\n[documents]\npaths = ["papers"]\n[synthesis]\nextraction_schema = "schema.json"\n'
    (tmp_path / "mine.toml").write_text(text)
    arguments: dict[str, Any] = {
        "assignments": ("seed=3",),
        "scheduler": "notebook",
        "gpu": "A100-80GB",
        "output": None,
    }
    launch(tmp_path / "mine.toml", tmp_path / "run", **arguments)
    book = json.loads(capsys.readouterr().out)
    cells = {cell["id"]: "".join(cell["source"]) for cell in book["cells"]}
    names: dict[str, Any] = {}
    exec(compile(cells["parameters"], "parameters", "exec"), names)
    assert names["SETTINGS"] == ["seed=3", 'synthesis.extraction_schema="schema.json"']
    assert "`schema.json`" in cells["what-this-does"]
    assert book["metadata"]["colab"]["gpuType"] == "A100"
    assert notebook(text, "mine", "T4") == notebook(text, "mine", "T4")


@pytest.mark.parametrize(
    ("recipe", "title"), [("# My papers\nseed = 1\n", "# My papers"), ("seed = 1\n", "# mine"), ("#\n", "# mine")]
)
def test_a_notebook_is_titled_by_its_recipes_first_comment_or_its_name(recipe: str, title: str) -> None:
    first = json.loads(notebook(recipe, "mine", "T4"))["cells"][0]
    assert "".join(first["source"]).partition("\n")[0] == title
