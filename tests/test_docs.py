"""Generated documentation is fresh, links lead somewhere, and the limits that can be counted hold."""

import re

import pytest
import yaml

import tunewright
from support import ROOT
from support.documentation import generator
from support.page_commands import blocks, pages

SOURCES = sorted((ROOT / "src").rglob("*.py"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


FRESH = [
    "docs/performance.md",
    "docs/files.md",
    "docs/recipe.md",
    "docs/commands.md",
    "docs/errors.md",
    "docs/scale.md",
]


@pytest.mark.parametrize("name", [*FRESH, *(name for name in generator().PAGES if name.startswith("docs/json/"))])
def test_generated_pages_are_fresh(name):
    assert (ROOT / name).read_text(encoding="utf-8") == generator().PAGES[name](), "run: make docs"


def test_the_tree_names_every_file_with_its_docstring():
    tree = (ROOT / "docs/files.md").read_text(encoding="utf-8")
    for path in SOURCES:
        line = generator().first_line(path)
        assert line, path
        assert path.name == "__init__.py" or f"{path.name}" in tree
    assert generator().first_line(ROOT / "src/tunewright/training/loop.py") in tree


def test_the_page_of_errors_names_cause_and_cure():
    page = (ROOT / "docs/errors.md").read_text(encoding="utf-8")
    for kind in ("recipe", "documents", "model", "hub", "run-folder", "teacher", "training", "export", "disk-full"):
        assert f"\n## {kind}\n" in page
    assert "| cannot reach the teacher at … | …, … times | start the server or correct teacher.url; …" in page
    assert page.count("\n| ") > 200


def anchors(page):
    """Return the anchors of a page's headings, as GitHub and most renderers form them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_links_lead_somewhere():
    for page in PAGES:
        for target, anchor in re.findall(r"\]\((?!http)([^)#]*)(?:#([^)]+))?\)", page.read_text(encoding="utf-8")):
            linked = page.parent / target if target else page
            assert linked.exists(), f"{page}: {target}"
            assert not anchor or anchor in anchors(linked), f"{page}: {target}#{anchor}"


def test_paths_named_on_pages_exist():
    name = re.compile(r"`((?:tests|benchmarks|src|recipes|docs)/[\w./-]+)`")
    for page in PAGES:
        if page.parent.name != "adr":  # the records keep the names of their time
            for path in name.findall(page.read_text(encoding="utf-8")):
                assert (ROOT / path).exists(), f"{page}: {path}"


def test_commands_and_settings_named_on_pages_exist():
    from tunewright.cli import commands
    from tunewright.recipe import sections

    settings = {f"{name}.{key}" for name, kind in sections() for key in kind.model_fields}
    named = re.compile(rf"`(?:--set ')?((?:{'|'.join(name for name, _ in sections())})\.(?!jsonl?\b|toml\b)[a-z_]+)\b")
    others = {"docs/coming-from.md", "docs/performance.md"}  # they name settings and functions of other tools
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if page.parent.name == "adr":
            continue
        for line in re.findall(r"^ {4}tunewright (.+)$|`tunewright ([^`]+)`", text, re.MULTILINE):
            name, *words = "".join(line).partition("#")[0].split()
            if name == "COMMAND":
                continue
            assert name in commands.commands, f"{page}: {name}"
            options = {flag for option in commands.commands[name].params for flag in option.opts}
            assert {word for word in words if word.startswith("--")} <= options, f"{page}: {line}"
        if str(page.relative_to(ROOT)) not in others:
            assert set(named.findall(text)) <= settings, page


def test_the_readme_and_the_glossary_stay_short():
    assert (ROOT / "README.md").read_text(encoding="utf-8").count("\n") <= 120
    terms = re.findall(r"^\| \*\*(.+?)\*\*", (ROOT / "docs/glossary.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert 0 < len(terms) <= 30
    assert terms == sorted(terms, key=str.lower)


def test_public_names_exist_and_are_sorted():
    assert tunewright.__all__ == sorted(tunewright.__all__)
    assert all(getattr(tunewright, name) for name in tunewright.__all__)


def test_version_is_the_changelogs():
    assert f"## {tunewright.__version__}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_tests_of_the_page_on_reliability_exist():
    page = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page)
    cases = page.split("\n## Twenty-five attacks")[0]  # the rows below it are counted by the next test
    assert len(re.findall(r"`tests/", cases)) >= cases.count("\n| ") - 2 * cases.count("\n|---")
    for path, test in named:
        assert f"def {test}(" in (ROOT / path).read_text(encoding="utf-8"), f"{path}::{test}"


@pytest.mark.parametrize(("title", "count"), [("Twenty-five attacks", 25), ("Thirty-six checks", 36)])
def test_each_attack_and_check_names_what_shows_it(title, count):
    page = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    section = page.split(f"\n## {title}\n")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if re.match(r"\| \d", line)]
    assert [int(row[0]) for row in rows] == list(range(1, count + 1))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for number, case, shown, more in rows:
        assert case and more, number
        tests = re.findall(r"`tests/[\w/]+\.py::\w+`", shown)
        scripts = re.findall(r"`python (benchmarks/\w+\.py)", shown)
        made = re.findall(r"`make ([a-z-]+)`", shown)
        assert tests or scripts or made or (shown == "not shown" and len(more) > 20), number
        assert all((ROOT / script).exists() for script in scripts), number
        assert set(made) <= targets, number


def test_no_test_of_the_page_on_reliability_is_always_skipped():
    page = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    skipped = re.compile(r"@pytest\.mark\.(?:skip|xfail)\b(?!if)[^\n]*\n(?:@[^\n]+\n)*(?:async )?def (test_\w+)")
    for path, test in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page):
        assert test not in skipped.findall((ROOT / path).read_text(encoding="utf-8")), f"{path}::{test}"


def test_every_command_of_every_page_is_run_or_marked():
    every = [block for page in pages() for block in blocks(page)]
    unmarked = [f"{block.page.relative_to(ROOT)}: {block.lines[0]}" for block in every if not block.mark]
    assert unmarked == []
    for block in every:
        if block.mark == "not run":
            assert len(block.why) > 10, f"{block.page}: say why {block.lines[0]} is not run"
        if block.mark == "run by":
            path, _, test = block.why.partition("::")
            assert f"def {test}(" in (ROOT / path).read_text(encoding="utf-8"), f"{block.page}: {block.why}"


def listed(nav):
    """Return every page of a table of contents."""
    if isinstance(nav, str):
        return [nav]
    return [page for inner in (nav.values() if isinstance(nav, dict) else nav) for page in listed(inner)]


def test_every_page_is_in_the_contents_once():
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    named = listed(site["nav"])
    assert sorted(named) == sorted(page for page in pages if not page.startswith("adr/"))
    assert site["strict"] is True
    assert site["theme"]["font"] is False
