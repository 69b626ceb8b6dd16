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
from tunewright.models.load import for_inference, load_adapter, load_base, pick_device
from tunewright.models.source import locate
from tunewright.models.template import encode_prompt, end_ids, load_tokenizer
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
    model, tokenizer = _load(run, recipe, voices)
    history = {voice: [Message(role="system", content=recipe.system_prompt)] for voice in voices}
    for question in [prompt] if prompt is not None else _lines():
        for voice in voices:
            history[voice].append(Message(role="user", content=question))
            if len(voices) > 1:
                console.stream(f"{voice}: ")
            answer = _speak(model, tokenizer, history[voice], voice)
            history[voice].append(Message(role="assistant", content=answer))


def _load(run: RunFolder, recipe: Recipe, voices: Sequence[str]) -> tuple[Any, Any]:
    folder = locate(recipe.model.base, recipe.folder)
    tokenizer = load_tokenizer(folder)
    console.line(f"loading {recipe.model.base}")
    model = for_inference(load_base(folder, recipe.model.quantization, pick_device()))
    return (load_adapter(model, run.file("adapter")) if "tuned" in voices else model), tokenizer


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
