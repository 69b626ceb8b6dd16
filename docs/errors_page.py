"""The page of errors: every error that the source raises, with its code, cause and cure."""

from __future__ import annotations

import ast
import inspect
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tunewright import errors

SOURCE = Path(errors.__file__).parent
_UNKNOWN = "…"
_HEAD = """# Errors

Every error has a headline, a cause and a cure, and with `--json` a [code](json.md). `…` stands for what the error
names: a file, a number, the words of a library. Generated from the source.

Where an error says "this is a defect in tunewright", it is none of these: set `TUNEWRIGHT_TRACEBACK=1`, run the command
again, and report what it prints.
"""


def kinds() -> dict[str, type[errors.TunewrightError]]:
    """Return the kinds of error by name, in the order of errors.py."""
    own = vars(errors).values()
    return {k.__name__: k for k in own if inspect.isclass(k) and issubclass(k, errors.TunewrightError)}


def _text(node: ast.expr) -> str:
    """Return what an argument of an error says, with "…" for what is only known at run time."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return _text(node.value)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    if isinstance(node, ast.IfExp):
        choices = [text for text in (_text(node.body), _text(node.orelse)) if text]
        return " / ".join(dict.fromkeys(choices))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "command":
        words = [_text(word) for word in node.args]
        return " ".join(["tunewright", *words])
    return _UNKNOWN


def raised(tree: ast.AST) -> Iterator[tuple[str, list[str]]]:
    """Yield the kind of each error of a module, and its headline, cause and hint as far as they are written there."""
    names = kinds()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names and node.args:
            if isinstance(node.args[0], ast.Starred):
                continue
            by_name = {keyword.arg: keyword.value for keyword in node.keywords}
            values = [*node.args[:3], *(by_name[name] for name in ("headline", "cause", "hint") if name in by_name)]
            yield node.func.id, [" ".join(_text(value).split()) for value in values]


def page() -> str:
    """Return docs/errors.md."""
    rows: dict[str, set[tuple[str, str, str]]] = defaultdict(set)
    for path in SOURCE.rglob("*.py"):
        for kind, texts in raised(ast.parse(path.read_text(encoding="utf-8"))):
            headline, cause, hint = (*texts, "", "", "")[:3]
            if headline.strip(" …"):
                rows[kind].add((headline, cause, hint))
    lines = [_HEAD]
    for name, kind in kinds().items():
        if name == "TunewrightError":
            continue
        about = (inspect.getdoc(kind) or "").partition("\n")[0]
        lines += [f"## {kind.code}", "", f"Exit code {kind.exit_code}. {about}", ""]
        if rows[name]:
            lines += ["| error | cause | cure |", "|---|---|---|"]
            lines += [f"| {' | '.join(map(_cell, row))} |" for row in sorted(rows[name])]
            lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    for sign in "\\|<>*_`[]":
        text = text.replace(sign, f"\\{sign}" if sign not in "<>" else {"<": "&lt;", ">": "&gt;"}[sign])
    return text
