"""The site's own step: files of the repository that pages link to are copied into it, so that no link leaves it."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
_LINK = re.compile(r"\[([^\[\]]*)\]\((?!https?://|mailto:|#)([^)\s#]+)(?:#[^)\s]*)?\)")
_COPIES = "repository"


def _outside(page: str, target: str) -> str:
    """Return the path of a link's target from the root of the repository, if it is no file of docs/; else ""."""
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), target))
    return path if not path.startswith("docs/") and not path.startswith("..") else ""


def on_files(files: Files, config: Any) -> Files:
    """Add the linked files of the repository."""
    linked = set()
    for file in files.documentation_pages():
        text = Path(file.abs_src_path or "").read_text(encoding="utf-8")
        linked |= {_outside(file.src_uri, match[2]) for match in _LINK.finditer(text)}
    for path in sorted(linked):
        if path and (ROOT / path).is_file():
            files.append(File.generated(config, f"{_COPIES}/{_name(path)}", content=(ROOT / path).read_bytes()))
    return files


def _name(path: str) -> str:
    """Return a name under which a browser shows the file, and the site builder does not take it for a page."""
    return path + ".txt" if path.endswith((".md", ".toml")) else path


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point the links to the copies; a link to a folder becomes its text."""
    source = page.file.src_uri

    def replaced(match: re.Match[str]) -> str:
        path = _outside(source, match[2])
        if not path:
            return match[0]
        if not (ROOT / path).is_file():
            return match[1]
        up = posixpath.relpath(f"{_COPIES}/{_name(path)}", posixpath.dirname(source) or ".")
        return f"[{match[1]}]({up})"

    return _LINK.sub(replaced, markdown)
