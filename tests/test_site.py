"""The documentation as a site: every page is in its contents, it builds strictly, and it fetches nothing when it is read."""

from __future__ import annotations

import re
import subprocess
import sys
from urllib.parse import unquote, urldefrag

import pytest

from support import ROOT

FETCHED = re.compile(r"""(?:src|href)\s*=\s*["'](https?:)?//|url\(\s*["']?(https?:)?//|@import\s+["'](https?:)?//""")


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
    assert sum(len(links(page)) for page in pages) > 1000
    assert [(page.name, link) for page in pages for link in links(page) if not leads_somewhere(page, link)] == []


def links(page):
    """Return the addresses of a page that name no other host."""
    found = re.findall(r'(?:href|src|srcset)="([^"]+)"', page.read_text(encoding="utf-8"))
    return [link for link in found if not re.match(r"[a-z]+:|/", link)]


def leads_somewhere(page, link):
    """Return whether a link leads to a file of the site, and to a part of it where it names one."""
    path, part = urldefrag(link)
    target = page.parent / unquote(path) if path else page
    target = target / "index.html" if target.is_dir() else target
    if part and target.suffix == ".html":
        return target.is_file() and f'id="{unquote(part)}"' in target.read_text(encoding="utf-8")
    return target.is_file()
