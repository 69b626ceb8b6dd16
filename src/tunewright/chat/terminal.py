"""The human's side of a chat: lines from a keyboard or a pipe, and Ctrl-C that stops an answer, not the program."""

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
    """Return whether somebody types.

    Raises:
        UserError: standard input is closed.
    """
    if sys.stdin is None:
        raise UserError("there is no input to read", "standard input is closed", "ask one question: --prompt TEXT")
    return sys.stdin.isatty()


def lines() -> Iterator[str]:
    """Yield what is typed or piped, without empty lines; Ctrl-D or the end of the pipe ends it."""
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
    """Return a typed line, empty at its end (Ctrl-D); the prompt stays out of a redirected stdout."""
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
    """Within the block, the first Ctrl-C only makes the yielded function true; the second one interrupts.

    An interrupt at any instruction could leave the adapter half switched off: a flag is looked at between tokens.
    """
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)
