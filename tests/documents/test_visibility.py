import time

import pytest

from tunewright.documents.visibility import color_of
from tunewright.documents.web import read_page

# Where a style sheet does it too.
UNSEEN = [
    "height:0.5px;overflow:hidden",
    "opacity:1e-9",
    "clip-path:circle(0)",
    "clip-path:circle(0px at 50% 50%)",
    "clip-path:polygon(0 0,0 0,0 0)",
    "clip-path:polygon(0px 0px, 0px 0px)",
    "clip-path:inset(50%)",
    "clip-path:inset(100% 0 0 0)",
    "clip-path:inset(0 100% 0 0)",
    "clip-path:ellipse(0 0)",
    "-webkit-clip-path:inset(100%)",
    "clip:rect(0,0,0,0);position:absolute",
    "clip:rect(0 0 0 0)",
    "clip:rect(1px,1px,1px,1px)",
    "opacity:.01",
    "opacity:5%",
    "filter:opacity(0)",
    "filter:opacity(0%)",
    "filter:opacity(1%)",
    "mask:linear-gradient(transparent,transparent)",
    "mask-image:linear-gradient(transparent,transparent)",
    "color:#fffffe",
    "color:#fefefe",
    "color:#fdfdfd",
    "color:#FAFAFA",
    "color:rgb(250,250,250)",
    "color:rgb(255 255 255)",
    "color:rgb(255 255 255 / 100%)",
    "color:rgb(100%,100%,100%)",
    "color:hsl(0,0%,100%)",
    "color:hsl(0 0% 99%)",
    "color:snow",
    "color:ivory",
    "color:ghostwhite",
    "color:whitesmoke",
    "color:floralwhite",
    "color:#ffff",
    "color:transparent",
    "color:#0000",
    "color:#00000000",
    "color:#00000001",
    "color:rgb(0 0 0 / 0)",
    "color:rgb(0 0 0 / 0%)",
    "color:rgba(0,0,0,0.01)",
    "color:hsla(0,0%,0%,0)",
    "color:oklch(100% 0 0)",
    "color:color(srgb 1 1 1)",
    "-webkit-text-fill-color:transparent",
    "-webkit-text-fill-color:white",
    "background:#000;color:#000",
    "background:#000;color:#010101",
    "background:black;color:#000",
    "background-color:#123456;color:#123456",
    "background-color:#123456;color:#133457",
    "background:rgb(0,0,0);color:black",
    "color:canvas",
    "font-size:0",
    "font-size:0px",
    "font-size:1px",
    "font-size:1pt",
    "font-size:.01em",
    "font-size:0.01rem",
    "font-size:0.1vw",
    "font-size:1%",
    "font-size:calc(0px)",
    "font-size:calc(1px * 0)",
    "font-size:min(0px,1em)",
    "font-size:1e-5px",
    "font-size:0.1mm",
    "font:0/0 a",
    "font:1px arial",
    "font:italic 0 serif",
    "font: 0px/1 a",
    "zoom:0",
    "zoom:0.01",
    "zoom:1%",
    "transform:scale(0)",
    "transform:scale(0,0)",
    "transform:scale(0.001)",
    "transform:scaleX(0)",
    "transform:scaleY(0)",
    "transform:scale3d(0,0,0)",
    "scale:0",
    "scale:0.01",
    "transform:matrix(0,0,0,0,0,0)",
    "transform:rotateY(90deg)",
    "transform:translateX(-9999px)",
    "transform:translate(-9999px,0)",
    "transform:translate(0,-9999px)",
    "transform:translate3d(-9999px,0,0)",
    "transform:translateX(-200vw)",
    "transform:translateX(9999px)",
    "translate:-9999px",
    "translate:-9999px 0",
    "text-indent:-9999px",
    "text-indent:-999em",
    "text-indent:9999px",
    "text-indent:100%;white-space:nowrap;overflow:hidden",
    "text-indent:-200%",
    "letter-spacing:-100em",
    "letter-spacing:-1000px",
    "position:absolute;left:-9999px",
    "position:absolute;left:-99em",
    "position:absolute;left:-100vw",
    "position:absolute;left:-200%",
    "position:absolute;left:-1e4px",
    "position:absolute;left:99999px",
    "position:absolute;left:calc(-9999px)",
    "position:absolute;right:-9999px",
    "position:fixed;top:-100vh",
    "position:fixed;bottom:-5000px",
    "position:absolute;inset:-9999px auto auto -9999px",
    "position:absolute;inset-inline-start:-9999px",
    "margin-left:-9999px",
    "margin:-9999px",
    "margin:0 0 0 -9999px",
    "margin-top:-999em",
    "position:relative;left:-9999px",
    "width:0;overflow:hidden",
    "max-width:0;overflow:hidden",
    "height:1px;width:1px;overflow:hidden",
    "position:absolute;clip:rect(0 0 0 0);width:1px",
]
# What a style sheet may do until a reader opens it.
CLOSED = [
    "opacity:0",
    "opacity:0.0",
    "opacity:0%",
    "height:0;overflow:hidden",
    "height:0;overflow:clip",
    "height:0;overflow-y:hidden",
    "max-height:0;overflow:hidden",
    "height:0px;overflow:hidden",
    "height:0em;overflow:hidden",
    "height:0%;overflow:hidden",
    "block-size:0;overflow:hidden",
    "line-height:0;overflow:hidden;height:0",
    "overflow:scroll;height:0",
    "overflow:auto;max-height:0",
    "visibility:hidden",
    "visibility:collapse",
    "visibility : hidden !important",
    "content-visibility:hidden",
    "display:none",
    "display:none!important",
    "DISPLAY:NONE",
    "display:/*x*/none",
    "dis\\70lay:none",
    "d\\69splay:none",
    "display:n\\6fne",
    "--x:none;display:var(--x)",
]
SEEN = [
    "color:#ddd",
    "color:lightgray",
    "color:#333",
    "color:white;background:#c00",
    "color:#fff;background-image:linear-gradient(90deg,#111,#333)",
    "color:#fff;background:url(a.png)",
    "color:#fff;background:linear-gradient(to right, rgb(0,0,0), #fff)",
    "font:14px/1.5 Arial",
    "font:bold 1em serif",
    "font:700 12pt x",
    "font: inherit",
    "opacity:.5",
    "opacity:1",
    "transform:translate(-50%,-50%)",
    "transform:translateX(-100%)",
    "transform:rotate(90deg)",
    "transform:scale(1.2)",
    "transform:scale(-1,1)",
    "transform:none",
    "scale:1",
    "zoom:1",
    "zoom:150%",
    "margin:0 auto",
    "margin:-10px 0 0 -20px",
    "left:0",
    "left:100%",
    "top:50%",
    "text-indent:2em",
    "letter-spacing:-0.05em",
    "letter-spacing:.1em",
    "overflow:hidden",
    "overflow:auto;max-height:400px",
    "overflow:hidden;width:100%",
    "overflow:visible;height:0",
    "clip-path:circle(50%)",
    "clip-path:inset(10px)",
    "clip-path:inset(10% 20%)",
    "clip-path:polygon(0 0,100% 0,100% 100%,0 100%)",
    "clip-path:none",
    "clip:auto",
    "clip:rect(0,200px,100px,0)",
    "filter:blur(2px)",
    "filter:grayscale(100%)",
    "filter:opacity(50%)",
    "mask:none",
    "mask-image:linear-gradient(black,transparent)",
    "display:flex",
    "display:inline-block",
    "visibility:visible",
    "color:inherit",
    "color:currentColor",
    "color:var(--fg)",
    "color:rgb(0 0 0 / 80%)",
    "color:hsl(210,50%,30%)",
    "color:hsl(210deg 50% 30%)",
    "color:oklch(40% 0.1 200)",
    "color:rebeccapurple",
    "color:darkslategray",
    "color:#f00;background:#0a0",
    "color:#ff0;background:#00f",
    "font-size:12px",
    "font-size:80%",
    "font-size:calc(1em + 2px)",
    "font-size:clamp(1rem, 2vw, 3rem)",
    "font-size:min(5vw,2rem)",
    "font-size:5vw",
    "font-size:smaller",
    "font-size:var(--x)",
    "line-height:0",
    "width:1px",
    "height:1px",
    "z-index:5",
    "content-visibility:auto",
    "inset:0",
    "translate:10px",
]


