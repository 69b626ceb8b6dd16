"""Input of a chat: lines from a keyboard or a pipe, and Ctrl-C that stops an answer, not the program."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from tunewright import console
from tunewright.errors import UserError

_PROMPT = "> "


def at_keyboard() -> bool:
    """Return whether standard input is a terminal.

    Raises:
        UserError: standard input is closed.
    """
    if sys.stdin is None:
        raise UserError("there is no input to read", "standard input is closed", "pass one question: --prompt TEXT")
    return sys.stdin.isatty()


def lines() -> Iterator[str]:
    """Yield the lines typed or piped, without empty ones; Ctrl-D or the end of the pipe ends them."""
    keyboard = at_keyboard()
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    if keyboard:
        with suppress(ImportError):  # not in every build; with it, input() has arrow keys and a history
            import readline  # noqa: F401
    while True:
        try:
            text = _typed() if keyboard else sys.stdin.readline()
        except KeyboardInterrupt:
            if not keyboard:
                raise
            console.line("\n/quit or Ctrl-D leaves", "dim")
            continue
        if not text:
            if keyboard:
                console.line()
            return
        if text.strip():
            yield text.strip()


def _typed() -> str:
    """Return a typed line, empty on Ctrl-D; the prompt is not written to a redirected stdout."""
    if sys.stdout is not None and sys.stdout.isatty():
        try:
            return input(_PROMPT) + "\n"
        except EOFError:
            return ""
    sys.stderr.write(_PROMPT)
    sys.stderr.flush()
    return sys.stdin.readline()


@contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether Ctrl-C was pressed in the block; a second Ctrl-C interrupts.

    An interrupt at any instruction could leave the adapter half disabled, so a flag is checked between tokens.
    """
    pressed = False

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)
