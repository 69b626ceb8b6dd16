"""The commands that pages of the documentation show, each with its mark: run here, run by a named test, or not run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from support import ROOT

PROGRAMS = (
    "tunewright", "python", "pip", "pipx", "uv", "uvx", "make", "git", "export", "source", "torchrun", "accelerate",
    "docker", "sky", "sbatch", "vllm", "llm", "ollama", "curl", "mkdocs", "hf",
)  # fmt: skip
GENERATED = {"commands.md", "errors.md", "recipe.md", "files.md", "performance.md"}
MARK = re.compile(r"<!-- (run by|not run|run)(?:: ?| )?(.*?) ?-->")


@dataclass(frozen=True)
class Block:
    """Commands that stand together on a page.

    Attributes:
        mark: "run", "run by", "not run", or "" without a mark.
        why: of "run by" the test, of "not run" the reason.
    """

    page: Path
    mark: str
    why: str
    lines: tuple[str, ...]

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command."""
        return [shlex.split(line, comments=True) for line in self.lines]


def pages() -> list[Path]:
    """Return the pages that people write."""
    written = [path for path in sorted((ROOT / "docs").rglob("*.md")) if path.parent.name != "adr"]
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(p for p in written if p.name not in GENERATED)]


def blocks(page: Path) -> Iterator[Block]:
    """Yield the blocks of indented code that hold a command; a mark holds for the block below it."""
    mark, why, lines, inside = "", "", list[str](), False
    for line in [*page.read_text(encoding="utf-8").splitlines(), "end"]:
        if line.startswith("    ") and (inside or not lines):
            inside = True
            lines.append(line.strip())
        elif line.strip():
            joined = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines)).splitlines()
            if commands := tuple(text for text in joined if text.split()[:1] and text.split()[0] in PROGRAMS):
                yield Block(page, mark, why, commands)
                mark, why = "", ""
            lines, inside = [], False
            if found := MARK.fullmatch(line.strip()):
                mark, why = found[1], found[2]
