"""The export targets that llama.cpp runs: the model, the adapter alone, and a folder for Ollama."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunewright.export.adapter import adapter_bytes
from tunewright.export.gguf.architectures import context_length
from tunewright.export.gguf.file import DTYPES
from tunewright.export.gguf.llama_runner import COMPOSES_NOTHING, LEAST_CONTEXT_TOKENS, LlamaRunner
from tunewright.export.gguf.model import write_gguf_adapter, write_model
from tunewright.export.gguf.ollama import MODEL_FILE, modelfile, render_go, template_in
from tunewright.export.gguf.vocabulary import adds_bos
from tunewright.export.merge import Merge, open_merge
from tunewright.export.reference import most_tokens
from tunewright.export.target import Base, Limit, Runner
from tunewright.models.source import read_config
from tunewright.models.student import student_tokenizer
from tunewright.recipe import Recipe
from tunewright.records import Message
from tunewright.run_folder import RunFolder

MODEL_DTYPES = tuple(name for name in DTYPES if name != "f32")  # that one is for serve alone

_ADAPTER_FILE = "adapter.gguf"
_SLACK = 1.25  # matrices that keep more bits than the rest
_VOCABULARY_BYTES = 20_000_000

Array = Any  # numpy.ndarray


class _Merged:
    """A merge read in rows: each tensor is made once, when its first row is asked for."""

    def __init__(self, merge: Merge) -> None:
        self._merge = merge
        self.folder = merge.folder
        self.shapes = {name: tuple(merge.shape(name)) for name in merge.files}
        self._last: tuple[str, Array] = ("", None)

    def rows(self, name: str, start: int, end: int) -> Array:
        """Return rows of a tensor as fp32."""
        if self._last[0] != name:
            self._last = (name, self._merge.tensor(name).float().numpy())
        return self._last[1][start:end]


def write_model_file(run: RunFolder, recipe: Recipe, folder: Path, dtype: str, base: Base) -> None:
    """Write the tuned model as one GGUF file, merged on the way: no merged folder is needed."""
    _write(open_merge(run, recipe, base), recipe, folder / MODEL_FILE, dtype)


def _write(merge: Merge, recipe: Recipe, out: Path, dtype: str) -> None:
    write_model(_Merged(merge), read_config(merge.folder), student_tokenizer(recipe), out, dtype)


def model_bytes(run: RunFolder, recipe: Recipe, dtype: str) -> int:
    """Return about how large the file gets."""
    shapes = _Merged(open_merge(run, recipe, "original")).shapes.values()
    num = sum(shape[0] * (shape[1] if len(shape) > 1 else 1) for shape in shapes)
    return int(num * DTYPES[dtype].bits / 8 * _SLACK) + _VOCABULARY_BYTES


def _llama(run: RunFolder, recipe: Recipe, model: Path, adapter: Path | None = None) -> LlamaRunner:
    """Open a file with room for all that the exam asks and answers."""
    return LlamaRunner(model, adapter, max(LEAST_CONTEXT_TOKENS, most_tokens(run, recipe)))


@contextmanager
def model_runner(run: RunFolder, recipe: Recipe, folder: Path, dtype: str, base: Base) -> Iterator[Runner]:
    """Open the file with stock llama.cpp."""
    with _llama(run, recipe, folder / MODEL_FILE) as runner:
        yield runner


def write_adapter_file(run: RunFolder, recipe: Recipe, folder: Path, dtype: str, base: Base) -> None:
    """Write the adapter alone, for the base's own GGUF."""
    merge = open_merge(run, recipe, "original")
    write_gguf_adapter(merge.deltas, read_config(merge.folder), folder / _ADAPTER_FILE, dtype)


def adapter_file_bytes(run: RunFolder, recipe: Recipe, dtype: str) -> int:
    """Return the room for the adapter, and for the base's file that it is tried on."""
    return adapter_bytes(run, recipe, dtype) + model_bytes(run, recipe, dtype)


@contextmanager
def on_base_runner(run: RunFolder, recipe: Recipe, folder: Path, dtype: str, base: Base) -> Iterator[Runner]:
    """Open the adapter with stock llama.cpp on the base's GGUF, which is written for that and removed again."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".base-") as work:  # with the folder it goes after a kill, too
        model = Path(work) / MODEL_FILE
        _write(dataclasses.replace(open_merge(run, recipe, base), deltas=None), recipe, model, dtype)
        with _llama(run, recipe, model, folder / _ADAPTER_FILE) as runner:
            yield runner


def write_ollama_folder(run: RunFolder, recipe: Recipe, folder: Path, dtype: str, base: Base) -> None:
    """Write the GGUF and the Modelfile beside it, which may be refused and is therefore made first."""
    merge, tokenizer = open_merge(run, recipe, base), student_tokenizer(recipe)
    context_tokens = context_length(read_config(merge.folder))
    content = modelfile(tokenizer, context_tokens, adds_bos(tokenizer), recipe.system_prompt)
    _write(merge, recipe, folder / MODEL_FILE, dtype)
    (folder / "Modelfile").write_text(content, encoding="utf-8")


@contextmanager
def ollama_runner(run: RunFolder, recipe: Recipe, folder: Path, dtype: str, base: Base) -> Iterator[Runner]:
    """Open the folder as Ollama does: prompts by the Modelfile's template, numbers by llama.cpp."""
    with _llama(run, recipe, folder / MODEL_FILE) as runner:
        yield _OllamaRunner(runner, template_in((folder / "Modelfile").read_text(encoding="utf-8")))


class _OllamaRunner:
    """llama.cpp under Ollama's template.

    A conversation is rendered as it is given: that Ollama puts the Modelfile's SYSTEM before one without a system turn
    is what chat and serve do before they render, and no property of the template.
    """

    limits: Sequence[Limit] = (COMPOSES_NOTHING, Limit("Ollama's templates cannot trim white space", str.strip))

    def __init__(self, runner: LlamaRunner, template: str) -> None:
        self._runner, self._template = runner, template
        self.name = f"the Modelfile's template, {runner.name}"
        self.log_probs, self.answers = runner.log_probs, runner.answers

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Return the prompt that the Modelfile's template gives, as llama.cpp tokenizes it."""
        return self._runner.tokenize(render_go(self._template, messages), with_first=True)