def text(body, sheet=""):
    return read_page(f"<style>{sheet}</style><p>First.</p>{body}<p>Last.</p>", "name").text


@pytest.mark.parametrize("style", UNSEEN)
def test_text_without_size_ink_or_room_is_not_read(style):
    assert text(f"<div style='{style}'><p>secret</p></div>") == "First.\n\nLast."
    assert text("<p class=x>secret</p>", f".x {{{style}}}") == "First.\n\nLast."


@pytest.mark.parametrize("style", CLOSED)
def test_what_an_element_itself_closes_is_not_read(style):
    assert text(f"<div style='{style}'><p>secret</p></div>") == "First.\n\nLast."
    assert "secret" in text("<p class=x>secret</p>", f".x {{{style}}}")


@pytest.mark.parametrize("style", SEEN)
def test_what_is_seen_is_read(style):
    assert "shown" in text(f"<div style='{style}'>shown</div>")
    assert "shown" in text("<p class=x>shown</p>", f".x {{{style}}}")


@pytest.mark.parametrize(
    "selector",
    [
        ".a .x",
        "div.a>p",
        "[data-x]",
        "p[data-x='1']",
        "p:nth-child(1)",
        "h1, .x , .r",
        "*.x",
        "p.x.y",
        "P#i.x",
        "p.x:not(.z)",
        ":is(.x,.z)",
        ".\\78",
        "b+p, .a > .x",
    ],
)
def test_every_kind_of_selector(selector):
    body = "<div class=a><p class='x y' id=i data-x=1>secret</p></div>"
    assert text(body, f"{selector} {{font-size:0}}") == "First.\n\nLast."


