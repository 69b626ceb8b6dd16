"""The child process of capped_programs: it renders others' chat templates and matches others' patterns."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

from tunewright.models.capped_process import answer_lines

OUT_OF_MEMORY = "too much memory"
_templates: list[str] = []  # the one that was rendered last: it is sent only when it changes


def _render(request: dict[str, Any]) -> dict[str, Any]:
    from jinja2.exceptions import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    if "template" in request:
        _templates[:] = [request["template"]]
    try:
        rendered = render_jinja_template([request["messages"]], chat_template=_templates[0], **request["variables"])
    except TemplateError as error:
        return {"refused": str(error) or type(error).__name__}
    text = rendered[0][0]  # (texts, places of the answers)
    if len(text) > request["max_chars"]:
        return {"error": f"it writes {len(text):,} characters, and {request['max_chars']:,} is the most for this chat"}
    return {"text": text}


def _match(request: dict[str, Any]) -> dict[str, Any]:
    """Match every pattern with every name in the ways that peft does."""
    for pattern in request["patterns"]:
        try:
            programs = [re.compile(form % pattern) for form in ("%s", r"(.*\.)?(%s)$", r".*\.%s\.(\d+)\.")]
        except (re.error, OverflowError, RecursionError) as error:
            return {"error": f"it is no regular expression: {error}"}
        for program in programs:
            for name in request["names"]:
                program.fullmatch(name), program.match(name)
    return {}


def _answer(line: bytes) -> bytes:
    try:
        request = json.loads(line.decode("utf-8", "surrogatepass"))
        answer = (_match if "patterns" in request else _render)(request)
        return json.dumps(answer, ensure_ascii=False).encode("utf-8", "surrogatepass")
    except MemoryError:
        return json.dumps({"error": OUT_OF_MEMORY}).encode()
    except Exception as error:  # a template is a program: it can raise anything
        return json.dumps({"error": f"{type(error).__name__}: {error}"[:500]}).encode()


if __name__ == "__main__":
    from transformers.utils import chat_template_utils  # noqa: F401  before the memory is measured

    answer_lines(sys.argv[1:], _answer)
