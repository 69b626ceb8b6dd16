"""Programs in others' files run in a capped child process: chat templates, and the regular expressions of adapters.

A template can loop for ever or ask for all memory, also for one certain text only, so each rendering has the caps. The
child renders by transformers' own function. It starts with the first rendering, and stays: a round trip takes some
50 microseconds.
"""

from __future__ import annotations

import atexit
import json
import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from tunewright.models.capped_process import CappedProcess, ProcessEndedError
from tunewright.models.capped_programs_worker import OUT_OF_MEMORY

MEMORY_MB = 512
MAX_CPU_S = 5.0  # for one chat: a hundred turns take a few milliseconds
_WORKER = ("tunewright.models.capped_programs_worker", MEMORY_MB, "renders chat templates")
_TIMEOUT_S = 120.0  # of the clock: the limit of processor time ends it first, unless the machine stands still
_MAX_CHARS = 2**20  # that a template may add to a chat


class ProgramError(Exception):
    """A template or pattern that failed or exceeded a limit; the message says which."""


class RefusedError(ProgramError):
    """A template that raises its own error on a chat, such as one that takes no system turn."""


class _Child:
    """The running worker of this process, if any; a forked process starts one of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: CappedProcess | None = None
        self._owner = 0
        self._template = ""

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            if self._process is None or self._owner != os.getpid() or not self._process.is_alive():
                self.stop()
                self._process, self._owner, self._template = CappedProcess(*_WORKER, MAX_CPU_S), os.getpid(), ""
            if request.get("template") == self._template:
                del request["template"]
            self._template = request.get("template", self._template)
            try:
                # As they are: the escapes of two halves of a surrogate pair would be read as one character.
                line = json.dumps(request, ensure_ascii=False).encode("utf-8", "surrogatepass")
                answer: dict[str, Any] = json.loads(
                    self._process.ask(line, _TIMEOUT_S).decode("utf-8", "surrogatepass")
                )
            except TimeoutError:
                raise ProgramError(f"it ran for more than {MAX_CPU_S:g} s") from None
            except MemoryError:
                answer = {"error": OUT_OF_MEMORY}
            except ProcessEndedError as error:
                raise ProgramError(f"its process {error}") from None
            if answer.get("error") == OUT_OF_MEMORY:
                self.stop()
                raise ProgramError(f"it took more than {MEMORY_MB} MB of memory")
            return answer

    def stop(self) -> None:
        if self._process is not None and self._owner == os.getpid():
            self._process.stop()
        self._process = None


_child = _Child()
atexit.register(_child.stop)


def rendered(template: str, messages: Sequence[Mapping[str, Any]], variables: Mapping[str, Any]) -> str:
    """Return a chat as a template writes it.

    Args:
        template: in Jinja's language.
        messages: turns with role and content.
        variables: further names that the template reads.

    Raises:
        RefusedError: the template raises an error of its own.
        ProgramError: it is damaged, or exceeds a limit of time, memory or length.
    """
    content = [{key: value for key, value in message.items() if value is not None} for message in messages]
    num_chars = len(json.dumps(content, ensure_ascii=False))
    request = {"template": template, "messages": content, "variables": variables}
    answer = _child.ask({**request, "max_chars": 4 * num_chars + _MAX_CHARS})
    if "text" in answer:
        return str(answer["text"])
    raise (RefusedError(answer["refused"]) if "refused" in answer else ProgramError(answer["error"]))


def check_patterns(patterns: Sequence[str], names: Sequence[str]) -> None:
    """Match regular expressions with names, so that a library may do so.

    Raises:
        ProgramError: one of them is damaged, or exceeds a limit of time or memory.
    """
    answer = _child.ask({"patterns": list(patterns), "names": list(names)})
    if "error" in answer:
        raise ProgramError(answer["error"])
