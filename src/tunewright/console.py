"""All printing: lines, tables and progress bars on stderr, data on stdout; NO_COLOR is honored."""

from __future__ import annotations

import io
import json
import math
import os
import re
import sys
import time
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any
from urllib.parse import unquote

from rich.console import Console
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from tunewright.errors import TunewrightError, UserError

_SECRET_NAME = re.compile(r"(^|_)(API)?(KEY|TOKEN|SECRET|PASSWORD|PASSPHRASE|PAT)(_|$)")
_SHORTEST_SECRET = 8  # characters; a shorter value also occurs in harmless text
# With one slash or backslash too; without a scheme where a password follows. A quote ends it, unless it begins a value.
_URL = re.compile(
    r"(?:[a-z][a-z0-9+.-]{1,20}:[/\\]|(?<![\w:/\\])[/\\]{2}(?=[^\s/\\@]{0,200}:[^\s/\\@]{0,200}@))"
    r"(?:[^\s\"'<>]|(?<==)[\"'])*",
    re.IGNORECASE,
)
_LOGIN = re.compile(r"(?<!/)@")  # "/@name" is a path
# A password may hold "?" and "#", which end the name of a host for a parser.
_AUTHORITY = re.compile(r"[^/\\]*[/\\]+[^/\\]*")
_PARAMETER = re.compile(r"(?<=[?&;#/])([^=&;#?/\s\"'<>]{1,200}=)([^&;#\s<>]+)")
_NAME_IN_PATH = re.compile(r"[;/]([^;/=]{1,200})=(?=[^;/])")
_NAME_IN_QUERY = re.compile(r"([^?&;#/=:]{1,200})[=:]\s*[\"']?(?=[^\s\"'&;#])")
_HEADER = re.compile(r"\b(?:bearer|basic)[\s+:]+[\w.~+/-]{6}", re.IGNORECASE)
# Names of parameters that hold a secret, without their separators: api-key and x_api_key are apikey and xapikey.
_SECRET_PARAMETER = re.compile(
    r"keys?$|token|secret|passw|passphrase|passcode|pwd|auth(?!or(?!iz))|bearer|jwt|signature|hmac|credential|session"
    r"|(?<!by)(?<!com)pass$|^(?:sign?|sas|code|sid|otp|pin)$"
)
_UNSEEN = re.compile("[\t\r\n\xad\u200b-\u200f\u2060-\u2064\ufeff]")
# A key of a known service by its first letters, wherever it is.
_KEY = re.compile(
    r"\b(?:sk-|sk_|hf_|gsk_|xai-|pplx-|nvapi-|r8_|glpat-|gh[opusr]_|github_pat_|xox[abp]-|AKIA|AIza|eyJ)[\w-]{12,}"
)
_LINE_INTERVAL_S = 10.0  # between two progress lines without a terminal
_MIN_WIDTH = 80  # characters; in a narrower terminal, two columns break nearly every line

_silent: list[bool] = []


def silence() -> None:
    """Print nothing but errors from now on: of several processes, only one prints."""
    _silent.append(True)


def url_secret(text: str, is_url: bool = False) -> str:
    """Return which part of the URLs in a text holds a secret, in words; "" if none does.

    Args:
        text: a setting's value.
        is_url: whether it is meant as a URL; else only what begins with a scheme counts.
    """
    urls = [text] if is_url or _URL.match(text) else _URL.findall(text)
    return next(filter(None, map(_fault_of_url, urls)), "")


def _fault_of_url(url: str) -> str:
    """Return which part of a URL holds a secret, however it is encoded; "" if none does."""
    for _ in range(3):
        url = unquote(url)
    url = unicodedata.normalize("NFKC", _UNSEEN.sub("", url))
    authority = _AUTHORITY.match(url)
    path, _, query = re.sub("[?#]", "?", url).partition("?")
    if _LOGIN.search(path) or (authority and _LOGIN.search(authority.group())):
        return "a user name or password (user:password@)"
    for name in [*_NAME_IN_PATH.findall(path), *_NAME_IN_QUERY.findall(query)]:
        if _names_secret(name):
            return f"a key (the parameter {name.strip()[-60:]})"
    return "a key" if _KEY.search(url) or _HEADER.search(url) else ""


def _names_secret(parameter: str) -> bool:
    return bool(_SECRET_PARAMETER.search(re.sub(r"[^a-z]", "", parameter.lower())))


