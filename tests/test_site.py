"""The documentation as a site: every page is in its contents, it builds strictly, and it fetches nothing when it is read."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import yaml

from support import ROOT

SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
FETCHED = re.compile(r"""(?:src|href)\s*=\s*["'](https?:)?//|url\(\s*["']?(https?:)?//|@import\s+["'](https?:)?//""")


def listed(nav):
    """Return every page of a table of contents."""
    if isinstance(nav, str):
        return [nav]
    return [page for inner in (nav.values() if isinstance(nav, dict) else nav) for page in listed(inner)]


def test_every_page_is_in_the_contents_once():
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    named = listed(SITE["nav"])
    assert sorted(named) == sorted(page for page in pages if not page.startswith("adr/"))
    assert SITE["strict"] is True
    assert SITE["theme"]["font"] is False


@pytest.mark.slow  # tests/test_docs.py follows the links of the pages themselves
def test_the_site_builds_strictly_and_fetches_nothing_when_it_is_read(tmp_path):
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path]
    result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for tag in re.findall(r"<(?:script|link|img|iframe|source|video)\b[^>]*>", text):
            assert 'rel="canonical"' in tag or not FETCHED.search(tag), f"{page.name}: {tag}"
    for style in tmp_path.rglob("*.css"):
        assert not FETCHED.search(style.read_text(encoding="utf-8")), style
    assert (tmp_path / "repository" / "recipes" / "t4_7b.toml.txt").is_file()  # linked files are in the site