@pytest.mark.parametrize(
    "sheet",
    [
        "@media screen{.x{font-size:0}}",
        "@supports (color:red){.x{font-size:0}}",
        "@charset 'utf-8';.x{/*a*/font-size/*b*/:0}",
        "<!-- .x{font-size:0} -->",
        ".a{color:red;& .x{font-size:0}}",
        ":root{--c:white}.x{color:var(--c)}",
        "body{background:#000}.x{color:#010101}",
        ".x{color:#123}.a{background:#112234}",
        ".b::before{content:'}'}.b::after{content:'/*'}.x{font-size:0}.c{content:'*/'}",
        f".x{{{'--c:1;' * 500}font-size:0}}",
        "@scope (body){.x{font-size:0}}",
        ".x{font-size:0",
    ],
)
def test_every_form_of_style_sheet(sheet):
    body = "<body><div class=a><p class=x>secret</p></div></body>"
    assert text(body, sheet) == "First.\n\nLast."


@pytest.mark.parametrize(
    ("sheet", "body"),
    [
        ("body{background:#111;color:#eee}.x{color:#fff}", "<body><p class=x>shown</p></body>"),
        (".a{background:#000}.a h1{color:white}", "<div class=a><h1>shown</h1></div>"),
        (".a{background-image:url(x.jpg)}.x{color:#fff}", "<div class=a><p class=x>shown</p></div>"),
        (":root{--bg:#000}.a{background:var(--bg)}.x{color:white}", "<div class=a><p class=x>shown</p></div>"),
        ("", "<table bgcolor=navy><tr><td><font color=white>shown</font></td></tr></table>"),
        (".x:hover{opacity:.05}.x::before{font-size:0}", "<p class=x>shown</p>"),
        (".x{font-size:0}.x{font-size:14px}", "<p class=x>shown</p>"),
        (".x{color:white}", "<p class=x style='color:#000'>shown</p>"),
        ("span{font-size:0}div>p{font-size:0}#z{font-size:0}", "<section><p id=y>shown</p></section>"),
    ],
)
def test_rules_of_other_elements_and_dark_grounds_hide_nothing(sheet, body):
    assert "shown" in text(body, sheet)


@pytest.mark.parametrize(
    "body",
    [
        "<datalist><option>secret</datalist>",
        "<noembed>secret</noembed>",
        "<noframes>secret</noframes>",
        "<![CDATA[ secret ]]>",
        "<math><mi>x</mi><annotation encoding='text/plain'>secret</annotation></math>",
        "<math><mi>x</mi><mphantom><mtext>secret</mtext></mphantom></math>",
        "<font color='#fffffe'>secret</font>",
        "<table bgcolor=black><tr><td><font color='#010101'>secret</font></td></tr></table>",
    ],
)
def test_elements_that_show_nothing(body):
    assert "secret" not in text(body)


def test_a_section_of_xml_is_text():
    assert "shown" in read_page("<?xml version='1.0'?><html><body><p><![CDATA[shown]]></p></body></html>", "name").text


@pytest.mark.parametrize(
    "page",
    [
        "<div style='color:#fff;background:'>" * 10_000 + "x",
        "<style>" + ".a .b{color:red}" * 20_000 + "</style>" + "<p class=b>x</p>" * 2000,
        "<style>" + "p{a:b}" * 20_000 + "</style>" + "<p>x</p>" * 5000,
        "<style>.a .b .c{color:red}</style>" + "<div class='a b c'>" * 5000 + "x",
    ],
    ids=["deep", "many rules", "one name", "deep rules"],
)
def test_no_page_takes_long(page):
    began = time.process_time()
    read_page(page, "name")
    assert time.process_time() - began < 20


def test_colors():
    assert color_of("#fff") == color_of("rgb(100%,100%,100%)") == color_of("hsl(0 0% 100%)") == (255, 255, 255, 1)
    assert color_of("rgb(1 2 3 / 50%)") == (1, 2, 3, 0.5)
    assert color_of("inherit") is color_of("rgb(1,2)") is color_of("#12345") is None
