"""What is printed of foreign texts: symbols in place of control characters, in a terminal and elsewhere."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from support.serving_process import ENVIRONMENT
from tunewright import console
from tunewright.errors import UserError

CONTROLS = [chr(code) for code in (*range(32), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))]
FOREIGN = "a" + "".join(c for c in CONTROLS if c not in "\n\t") + "z"

EVERY_WAY = """
from tunewright import console
from tunewright.errors import UserError
import sys
text = sys.argv[1]
console.line(text); console.heading(text); console.warning(text)
console.error(UserError(text, text, text)); console.confirm(text)
console.segments([(text, "bold"), (text, "")]); console.table(text, (text, text), [(text, text)])
with console.progress(text, 3) as bar:
    bar.advance(1, text); bar.note(text); bar.advance(2)
with console.Columns((text, "b")) as columns:
    columns.add(text, text)
console.data(text); console.stream(text)
"""


def in_terminal(program: str, *arguments: str) -> str:
    """Return what a program sends to its terminal."""
    controller, terminal = pty.openpty()
    environment = {**ENVIRONMENT, "TERM": "xterm-256color", "COLUMNS": "400", "LINES": "100"}
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal,
        env=environment,
    )
    os.close(terminal)
    sent = b""
    while True:
        try:
            piece = os.read(controller, 65536)
        except OSError:  # the program has ended
            break
        if not piece:
            break
        sent += piece
    os.close(controller)
    assert process.wait() == 0, sent
    return sent.decode()


def test_no_control_character_reaches_the_terminal() -> None:
    # Arguments hold no zero byte; rich's own control sequences are those that a harmless text gets too.
    sent = in_terminal(EVERY_WAY, FOREIGN.replace("\0", ""))
    assert sent.count("␛") >= 12
    for character in CONTROLS:
        if character not in "\n\t\r\x1b\0":
            assert character not in sent, ascii(character)
    assert "\x1b]" not in sent
    assert "\x1ba" not in sent and "\x1b\x1c" not in sent
    assert in_terminal(EVERY_WAY, "\x1b[31m").count("\x1b[31m") == in_terminal(EVERY_WAY, "harmless").count("\x1b[31m")


@pytest.mark.parametrize("text", ["[bold]a[/bold]", "[/]", "[link=http://evil.example]a[/link]"])
def test_a_foreign_text_is_no_markup(text: str) -> None:
    assert in_terminal(EVERY_WAY, text).count(text) >= 12


def test_line_ends_and_tabs_stay(capsys) -> None:
    from tunewright import console

    console.data("a\tb\r\nc\rd\n")
    assert capsys.readouterr().out == "a\tb\nc␍d\n"


def test_a_line_end_in_a_name_makes_no_message_of_its_own(capsys) -> None:
    name = "a\nerror: fake\r\nwarning: fake\u2028error: fake\nhint: fake"
    console.warning(f"{name}: unreadable")
    console.error(UserError(f"no {name}", f"the cause\n  is {name}", f"see {name}"))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines if line and not line.startswith("  ")] == ["warning", "error"]
