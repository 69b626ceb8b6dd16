"""Talking to base and tuned: questions from the keyboard or a pipe, answers streamed."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

from tunewright import console
from tunewright.errors import UserError
from tunewright.models.generate import stream
from tunewright.models.load import for_inference, is_full, load_adapter, pick_device
from tunewright.models.student import student_base, student_tokenizer
from tunewright.models.template import encode_prompt, end_ids
from tunewright.pipeline import require
from tunewright.recipe import Recipe, load_recipe
from tunewright.records import Message
from tunewright.rundir import RunFolder

_MAX_NEW_TOKENS = 512


def converse(run: RunFolder, voices: Sequence[str], prompt: str | None) -> None:
    """Answer one prompt, or each line of standard input until it ends; the conversation so far is kept.

    Args:
        run: a run folder.
        voices: "base", "tuned" or both; with both, each answers every question and keeps its own history.
        prompt: one question, or None to read lines.
    """
    require(run, "recipe.toml", *(("adapter",) if "tuned" in voices else ()))
    recipe = load_recipe(run.file("recipe.toml"))
    models, tokenizer = _load(run, recipe, voices)
    history = {voice: [Message(role="system", content=recipe.system_prompt)] for voice in voices}
    for question in [prompt] if prompt is not None else _lines():
        for voice in voices:
            history[voice].append(Message(role="user", content=question))
            if len(voices) > 1:
                console.stream(f"{voice}: ")
            answer = _speak(models[voice], tokenizer, history[voice], voice)
            history[voice].append(Message(role="assistant", content=answer))


def _load(run: RunFolder, recipe: Recipe, voices: Sequence[str]) -> tuple[dict[str, Any], Any]:
    """Return the model of each voice, one base under both where an adapter makes the difference; and the tokenizer."""
    tokenizer = student_tokenizer(recipe)
    console.line(f"loading {recipe.model.base}")
    base = for_inference(student_base(recipe, pick_device(), tokenizer))
    if "tuned" not in voices:
        return {"base": base}, tokenizer
    tuned = load_adapter(base, run.file("adapter"))
    return {"base": base if is_full(run.file("adapter")) else tuned, "tuned": tuned}, tokenizer


def _speak(model: Any, tokenizer: Any, messages: Sequence[Message], voice: str) -> str:
    without = model.disable_adapter() if voice == "base" and hasattr(model, "disable_adapter") else nullcontext()
    pieces = []
    with without:
        prompt = encode_prompt(tokenizer, messages)
        for piece in stream(model, tokenizer, prompt, _MAX_NEW_TOKENS, end_ids(tokenizer, model)):
            pieces.append(piece)
            console.stream(piece)
    console.stream("\n")
    return "".join(pieces)


def _lines() -> Iterator[str]:
    """Yield the questions of standard input; an empty line or "/quit" ends a conversation at a keyboard."""
    if sys.stdin is None:
        raise UserError("there is no input to read", "standard input is closed", "ask one question: --prompt TEXT")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    keyboard = sys.stdin.isatty()
    if keyboard:
        console.line("ask a question; /quit or Ctrl-D leaves", "dim")
    while True:
        if keyboard:
            console.stream("> ")
        text = sys.stdin.readline()
        if not text or text.strip() == "/quit":
            return
        if text.strip():
            yield text.strip()
