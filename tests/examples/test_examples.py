import hashlib
import json
import re
import tomllib
from pathlib import Path

from support import ROOT
from tunewright.examples import abstracts_folder


def _front_matter(path: Path) -> dict[str, str]:
    head = path.read_text(encoding="utf-8").split("---")[1]
    pairs = dict(re.findall(r"^(\w+): (.+)$", head, re.MULTILINE))
    return {key: json.loads(value) if value.startswith('"') else value for key, value in pairs.items()}


def test_every_abstract_is_attributed_and_no_other():
    attribution = (abstracts_folder().parent / "ATTRIBUTION.md").read_text(encoding="utf-8")
    rows = {row.split("|")[1].strip(): row for row in attribution.splitlines() if ".md |" in row}
    files = sorted(abstracts_folder().glob("*.md"))
    assert len(files) == 24
    assert set(rows) == {path.name for path in files}
    for path in files:
        facts = _front_matter(path)
        assert facts["license"] == "CC BY 4.0"
        for key in ("title", "journal", "year", "doi"):
            assert facts[key] in rows[path.name], (path.name, key)
        assert f"https://doi.org/{facts['doi']}" in rows[path.name]
        assert "https://creativecommons.org/licenses/by/4.0/" in rows[path.name]


def test_every_abstract_has_sections_with_text():
    for path in abstracts_folder().glob("*.md"):
        _, *sections = re.split(r"^## .+$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert len(sections) >= 3 and all(len(section.split()) > 5 for section in sections), path.name


def test_the_examples_are_package_data():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["tunewright"]
    package = abstracts_folder().parents[1]
    packed = {path for pattern in patterns for path in package.glob(pattern)}
    assert set(abstracts_folder().glob("*.md")) | {package / "examples" / "ATTRIBUTION.md"} <= packed


def test_the_license_is_the_full_apache_text():
    # The digest of https://www.apache.org/licenses/LICENSE-2.0.txt
    expected = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == expected
