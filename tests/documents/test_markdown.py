"""Markdown: front matter, fences, comments and embedded images."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from tunewright.documents.markup import ReadDocument
from tunewright.documents.readers import READERS

IMAGE = base64.b64encode(bytes(range(256)) * 4).decode()


def read(folder: Path, text: str, name: str = "a.md") -> ReadDocument:
    (folder / name).write_text(text, encoding="utf-8")
    (item,) = READERS[Path(name).suffix](folder / name)
    assert isinstance(item, ReadDocument), item
    return item


def test_toml_front_matter_is_metadata(tmp_path: Path) -> None:
    document = read(
        tmp_path, '+++\ntitle = "The pier"\ntags = ["a", "b"]\ndraft = false\n[x]\ny = 4.70\n+++\n\nWords.\n'
    )
    assert (document.title, document.text) == ("The pier", "Words.")
    assert document.metadata == {"tags": "a, b", "draft": "false", "x": "y: 4.7"}


def test_what_is_no_toml_is_text(tmp_path: Path) -> None:
    assert read(tmp_path, "+++\nnot toml\n+++\nWords.").text == "+++\nnot toml\n+++\nWords."


@pytest.mark.parametrize(
    "code",
    [
        "```sh\n# no heading\n```",
        "````md\n```sh\n# no heading\n```\n# nor this\n````",
        "~~~\n```\n# no heading\n~~~",
        "```\n# no heading\n``` not the end\n# nor this\n```",
        "```html\n<!-- a comment of the code -->\n```",
    ],
)
def test_code_is_kept_letter_for_letter(tmp_path: Path, code: str) -> None:
    document = read(tmp_path, f"# Title\n\nBefore.\n\n{code}\n\n## Part\n\nAfter. <!-- gone -->End.\n")
    assert document.text == f"Title\n\nBefore.\n\n{code}\n\nPart\n\nAfter. End."
    assert [section.path for section in document.sections] == [(), ("Part",)]


def test_inline_code_with_three_ticks_opens_no_fence(tmp_path: Path) -> None:
    assert [s.path for s in read(tmp_path, "``` x ``` is code\n\n# One\n\nText.\n\n## Two\n\nText.").sections][-1] == (
        "Two",
    )


@pytest.mark.parametrize("name", ["a.md", "a.txt"])
@pytest.mark.parametrize(
    "image", [f"![the pier](data:image/png;base64,{IMAGE})", f"<img src='data:image/png;base64,{IMAGE}'>", IMAGE]
)
def test_images_in_base64_are_left_out_and_counted(tmp_path: Path, name: str, image: str) -> None:
    document = read(tmp_path, f"Before.\n\n{image}\n\nAfter.", name)
    assert IMAGE[40:80] not in document.text and "base64" not in document.text
    assert document.text.startswith("Before.") and document.text.endswith("After.")
    assert document.left_out[0].reason == "embedded data"


def test_long_words_are_no_images(tmp_path: Path) -> None:
    words = f"{'ACGT' * 200} {'a' * 500} {'0123456789abcdef' * 40}"
    document = read(tmp_path, words)
    assert document.text == words
    assert not document.left_out


def test_escapes_and_tags_are_what_they_show(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text(
        "1986\\. A year of \\$5 and a\\_b, \\# no heading, `a\\_b <b>`, $x\\_1 = 5$ and \\(y\\_2\\).\n\n\\# Nor this.\n\n"
        "Bold <b>4</b>, <s>20</s> 15<br>next, a < b > c, \\<i>.\n\n<table>\n<tr><td rowspan=2>North</td><td>14</td></tr>\n"
        "<tr><td>15</td></tr></table>\n\n    indented \\_ &lt;"
    )
    (document,) = READERS[".md"](path)
    assert isinstance(document, ReadDocument)
    assert document.text == (
        "1986. A year of $5 and a_b, # no heading, `a\\_b <b>`, $x\\_1 = 5$ and \\(y\\_2\\).\n\n# Nor this.\n\n"
        "Bold 4, ~~20~~ 15\nnext, a < b > c, <i>.\n\nNorth | 14\n\nNorth | 15\n\n    indented \\_ &lt;"
    )


def test_entities_are_characters_outside_of_code(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text(
        "At p &lt; 0.05 &amp; n&nbsp;= 4, `&lt;b&gt;`.\n\n```\n&lt;i&gt; 10<sup>6</sup>\n```\n\nEnd &gt; 3."
    )
    (document,) = READERS[".md"](path)
    assert isinstance(document, ReadDocument)
    assert document.text == ("At p < 0.05 & n\xa0= 4, `&lt;b&gt;`.\n\n```\n&lt;i&gt; 10<sup>6</sup>\n```\n\nEnd > 3.")