def is_key(text: str) -> bool:
    """Return whether a text has the form of a key of a known service."""
    return bool(_KEY.fullmatch(text))


def _bare_url(match: re.Match[str]) -> str:
    """Return a URL without its password and the values of its secret parameters."""
    path, question, query = match.group().partition("?")
    scheme = path.partition(":")[0] if ":" in path else ""
    if logins := list(_LOGIN.finditer(path)):
        path = f"{scheme}://…{path[logins[-1].start() :]}"
    path, query = (_PARAMETER.sub(_bare_parameter, part) for part in (path, question + query))
    is_bare = not _fault_of_url((path + query).replace("…@", "").replace("=…", "="))
    return path + query if is_bare else f"{scheme}://…"  # of what is encoded, no part could stay


def _bare_parameter(match: re.Match[str]) -> str:
    return f"{match[1]}…" if _names_secret(match[1]) else match[0]


def without_secrets(text: str) -> str:
    """Return the text without secrets: those in URLs, keys of known services, and values of the environment.

    The value of an environment variable that is named as a key becomes the name.
    """
    secrets = {value.strip(): name for name, value in os.environ.items() if _SECRET_NAME.search(name.upper())}
    for value in sorted(secrets, key=len, reverse=True):
        if len(value) >= _SHORTEST_SECRET and not value.startswith("/"):  # the path of a key file is no secret
            text = text.replace(value, f"[{secrets[value]}]")
    return _KEY.sub("…", _URL.sub(_bare_url, text))


# Control characters as symbols: sent to a terminal, those of a foreign text could move its cursor, set its title or
# write into its input. Marks that reverse the direction of a line are among them.
_SYMBOLS: dict[int, int | str] = {
    **{code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"},
    0x7F: 0x2421,
    **{code: f"\\x{code:02x}" for code in range(0x80, 0xA0)},
    **{code: f"\\u{code:04x}" for code in (0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))},
}


def visible(text: str) -> str:
    """Return the text with its control characters, except line ends and tabs, as symbols."""
    return text.replace("\r\n", "\n").translate(_SYMBOLS)


def _in_line(text: str) -> str:
    """Return a text without line ends: those of a file's name could look like a message of ours."""
    return visible(text).replace("\n", "\u240a")


def _indented(text: str) -> str:
    """Return a text whose further lines are indented, and so are no messages of their own."""
    return re.sub(r"\n(?! )", "\n  ", visible(text))


def _text(text: str, style: str = "") -> Text:
    """Return a text as every message is printed: without secrets, and without control characters."""
    return Text(visible(without_secrets(text)), style=style)


def _stderr(quiet: bool = True) -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True, quiet=bool(_silent) and quiet)


def data(text: str) -> None:
    """Write program output to stdout; only control characters change, see ``visible``."""
    stream(text if text.endswith("\n") else text + "\n")


def stream(text: str) -> None:
    """Write a piece of program output to stdout without a line end.

    Raises:
        UserError: stdout cannot be written.
    """
    try:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        sys.stdout.write(visible(text))
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(
            "cannot write to standard output", str(error), "redirect it to a file: COMMAND > FILE"
        ) from error


@contextmanager
def reserved_stdout() -> Iterator[None]:
    """Send to stderr whatever this process, its libraries and its children write to stdout within the block.

    What follows the block is then all that stdout holds.
    """
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def document(content: Mapping[str, Any]) -> None:
    """Write a document to stdout as JSON; every string without secrets, every other character than ASCII escaped."""
    data(json.dumps(_bare(content), indent=2, allow_nan=False))


def _bare(value: Any) -> Any:
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, Mapping):
        return {without_secrets(key): _bare(inner) for key, inner in value.items()}
    return [_bare(inner) for inner in value] if isinstance(value, list) else value


def line(text: str = "", style: str = "") -> None:
    """Write one line to stderr, without secrets: a server or a library may have repeated one."""
    _stderr().print(_text(text, style))


def heading(text: str) -> None:
    """Write a stage's heading to stderr."""
    line(text, "bold")


def warning(text: str) -> None:
    """Write a warning to stderr."""
    line(f"warning: {_in_line(text)}", "yellow")


