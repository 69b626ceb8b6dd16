"""Generates the parts of the documentation that come from code and records: references, file lists, speeds, notebooks.

Run by ``make docs``; a test fails when one of them is stale.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from functools import partial
from pathlib import Path
from typing import Literal, get_args, get_origin

sys.path.insert(0, str(Path(__file__).parent))
import coming_from
import errors_page
import scale
import speed

from tunewright.commands.json_documents import VERSIONS, JsonPart, schema
from tunewright.launchers.notebooks import notebook
from tunewright.recipe import Recipe, sections
from tunewright.settings import Arm

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "tunewright"


def first_line(path: Path) -> str:
    """Return the first line of a module's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def _modules() -> list[Path]:
    """Return all modules, those of a package together, packages by depth."""
    return sorted(SOURCE.rglob("*.py"), key=lambda path: (len(path.relative_to(SOURCE).parts), path.parent, path.stem))


def tree(modules: list[Path]) -> str:
    """Return the source tree of these modules, one line each; a package's line is that of its ``__init__``."""
    lines = ["src/tunewright/"]
    for path in modules:
        inner = path.relative_to(SOURCE)
        if path.stem == "__init__":
            lines.append(f"{inner.parent.as_posix() + '/':<30}{first_line(path)}" if inner.parts[1:] else "")
        else:
            lines.append(f"{'  ' * len(inner.parts) + inner.name:<30}{first_line(path)}")
    return "\n".join(line for line in lines if line)


def recipe_reference() -> str:
    """Return docs/recipe.md: every setting with its default and help."""
    lines = ["# The recipe", "", "Every setting, its default and what it does. An unknown key is an error.", ""]
    kinds = dict(sections())
    tops = [(name, field) for name, field in Recipe.model_fields.items() if name not in kinds and name != "folder"]
    for title, fields in [("top level", tops), *((f"[{n}]", list(k.model_fields.items())) for n, k in kinds.items())]:
        lines += [f"## {title}", "", "| setting | default | what it does |", "|---|---|---|"]
        for name, field in fields:
            default = json.dumps(field.default, ensure_ascii=False)
            limits = [repr(mark) for mark in field.metadata if not isinstance(mark, str)]
            bounds = ", ".join(re.sub(r"[()]", " ", limit).replace("=", " ").strip() for limit in limits)
            text = f"{field.description}" + (f" ({_range(bounds)})" if bounds else "") + _choices(field.annotation)
            lines.append(f"| `{name}` | `{default}` | {text} |")
        lines.append("")
    return "\n".join(lines)


def _choices(annotation: object) -> str:
    """Return what a setting can be, where it is one or some of a few words; where its help names them all, nothing."""
    kinds = [kind for kind in (annotation, *get_args(annotation)) if get_origin(kind) is Literal or kind is Arm]
    words = [] if not kinds else list(Arm) if kinds[0] is Arm else get_args(kinds[0])
    return " (one of: " + ", ".join(f"`{json.dumps(word)}`" for word in words) + ")" if words else ""


def _range(bounds: str) -> str:
    """Return pydantic's constraints in signs: ge 1 becomes ≥ 1."""
    for name, sign in (
        ("Ge ge", "≥"),
        ("Gt gt", ">"),
        ("Le le", "≤"),
        ("Lt lt", "<"),
        ("MinLen min_length", "length ≥"),
    ):
        bounds = bounds.replace(name, sign)
    return bounds


def command_reference() -> str:
    """Return docs/commands.md: the help of every command, as the program prints it."""
    import click

    from tunewright.cli import commands

    lines = ["# The commands", "", "As `tunewright COMMAND --help` prints them.", ""]
    for name in sorted(commands.commands):
        parent = click.Context(commands, info_name="tunewright", **commands.context_settings)
        context = click.Context(commands.commands[name], parent, info_name=name, terminal_width=100)
        lines += [f"## {name}", "", "```", commands.commands[name].get_help(context), "```", ""]
    return "\n".join(lines)


def json_schema(kind: type[JsonPart]) -> str:
    """Return the schema of a document of ``--json`` as text."""
    return json.dumps(schema(kind), indent=2, ensure_ascii=False) + "\n"


def _between(page: str, name: str, content: str) -> str:
    """Return a page with new content between its marks <!-- name --> and <!-- /name -->."""
    head, rest = page.split(f"<!-- {name} -->")
    return f"{head}<!-- {name} -->\n{content}\n<!-- /{name} -->{rest.split(f'<!-- /{name} -->')[1]}"


def performance() -> str:
    """Return docs/performance.md with its table of speeds rendered from the records."""
    return _between((ROOT / "docs" / "performance.md").read_text(encoding="utf-8"), "speed", speed.table())


def files() -> str:
    """Return docs/files.md: the packages, then every file."""
    modules = _modules()
    packages = [path for path in modules if path.parent == SOURCE or path.stem == "__init__"]
    about = (
        "Each line is the first line of a module's docstring. Imports point downward only; `make check` enforces it."
    )
    return (
        f"# The source tree\n\n{about}\n\n## Packages\n\n```\n{tree(packages)}\n```\n\n"
        f"## Every file\n\n```\n{tree(modules)}\n```\n"
    )


def coming_from_others() -> str:
    """Return docs/coming-from.md with its tables rendered from those that the conversion uses."""
    text = (ROOT / "docs" / "coming-from.md").read_text(encoding="utf-8")
    for name, table in coming_from.tables().items():
        text = _between(text, name, table)
    return text


def at_scale() -> str:
    """Return docs/scale.md with its tables by the functions of plan."""
    text = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    for name, table in scale.tables().items():
        text = _between(text, name, f"\n{table}\n")
    return text


def t4_notebook() -> str:
    """Return the notebook of the recipe for one T4."""
    return notebook(_recipe("t4_7b"), "t4_7b", "T4")


def a100_notebook() -> str:
    """Return the notebook of the recipe for an A100; its teacher is in the notebook, since no server is there."""
    note = "The teacher, Qwen2.5-7B-Instruct, works in this process, before the training and never beside it."
    settings = ("teacher.url=local", "teacher.quantization=nf4-double", "teacher.api_key_env=")
    recipe = _recipe("academic_qa_zephyr")
    return notebook(recipe, "academic_qa_zephyr", "A100", documents="", settings=settings, note=note)


def _recipe(name: str) -> str:
    return (ROOT / "recipes" / f"{name}.toml").read_text(encoding="utf-8")


PAGES = {
    "docs/performance.md": performance,
    "docs/files.md": files,
    "docs/recipe.md": recipe_reference,
    "docs/commands.md": command_reference,
    "docs/coming-from.md": coming_from_others,
    "docs/scale.md": at_scale,
    "docs/errors.md": errors_page.page,
    "docs/images/speed.svg": speed.chart,
    "notebooks/t4_7b.ipynb": t4_notebook,
    "notebooks/academic_qa_zephyr_a100.ipynb": a100_notebook,
    **{f"docs/json/{name}.schema.json": partial(json_schema, kind) for kind, (name, _) in VERSIONS.items()},
}


def main() -> None:
    """Write every page."""
    for name, render in PAGES.items():
        (ROOT / name).parent.mkdir(exist_ok=True)
        (ROOT / name).write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
