"""What the source never does: load pickles, evaluate text, run foreign code, unpack archives, call a shell."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from support import ROOT

FILES = sorted((ROOT / "src" / "tunewright").rglob("*.py"))
TREES = {path.relative_to(ROOT / "src" / "tunewright").as_posix(): ast.parse(path.read_text("utf-8")) for path in FILES}

PICKLES = {"pickle", "_pickle", "cPickle", "shelve", "marshal", "dill", "cloudpickle", "joblib", "diskcache"}
ARCHIVES = {"tarfile", "py7zr", "rarfile", "patoolib"}
BUILTINS = {"eval", "exec", "compile", "__import__"}  # as methods of others (model.eval, re.compile) they run no text
METHODS = {"extractall", "unpack_archive", "getoutput", "popen"}


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


def calls(tree: ast.AST) -> Iterator[tuple[str, str, ast.Call]]:
    """Yield the name that is called, what it is called on, and the call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            on = node.func.value if isinstance(node.func, ast.Attribute) else None
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            yield name, ast.unparse(on) if on is not None else "", node


def given(call: ast.Call, name: str) -> str:
    return next((ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg == name), "")


def test_no_module_imports_a_loader_of_pickles_or_an_unpacker_of_archives() -> None:
    users = {path: used for path, tree in TREES.items() if (used := set(imports(tree)) & (PICKLES | ARCHIVES))}
    assert users == {"models/pickled_weights_worker.py": {"pickle"}}  # for the name of an error
    worker = TREES["models/pickled_weights_worker.py"]
    used = {node.attr for node in ast.walk(worker) if isinstance(node, ast.Attribute) and "pickle" in ast.unparse(node)}
    assert used == {"UnpicklingError"}


def test_nothing_is_evaluated_unpacked_or_passed_to_a_shell() -> None:
    hits = [
        f"{path}:{call.lineno} {on}.{name}"
        for path, tree in TREES.items()
        for name, on, call in calls(tree)
        if (name in BUILTINS and on in ("", "builtins"))
        or name in METHODS
        or given(call, "shell") not in ("", "False")
        or (on, name) == ("os", "system")
    ]
    assert hits == []


def test_weights_arrays_and_yaml_are_loaded_as_data_alone() -> None:
    for path, tree in TREES.items():
        classes = (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
        safe = {node.name for node in classes if "yaml.SafeLoader" in map(ast.unparse, node.bases)}
        for name, on, call in calls(tree):
            where = f"{path}:{call.lineno}"
            if on == "torch" and name == "load":
                assert given(call, "weights_only") == "True", where
            if on in ("np", "numpy") and name == "load":
                assert given(call, "allow_pickle") == "False", where
            if on == "yaml":
                loader = given(call, "Loader") or ast.unparse(call.args[-1])
                assert name in ("safe_load", "safe_dump", "dump") or loader in safe | {"yaml.SafeLoader"}, where
            assert given(call, "trust_remote_code") in ("", "False"), where


def test_the_readers_of_pdf_and_the_servers_are_above_their_known_faults() -> None:
    floors = dict(re.findall(r'"([a-z0-9_-]+)(?:\[\w+\])?>=([\d.]+)"', (ROOT / "pyproject.toml").read_text("utf-8")))
    number = {name: tuple(map(int, floor.split("."))) for name, floor in floors.items()}
    assert number["starlette"] >= (1, 3, 1)
    assert number["torch"] >= (2, 10)
    assert number["peft"] >= (0, 21, 2)
    assert number["jinja2"] >= (3, 1, 6)
    assert number["pypdf"] >= (6,)
    assert not {"pdfminer", "pdfplumber", "fitz"} & {name for tree in TREES.values() for name in imports(tree)}


def test_nothing_is_decided_by_the_clock_of_the_day() -> None:
    """It may be wrong, or jump: it is written down and shown, and asked when a server names a date to wait for."""
    clocks = {("time", "time"), ("datetime", "now"), ("datetime", "today"), ("date", "today"), ("datetime", "utcnow")}
    users = {path for path, tree in TREES.items() if any((on, name) in clocks for name, on, _ in calls(tree))}
    assert users == {
        *("teacher/endpoint.py", "serving/app.py", "commands/jobs.py", "studio/jobs.py", "studio/web.py"),
        "documents/fetch.py",  # the date of a page
    }


def test_the_scan_sees_what_it_looks_for() -> None:
    code = (
        "import pickle\nfrom tarfile import open\neval(x)\nos.system(x)\nrun(x, shell=True)\nf(trust_remote_code=True)"
    )
    tree = ast.parse(code)
    assert set(imports(tree)) == {"pickle", "tarfile"}
    assert [(name, on) for name, on, _ in calls(tree)] == [("eval", ""), ("system", "os"), ("run", ""), ("f", "")]
    assert given(list(calls(tree))[2][2], "shell") == given(list(calls(tree))[3][2], "trust_remote_code") == "True"
