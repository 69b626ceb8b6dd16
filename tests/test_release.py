"""What a user would download: the contents of wheel and sdist, their size, the version, and extras that errors name."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib

import pytest
import yaml

import tunewright
from support import ROOT
from support.documentation import module_at

SOURCE = ROOT / "src" / "tunewright"
check = module_at(ROOT / "release" / "check.py")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """The wheel and the sdist, built from a copy of what the build reads, so that nothing is left in the tree."""
    folder = tmp_path_factory.mktemp("build")
    for name in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    (folder / "tests").mkdir()
    (folder / "tests" / "test_me.py").write_text("")  # what setuptools would add by itself
    code = "from setuptools import build_meta as b; b.build_sdist('dist'); b.build_wheel('dist')"
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True)
    return folder / "dist"


def test_wheel_and_sdist_hold_the_package_and_nothing_else(archives):
    wheel, sdist = sorted(archives.iterdir(), key=lambda path: path.suffix, reverse=True)
    assert check.faults(wheel, SOURCE) == check.faults(sdist, SOURCE) == []
    tops = {name.split("/")[0] for name in check.names_in(wheel)}
    assert tops == {"tunewright", f"tunewright-{tunewright.__version__}.dist-info"}
    tops = {name.split("/")[0] for name in check.names_in(sdist)}
    assert tops == {"src", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in", "PKG-INFO", "setup.cfg"}


def test_faults_of_an_archive_are_named(archives, tmp_path):
    (tmp_path / "tunewright").mkdir()
    (tmp_path / "tunewright" / "forgotten.json").write_text("{}")
    wheel = next(archives.glob("*.whl"))
    assert check.faults(wheel, tmp_path / "tunewright") == [f"{wheel.name} lacks tunewright/forgotten.json"]


def test_every_extra_that_an_error_or_a_page_names_exists():
    pages = [*SOURCE.rglob("*.py"), *(ROOT / "docs").glob("*.md"), ROOT / "README.md"]
    named = {
        extra for page in pages for extra in re.findall(r"tunewright\[([a-z,]+)\]", page.read_text(encoding="utf-8"))
    }
    assert named >= {"benchmarks", "hub", "mcp"}
    assert named <= set(PROJECT["optional-dependencies"])


def test_the_installation_is_on_the_first_ten_lines_for_a_cpu_and_for_cuda():
    first = "\n".join((ROOT / "docs" / "install.md").read_text(encoding="utf-8").splitlines()[:10])
    for word in ("pip install tunewright", "download.pytorch.org/whl/cpu", "CUDA", "CPU"):
        assert word in first


def test_the_citation_the_changelog_and_the_package_have_one_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    first = re.search(r"^## (\S+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert first is not None
    assert citation["version"] == first[1] == tunewright.__version__
    assert citation["license"] == PROJECT["license"]


def test_templates_of_issues_are_forms_that_ask_for_something():
    forms = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    assert len(forms) == 4
    for path in forms:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if path.name != "config.yml":
            assert {"name", "description", "body"} <= set(content)
            assert any(field.get("validations", {}).get("required") for field in content["body"])


def test_commands_in_the_templates_exist():
    from tunewright.cli import commands

    pages = [*(ROOT / ".github").rglob("*.*"), ROOT / "SECURITY.md"]
    named = {word for page in pages for word in re.findall(r"`tunewright ([a-z-]+)", page.read_text(encoding="utf-8"))}
    assert named and named - {"--version"} <= set(commands.commands)


def test_the_lock_has_every_pin_with_its_hash_but_torch():
    pins = re.compile(r"^([\w.-]+)==(\S+)", re.MULTILINE)
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    names = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins.findall(text)}
    lines = (ROOT / "constraints.lock").read_text(encoding="utf-8").splitlines()[1:]
    locked = [re.fullmatch(r"([a-z0-9-]+)==(\S+) --hash=sha256:[0-9a-f]{64}", line) for line in lines]
    assert all(locked), "run: make lock"
    assert {match[1]: match[2] for match in locked} | {"torch": names["torch"]} == names, "run: make lock"
