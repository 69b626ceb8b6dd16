"""The rules of the house that can be counted: rooms, sizes, words, who opens a run's files, types, imports."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import ROOT
from tunewright.recipe import Recipe, sections

SOURCE = ROOT / "src" / "tunewright"
FILES = sorted(SOURCE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
ROOT_FILES = {
    "__init__", "__main__", "errors", "console", "records", "settings", "recipe", "storage", "run_folder",
    "environment", "operating_system", "distributed", "metrics", "stages", "pipeline",
}  # fmt: skip

# Words that this project does not use, and the places where one of them is right.
PROSE = re.compile(
    r"\b(told|anew|mend(?:s|ed|ing)?|purses?|parcels?|warmth|third ring|kept ring|(?:sits?|sat|sitting) (?:the|an|this|that) exam)\b",
    re.I,
)
NAMES = {
    "told", "tell", "tells", "found", "place", "places", "one", "ones", "asked", "said", "sat", "sit", "sits",
    "sitting", "sheet", "sheets", "anew", "mend", "mended", "purse", "parcel", "warmth", "shelf", "workshop",
}  # fmt: skip
LEGITIMATE_PROSE = {  # a key in plan.json, which runs of version 0.1 have
    ("src/tunewright/reporting/training.py", "told"),
    ("src/tunewright/training/profiling.py", "told"),
}

# studio/talk.py is the body of a program, as the modules of commands/ are.
OPENERS = re.compile(r"(^|/)stage\.py$|^commands/|^pipeline\.py$|^run_folder\.py$|^studio/talk\.py$")
OPENING = {
    "file", "read_json", "read_records", "each_record", "records_if_any", "json_if_any", "stage_record", "write", "write_json",
    "write_records", "reject", "journal", "log", "lock",
}  # fmt: skip


def place_of(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.arg]:
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return [argument for argument in every if argument.arg not in ("self", "cls")]


def bound_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno


def test_the_root_has_its_fifteen_files() -> None:
    assert {path.stem for path in SOURCE.glob("*.py")} == ROOT_FILES


def test_files_and_functions_stay_small() -> None:
    long = [place_of(path) for path in FILES if path.read_text(encoding="utf-8").count("\n") > 500]
    assert long == []
    for path, tree in TREES.items():
        for function in functions(tree):
            assert function.end_lineno is not None and function.end_lineno - function.lineno < 60, (
                f"{place_of(path)}: {function.name}"
            )


def test_no_name_is_of_the_private_dialect() -> None:
    hits = [
        f"{place_of(path)}:{line} {name}"
        for path, tree in TREES.items()
        for name, line in bound_names(tree)
        if set(name.strip("_").lower().split("_")) & NAMES
    ]
    assert hits == []


def test_no_text_is_of_the_private_dialect() -> None:
    pages = [path for path in SOURCE.rglob("*") if path.suffix in (".py", ".html", ".js", ".css", ".md")]
    pages += [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "recipes").iterdir(),
    ]
    pages = [path for path in pages if "examples/" not in path.as_posix()]  # other people's text
    hits = [
        f"{path.relative_to(ROOT).as_posix()}:{number} {match.group(0)}"
        for path in pages
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for match in PROSE.finditer(line)
        if (path.relative_to(ROOT).as_posix(), match.group(0)) not in LEGITIMATE_PROSE
        and not (path.name == "CONTRIBUTING.md" and line.startswith("|"))  # the style page lists the words
    ]
    assert hits == []


def opened_by(tree: ast.AST) -> set[str]:
    """Return the methods of a run folder that a module calls on a value which it was given as one."""
    folders = {
        argument.arg
        for function in functions(tree)
        for argument in parameters(function)
        if argument.annotation is not None and "RunFolder" in ast.unparse(argument.annotation)
    } | {"run", "_run"}
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return {
        call.attr
        for call in calls
        if isinstance(call, ast.Attribute)
        and call.attr in OPENING
        and (
            (isinstance(call.value, ast.Name) and call.value.id in folders)
            or (isinstance(call.value, ast.Attribute) and call.value.attr in folders)
        )
    }


def test_only_the_edge_opens_files_of_a_run() -> None:
    inside = {place_of(path): opened_by(tree) for path, tree in TREES.items() if not OPENERS.search(place_of(path))}
    assert {name: methods for name, methods in inside.items() if methods} == {}


def test_leaves_take_no_run_folder() -> None:
    leaves = [
        f"{place_of(path)}: {function.name}"
        for path, tree in TREES.items()
        if not OPENERS.search(place_of(path)) and not place_of(path).startswith("cli/")
        for function in functions(tree)
        for argument in parameters(function)
        if argument.annotation is not None and "RunFolder" in ast.unparse(argument.annotation)
    ]
    assert leaves == []


@pytest.mark.parametrize(("room", "most"), [("", 0.05), ("training", 0.15)])
def test_few_parameters_are_of_any_type(room: str, most: float) -> None:
    annotations = [
        ast.unparse(argument.annotation) if argument.annotation else "Any"
        for path, tree in TREES.items()
        if path.is_relative_to(SOURCE / room)
        for function in functions(tree)
        for argument in parameters(function)
    ]
    share = sum(annotation in ("Any", "Any | None") for annotation in annotations) / len(annotations)
    assert share <= most, f"{share:.1%} of {len(annotations)}"


def test_few_modules_have_a_single_importer() -> None:
    modules = {".".join(("tunewright", *path.relative_to(SOURCE).with_suffix("").parts)): path for path in FILES}
    importers: dict[str, set[str]] = defaultdict(set)
    for name, path in modules.items():
        for node in ast.walk(TREES[path]):
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    importers[inner if inner in modules else node.module].add(name)
    table = {"tunewright.documents.readers"}  # of the readers of all formats: a module each, by design
    single = [name for name in modules if len(importers[name]) == 1 and importers[name] != table]
    assert len(single) <= 0.29 * len(modules), sorted(single)


def test_the_import_contract_has_few_layers() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = next(c["layers"] for c in project["tool"]["importlinter"]["contracts"] if c["type"] == "layers")
    assert len(layers) <= 12


def test_settings_are_few() -> None:
    tops = [name for name in Recipe.model_fields if name != "folder" and name not in dict(sections())]
    assert len(tops) + sum(len(section.model_fields) for _, section in sections()) <= 102


def test_files_of_a_run_and_arms_are_named_in_one_table_each() -> None:
    from tunewright.run_folder import RunFile

    unique = {name.value for name in RunFile} - {
        "adapter",
        "exports",
        "checkpoints",
        "report.html",
        "data.html",
        "marking.html",
    }
    loose = [
        f"{place_of(path)}:{node.lineno} {node.value}"
        for path, tree in TREES.items()
        if place_of(path) != "run_folder.py"
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and node.value in unique
    ]
    assert [hit for hit in loose if not hit.endswith("recipe.toml")] == []  # which the user's own is called too
