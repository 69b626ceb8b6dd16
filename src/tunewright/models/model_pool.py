"""The model pool: the weights that answer, with a single base in memory for all its adapters."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright import console
from tunewright.models.loading import compute_dtype, for_inference, is_full, load_adapter, load_base, pick_device
from tunewright.models.student import student_base, student_identity, student_tokenizer
from tunewright.recipe import Recipe
from tunewright.records import digest
from tunewright.storage import file_digest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class ModelWeights:
    """A base, with an adapter or without.

    Attributes:
        recipe: names the base, its quantization and its type to compute in.
        adapter: a folder in peft format, or of a whole tuned model; None for the base alone.
        identity: of the numbers, and so of all answers that they give.
    """

    recipe: Recipe
    adapter: Path | None
    identity: str

    @classmethod
    def of(cls, recipe: Recipe, adapter: Path | None = None) -> ModelWeights:
        """Return the weights of a recipe's base, with an adapter or without."""
        base = student_identity(recipe, pick_device())
        return cls(recipe, adapter, base if adapter is None else f"{base} {file_digest(adapter)}")

    @property
    def loaded_as(self) -> str:
        """The identity of the model that has to be in memory: the base, or the whole tuned model."""
        if self.adapter is not None and is_full(self.adapter):
            return self.identity
        return student_identity(self.recipe, pick_device())


class ModelPool:
    """A single model in memory with its adapters, and the tokenizers of all bases."""

    def __init__(self) -> None:
        self._model: Any = None  # a PreTrainedModel once a model is loaded
        self._loaded_as = ""
        self._adapters: set[str] = set()
        self._tokenizers: dict[str, PreTrainedTokenizerBase] = {}

    def tokenizer(self, weights: ModelWeights) -> PreTrainedTokenizerBase:
        """Return the tokenizer of the weights' base."""
        base = f"{weights.recipe.model.base} {' '.join(weights.recipe.model.added_tokens)}"
        if base not in self._tokenizers:
            self._tokenizers[base] = student_tokenizer(weights.recipe)
        return self._tokenizers[base]

    @contextmanager
    def holding(self, weights: ModelWeights) -> Iterator[PreTrainedModel]:
        """Yield the model with these weights active; another base is freed before theirs is loaded."""
        if weights.loaded_as != self._loaded_as:
            self._load(weights)
        if weights.adapter is None or is_full(weights.adapter):
            with self._model.disable_adapter() if self._adapters else nullcontext():
                yield self._model
            return
        name = digest(weights.identity)
        if name in self._adapters:
            self._model.set_adapter(name)
        else:
            self._model = load_adapter(self._model, weights.adapter, name)
            self._adapters.add(name)
        yield self._model

    def _load(self, weights: ModelWeights) -> None:
        self._free()
        device, recipe = pick_device(), weights.recipe
        if weights.adapter is not None and is_full(weights.adapter):
            console.line(f"loading {weights.adapter} on {device}")
            dtype = compute_dtype(device, recipe.model.compute)
            self._model = load_base(weights.adapter, "none", device, dtype).eval()
        else:
            console.line(f"loading {recipe.model.base} on {device}")
            self._model = for_inference(student_base(recipe, device, self.tokenizer(weights)))
        self._loaded_as = weights.loaded_as

    def _free(self) -> None:
        """Free the model: two bases may not fit side by side."""
        import torch

        self._model, self._loaded_as = None, ""
        self._adapters.clear()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
