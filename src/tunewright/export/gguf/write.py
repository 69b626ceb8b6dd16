"""The export targets that llama.cpp runs: the model, the adapter as a file of its own, and a folder for Ollama."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright import console
from tunewright.export.adapter import adapter_bytes, base_under
from tunewright.export.gguf.architectures import Config, context_length
from tunewright.export.gguf.file import DTYPES
from tunewright.export.gguf.importance import MAX_TOKENS, Importance, importance_of
from tunewright.export.gguf.k_quants import WEIGHED
from tunewright.export.gguf.llama_runner import COMPOSES_NOTHING, LEAST_CONTEXT_TOKENS, LlamaRunner
from tunewright.export.gguf.model import write_gguf_adapter, write_model
from tunewright.export.gguf.ollama import MODEL_FILE, modelfile, render_go, template_in
from tunewright.export.gguf.vocabulary import adds_bos
from tunewright.export.merge import Merge, open_merge
from tunewright.export.reference import longest_exchange
from tunewright.export.target import ExportRequest, Limit, Runner
from tunewright.models.chat_template import encode
from tunewright.models.loading import load_adapter
from tunewright.models.source import read_config
from tunewright.models.student import student_tokenizer
from tunewright.records import Message, digest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MODEL_DTYPES = tuple(name for name in DTYPES if name != "f32")  # f32 is for serve only

_ADAPTER_FILE = "adapter.gguf"
_SLACK = 1.25  # matrices that keep more bits than the rest
_VOCABULARY_BYTES = 20_000_000

Array = Any  # numpy.ndarray


class MergedRows:
    """A merge read in rows: each tensor is computed once, when its first rows are read."""

    def __init__(self, merge: Merge) -> None:
        self._merge = merge
        self.folder = merge.folder
        self.shapes = {name: tuple(merge.shape(name)) for name in merge.files}
        self._last: tuple[str, Array] = ("", None)

    def rows(self, name: str, start: int, end: int) -> Array:
        """Return the rows of a tensor from start to end as fp32: [rows, ...]."""
        if self._last[0] != name:
            self._last = (name, self._merge.tensor(name).float().numpy())
        return self._last[1][start:end]


def write_model_file(request: ExportRequest, folder: Path) -> None:
    """Write the tuned model as one GGUF file, merged on the way: no merged folder is needed."""
    merge = open_merge(request.adapter, request.recipe, request.base)
    _write(merge, request, folder / MODEL_FILE)


def _write(merge: Merge, request: ExportRequest, out: Path) -> None:
    config, tokenizer = read_config(merge.folder), student_tokenizer(request.recipe)
    write_model(MergedRows(merge), config, tokenizer, out, request.dtype, _importance(request, config, tokenizer))


def _importance(request: ExportRequest, config: Config, tokenizer: PreTrainedTokenizerBase) -> Importance | None:
    """Return the importance matrix of the tuned model on the run's training set; None for types that need none."""
    if request.dtype not in WEIGHED:
        return None
    if not request.samples:
        console.warning("the run has no training set of chats: the matrices are rounded without an importance matrix")
        return None
    samples = sorted(request.samples, key=lambda sample: digest("importance", request.recipe.seed, sample.id))
    console.line(f"computing the importance matrix on up to {MAX_TOKENS:,} tokens of the training set")
    model = load_adapter(base_under(request.recipe, request.base, tokenizer), request.adapter)
    sequences = (ids for sample in samples for ids in [encode(tokenizer, sample.messages).input_ids])
    return importance_of(model, config, sequences)


def model_bytes(request: ExportRequest) -> int:
    """Return an estimate of the file's size."""
    shapes = MergedRows(open_merge(request.adapter, request.recipe, "original")).shapes.values()
    num = sum(shape[0] * (shape[1] if len(shape) > 1 else 1) for shape in shapes)
    return int(num * DTYPES[request.dtype].bits / 8 * _SLACK) + _VOCABULARY_BYTES


def _llama(request: ExportRequest, model: Path, adapter: Path | None = None) -> LlamaRunner:
    """Open a file with a context for the longest question and answer of the exam."""
    context_tokens = max(LEAST_CONTEXT_TOKENS, longest_exchange(request.recipe, request.questions))
    return LlamaRunner(model, adapter, context_tokens)


@contextmanager
def model_runner(request: ExportRequest, folder: Path) -> Iterator[Runner]:
    """Open the file with stock llama.cpp."""
    with _llama(request, folder / MODEL_FILE) as runner:
        yield runner


def write_adapter_file(request: ExportRequest, folder: Path) -> None:
    """Write the adapter as a file of its own, for the base's GGUF."""
    merge = open_merge(request.adapter, request.recipe, "original")
    write_gguf_adapter(merge.deltas, read_config(merge.folder), folder / _ADAPTER_FILE, request.dtype)


def adapter_file_bytes(request: ExportRequest) -> int:
    """Return an estimate of the disk for the adapter and for the base's file that it is tested on."""
    return adapter_bytes(request) + model_bytes(request)


@contextmanager
def on_base_runner(request: ExportRequest, folder: Path) -> Iterator[Runner]:
    """Open the adapter with stock llama.cpp on the base's GGUF, a temporary file."""
    # In the export's folder, so that it is removed with it even after a kill.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".base-") as work:
        model = Path(work) / MODEL_FILE
        merge = open_merge(request.adapter, request.recipe, request.base)
        _write(dataclasses.replace(merge, deltas=None), request, model)
        with _llama(request, model, folder / _ADAPTER_FILE) as runner:
            yield runner


def write_ollama_folder(request: ExportRequest, folder: Path) -> None:
    """Write the GGUF and the Modelfile; the Modelfile may be refused, so it is made first."""
    recipe = request.recipe
    merge, tokenizer = open_merge(request.adapter, recipe, request.base), student_tokenizer(recipe)
    context_tokens = context_length(read_config(merge.folder))
    content = modelfile(tokenizer, context_tokens, adds_bos(tokenizer), recipe.system_prompt)
    _write(merge, request, folder / MODEL_FILE)
    (folder / "Modelfile").write_text(content, encoding="utf-8")


@contextmanager
def ollama_runner(request: ExportRequest, folder: Path) -> Iterator[Runner]:
    """Open the folder as Ollama does: prompts by the Modelfile's template, numbers by llama.cpp."""
    with _llama(request, folder / MODEL_FILE) as runner:
        yield _OllamaRunner(runner, template_in((folder / "Modelfile").read_text(encoding="utf-8")))


class _OllamaRunner:
    """llama.cpp under Ollama's template.

    A conversation is rendered as it is. Ollama adds the Modelfile's SYSTEM to one without a system turn, as chat and
    serve do, but that is not part of the template.
    """

    limits: Sequence[Limit] = (COMPOSES_NOTHING, Limit("Ollama's templates cannot trim white space", str.strip))

    def __init__(self, runner: LlamaRunner, template: str) -> None:
        self._runner, self._template = runner, template
        self.name = f"the Modelfile's template, {runner.name}"
        self.log_probs, self.answers = runner.log_probs, runner.answers

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Return the prompt of the Modelfile's template, as llama.cpp tokenizes it."""
        return self._runner.tokenize(render_go(self._template, messages), add_bos=True)
