"""Web pages: what frames a page is left out by its role, encodings as declared, formulas and cells as written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunewright.documents import web
from tunewright.documents.markup import ReadDocument
from tunewright.documents.readers import READERS
from tunewright.documents.sandbox import read_files


def read(folder: Path, page: str | bytes) -> ReadDocument:
    path = folder / "a.html"
    path.write_bytes(page if isinstance(page, bytes) else page.encode())
    (item,) = READERS[".html"](path)
    assert isinstance(item, ReadDocument), item
    return item


FRAMES = {
    "<nav>Frame</nav>": "navigation",
    "<ul role='navigation'><li>Frame</ul>": "navigation",
    "<div class='site-nav'>Frame</div>": "navigation",
    "<div id='breadcrumbs'>Frame</div>": "navigation",
    "<form role='search'>Frame</form>": "navigation",
    "<footer>Frame</footer>": "footer",
    "<div role='contentinfo'>Frame</div>": "footer",
    "<div role='banner'>Frame</div>": "banner",
    "<div id='cookie-banner'>Frame</div>": "cookie notice",
    "<section class='x gdpr_consent'>Frame</section>": "cookie notice",
    "<div class='CookieConsent'><div class='menu'>Frame</div></div>": "cookie notice",
}
CONTENT = [
    "<article><footer>Content</footer></article>",
    "<header><h1>Content</h1></header>",
    "<div role='banner'><h1>Content</h1></div>",
    "<p class='menu'>Content</p>",
    "<div class='cookie-recipe'>Content</div>",
    "<aside>Content</aside>",
    "<main class='navigation-of-ships'>Content</main>",
]
PROSE = "<p>The pier of Elm is 40 m long, and it carries ships of up to 4.70 t on every day of the year.</p>"


@pytest.mark.parametrize("frame", FRAMES)
def test_what_frames_a_page_is_left_out_and_counted(tmp_path: Path, frame: str) -> None:
    document = read(tmp_path, f"<html><body>{frame}{PROSE}</body></html>")
    assert document.text == PROSE[3:-4]
    assert [(part.part, part.reason, part.detail) for part in document.left_out] == [
        (FRAMES[frame], "boilerplate", "Frame")
    ]


@pytest.mark.parametrize("content", CONTENT)
def test_content_of_such_names_is_read(tmp_path: Path, content: str) -> None:
    document = read(tmp_path, f"<html><body>{content}{PROSE}</body></html>")
    assert document.text == f"Content\n\n{PROSE[3:-4]}"
    assert not document.left_out


def test_a_page_that_is_all_footer_keeps_its_text(tmp_path: Path) -> None:
    assert read(tmp_path, f"<div id='cookie-notice'>{PROSE}</div>").text == PROSE[3:-4]


@pytest.mark.parametrize(
    "head",
    [
        "<meta charset='{}'>",
        "<meta http-equiv='Content-Type' content='text/html; charset={}'>",
        "<?xml version='1.0' encoding='{}'?>",
    ],
)
def test_a_declared_encoding_is_used(tmp_path: Path, head: str) -> None:
    document = read(tmp_path, f"{head.format('koi8-r')}<p>Маяк".encode("koi8-r"))
    assert (document.text, document.metadata, document.doubts) == ("Маяк", {"encoding": "koi8-r"}, ())


def test_a_wrong_declaration_is_not_believed(tmp_path: Path) -> None:
    assert read(tmp_path, "<meta charset='koi8-r'><p>Маяк".encode()).text == "Маяк"
    assert read(
        tmp_path, "<meta charset='nonsense'><p>Портовый сбор триста крон в день.".encode("cp1251")
    ).text.startswith("Порт")


def test_formulas_are_read(tmp_path: Path) -> None:
    page = (
        "<p>A <math alttext='x^2'><mi>x</mi></math> b <math><mi>y</mi><annotation encoding='application/x-tex'>y_1</annotation>"
        "</math> c <math><mi>z</mi></math> <script type='math/tex'>w</script> <img class='mathtex' alt='v'> <img alt='no'></p>"
    )
    assert read(tmp_path, page).text == "A x^2 b y_1 c z w v"


def test_cells_without_end_tags_are_not_glued(tmp_path: Path) -> None:
    assert read(tmp_path, "<table><tr><td>Brig<td>4.70<tr><td>Yawl<td>55</table>").text == "Brig | 4.70\n\nYawl | 55"


def test_each_element_is_seen_once_however_deep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    frame = web._frame
    monkeypatch.setattr(web, "_frame", lambda tag, is_of_page: seen.append(tag) or frame(tag, is_of_page))
    assert read(tmp_path, "<div>" * 500 + PROSE + "<footer>Frame").text.endswith(PROSE[3:-4])
    assert len(seen) < 600


@pytest.mark.parametrize("part", ["<table><tr><td rowspan=2>", "<select>", "<sup>", "<p><sup>2</sup>"])
def test_nested_markup_takes_linear_time(tmp_path: Path, part: str) -> None:
    path = tmp_path / "a.html"
    path.write_text(part * 8_000 + "The end.")  # in quadratic time, minutes
    ((_, reading),) = read_files([path], timeout_s=20)
    assert not reading.failures or reading.failures[0].reason != "timed out"


def test_a_cell_over_several_rows_is_in_each(tmp_path: Path) -> None:
    page = (
        "<table><tr><th rowspan=2>Harbor<th colspan=2>Tons</tr><tr><th>in</th><th>out</th></tr>"
        "<tr><td rowspan=9>Malmby</td><td>4,310</td><td>2,950</td></tr><tr><td>5,120</td><td rowspan=2>3,275</td></tr>"
        "<tr><td>75</td></tr></table>"
    ).replace("<th colspan", "</th><th colspan")
    text = read(tmp_path, page.replace("Tons</tr>", "Tons</th></tr>")).text
    rows = [
        "Harbor | Tons",
        "Harbor | in | out",
        "Malmby | 4,310 | 2,950",
        "Malmby | 5,120 | 3,275",
        "Malmby | 75 | 3,275",
    ]
    assert text.split("\n\n") == rows


def test_a_cell_over_several_rows_and_columns_leaves_the_others_in_order(tmp_path: Path) -> None:
    page = (
        "<table><tr><td rowspan=2 colspan=2>Malmby</td><td rowspan=2>2025</td><td>4,310</td></tr>"
        "<tr><td>5,120</td></tr></table>"
    )
    assert read(tmp_path, page).text.split("\n\n") == ["Malmby | 2025 | 4,310", "Malmby | 2025 | 5,120"]


def test_fields_of_a_form_show_their_values(tmp_path: Path) -> None:
    page = (
        "<p>Amount <input value='4,750.20'> paid <input type=checkbox checked> in <select><option>May<option selected>June"
        "</select> by <textarea>Ada Olsen</textarea><input type=hidden value=777><input type=password value=pw>"
        "<meter value=6>6 of 10</meter><video>No video 5</video>.</p>"
    )
    assert read(tmp_path, page).text == "Amount 4,750.20 paid ☑ in June by Ada Olsen ."


def test_sidebars_are_left_out_and_counted(tmp_path: Path) -> None:
    frames = "".join(
        f"<div class='{name}'>Other {n}</div>" for n, name in enumerate(("sidebar", "share-buttons", "related-posts"))
    )
    document = read(
        tmp_path, f"<main><p>The toll is 75 crowns.</p></main>{frames}<div class='shares'>12 shares of the pier.</div>"
    )
    assert document.text == "The toll is 75 crowns.\n\n12 shares of the pier."
    assert [(part.part, part.detail) for part in document.left_out] == [("sidebar", "Other 0 / Other 1 / Other 2")]
