"""doctor --teacher: what the servers of a recipe can do, by one cheap call of each form that the recipe needs."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunewright import console
from tunewright.errors import TunewrightError, UserError
from tunewright.recipe import Recipe
from tunewright.records import Message
from tunewright.run_folder import RunFile, RunFolder
from tunewright.settings import TeacherSettings
from tunewright.teacher import Request, open_teacher

_PATIENCE_S = 30.0  # a user waits for the result
_TOKENS = 64
_SYSTEM = "You answer in one line."
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"answer": {"type": "string"}},
    "required": ["answer"],
    "additionalProperties": False,
}


def examine_teacher(recipe: Recipe) -> None:
    """Print one line per server and form of call: whether it works, and how the server has to be asked.

    Raises:
        UserError: a call failed.
    """
    num_failed = 0
    for section, settings, forms in _connections(recipe):
        for url in settings.urls:
            console.data(f"{section} {settings.model or url} at {url}".replace(f"{url} at {url}", url))
            single = settings.model_copy(update={"url": url, "patience_s": min(settings.patience_s, _PATIENCE_S)})
            for form in forms:
                passed, text = _call(single, section, form, _request(form, settings, recipe.seed))
                console.data(f"{'ok  ' if passed else 'FAIL'}  {form.ljust(16)} {text}")
                num_failed += not passed
    if num_failed:
        raise UserError(f"{num_failed} call(s) failed", "", "fix what the lines above name, then run it again")


def _connections(recipe: Recipe) -> Iterator[tuple[str, TeacherSettings, list[str]]]:
    """Yield the recipe's teacher and judge, each with the forms of call that its stages make."""
    forms = ["chat"]
    if {"free-qa", "extraction"} & set(recipe.synthesis.tasks) or "judge" in recipe.curation.checks:
        forms.append("JSON schema")
    if recipe.synthesis.general_samples:
        forms.append("raw text")
    yield "teacher", recipe.teacher, forms
    if recipe.judge.url:
        yield "judge", recipe.judge.as_teacher, ["JSON schema"]


def _request(form: str, settings: TeacherSettings, seed: int) -> Request:
    if form == "raw text":
        return Request((), _TOKENS, settings.temperature, seed, raw="The capital of France is", stop=("\n",))
    schema = _SCHEMA if form == "JSON schema" else None
    asked = 'Reply with JSON only: {"answer": "ready"}' if schema else "Reply with one word: ready"
    messages = (Message(role="system", content=_SYSTEM), Message(role="user", content=asked))
    return Request(messages, _TOKENS, settings.temperature, seed, schema)


def _call(settings: TeacherSettings, section: str, form: str, request: Request) -> tuple[bool, str]:
    """Make one call; return whether its reply is of use, and a line on it."""
    with tempfile.TemporaryDirectory() as folder:
        journal = RunFolder.create(Path(folder) / "run").journal(RunFile.TEACHER_JOURNAL)
        try:
            with open_teacher(journal, settings, section) as teacher:
                reply = teacher.ask_all([request], form)[0]
                notes = {name: value for name, value in teacher.notes().items() if name != "most_frequent_failure"}
        except TunewrightError as error:
            return False, "; ".join(filter(None, (error.headline, error.cause, error.hint)))
    if reply is None:
        return False, "no reply"
    parts = [f"{reply.seconds:.1f} s, {reply.num_tokens} tokens: {' '.join(reply.text.split())[:60]!r}"]
    parts += [f"{name.replace('_', ' ')}: {value}" for name, value in notes.items()]
    fault = _fault(form, reply.text, reply.finish)
    return not fault, "; ".join(filter(None, (fault, *parts)))


def _fault(form: str, text: str, finish: str) -> str:
    """Return why a reply is of no use, or ""."""
    if form == "raw text":  # it may be cut: there is no end to what it continues
        return "" if text.strip() else "an empty reply"
    if finish != "stop":
        return f"the reply is not whole ({finish})"
    if form == "chat":
        return "" if text.strip() else "an empty reply"
    try:
        content, _ = json.JSONDecoder().raw_decode(text, max(0, text.find("{")))
    except (ValueError, RecursionError):
        return "no JSON in the reply"
    return "" if isinstance(content, dict) else "no JSON object in the reply"
