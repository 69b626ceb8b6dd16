"""Documentation that is made from the code is not stale, and the house rules that can be counted hold."""

import ast
import re

import pytest

import tunewright
from support import ROOT
from support.documentation import generator

SOURCES = sorted((ROOT / "src").rglob("*.py"))


@pytest.mark.parametrize("name", ["README.md", "docs/files.md", "docs/recipe.md", "docs/commands.md"])
def test_generated_pages_are_fresh(name):
    assert (ROOT / name).read_text(encoding="utf-8") == generator().PAGES[name](), "run: make docs"


def test_the_tree_names_every_file_with_its_docstring():
    tree = (ROOT / "docs/files.md").read_text(encoding="utf-8")
    for path in SOURCES:
        line = generator().first_line(path)
        assert line, path
        assert path.name == "__init__.py" or f"{path.name}" in tree
    assert generator().first_line(ROOT / "src/tunewright/training/loop.py") in tree


def test_links_lead_somewhere():
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), target


def test_files_and_functions_stay_small():
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= 500, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno - node.lineno < 60, f"{path}: {node.name}"


def test_public_names_exist_and_are_sorted():
    assert tunewright.__all__ == sorted(tunewright.__all__)
    assert all(getattr(tunewright, name) for name in tunewright.__all__)


def test_version_is_the_changelogs():
    assert f"## {tunewright.__version__}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