def confirm(question: str) -> bool:
    """Return whether the user answers yes; without a terminal there is nobody to answer, and nothing is printed."""
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()) or _silent:
        return False
    _stderr().print(_text(f"{question} [y/N] ", "bold"), end="")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def error(failure: TunewrightError) -> None:
    """Write an error with its cause and hint to stderr, without secrets."""
    console = _stderr(quiet=False)
    console.print(_text(f"error: {_in_line(failure.headline)}", "bold red"))
    if failure.cause:
        console.print(_text(f"  {_indented(failure.cause)}"))
    if failure.hint:
        console.print(_text(f"\n  hint: {_indented(failure.hint)}", "cyan"))


def rough_duration(seconds: float) -> str:
    """Return an estimated time in a suitable unit; "?" for NaN."""
    if math.isnan(seconds):
        return "?"
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def segments(parts: Sequence[tuple[str, str]]) -> None:
    """Write pieces of text to stderr as one block, each piece with its rich style."""
    _stderr().print(Text.assemble(*[(visible(text), style) for text, style in parts]))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a table to stderr; columns after the first are right-aligned."""
    grid = Table(title=_text(title) if title else None, title_justify="left", header_style="bold")
    for number, column in enumerate(columns):
        grid.add_column(_text(column), justify="left" if number == 0 else "right", overflow="fold")
    for row in rows:
        grid.add_row(*[_text(cell) for cell in row])
    _stderr().print(grid)


class _RateColumn(ProgressColumn):
    """Units per second since the start."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.1f}/s", style="cyan")


@dataclass
class ProgressBar:
    """A bar with count, rate and remaining time; without a terminal, a line every ten seconds."""

    label: str
    total: int
    _bar: Progress | None = None
    _count: int = 0
    _note: str = ""
    _start: float = field(default_factory=time.monotonic)
    _last_line: float = field(default_factory=time.monotonic)

    def __enter__(self) -> ProgressBar:
        console = _stderr()
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("  {task.description}", markup=False),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                _RateColumn(),
                TextColumn("{task.fields[note]}", markup=False),
                TimeElapsedColumn(),
                TextColumn("eta"),
                TimeRemainingColumn(),
                console=console,
            )
            self._bar.start()
            self._bar.add_task(visible(self.label), total=self.total, note="")
        return self

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count finished units; ``note`` is shown beside the bar."""
        self._count += count
        if self._bar is not None:
            self._note = visible(note) or self._note
            self._bar.update(self._bar.task_ids[0], advance=count, note=self._note)
        elif time.monotonic() - self._last_line > _LINE_INTERVAL_S:
            self._last_line = time.monotonic()
            seconds = self._last_line - self._start
            rate = self._count / seconds
            left = max(0, self.total - self._count) / rate if rate else 0.0
            line(f"  {self.label} {self._count}/{self.total} {rate:.1f}/s eta {left:.0f}s {note}".rstrip())

    def note(self, text: str) -> None:
        """Show a text beside the bar until the next note; without a terminal, on a line of its own."""
        self._note = visible(text)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], note=self._note)
        elif text:
            line(f"  {self.label} {self._count}/{self.total} {text}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def progress(label: str, total: int) -> ProgressBar:
    """Return a progress bar to use in a ``with`` statement."""
    return ProgressBar(label, total)


def has_columns() -> bool:
    """Return whether stdout is a terminal wide enough for two texts side by side."""
    console = Console()
    return console.is_terminal and not console.is_dumb_terminal and console.width >= _MIN_WIDTH


class Columns:
    """Texts that grow side by side on stdout, each under its name; while they grow, their last lines are visible."""

    def __init__(self, names: Sequence[str]) -> None:
        self._console = Console(highlight=False)
        self._texts = dict.fromkeys(names, "")
        self._live = Live(console=self._console, refresh_per_second=12, get_renderable=self._latest)

    def add(self, name: str, piece: str) -> None:
        """Append to the text of that name."""
        self._texts[name] += visible(piece)

    def _latest(self) -> Table:
        return self._grid(max(1, self._console.height - 3))

    def _grid(self, max_lines: int | None) -> Table:
        width = (self._console.width - 3 * (len(self._texts) - 1)) // len(self._texts)
        grid = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
        cells = []
        for name, text in self._texts.items():
            grid.add_column(_text(name), width=width, overflow="fold")
            lines = Text(text).wrap(self._console, width, overflow="fold")
            cells.append(Text("\n").join(lines if max_lines is None else lines[-max_lines:]))
        grid.add_row(*cells)
        return grid

    def __enter__(self) -> Columns:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.transient = True
        self._live.stop()
        self._console.print(self._grid(None))
