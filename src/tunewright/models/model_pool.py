"""The weights that answer: a base as it came or with an adapter on it; one base in memory serves all its adapters."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright import console
from tunewright.models.loading import compute_dtype, for_inference, is_full, load_adapter, load_base, pick_device
from tunewright.models.student import student_base, student_identity, student_tokenizer
from tunewright.recipe import Recipe
from tunewright.records import digest
from tunewright.storage import file_digest


@dataclass(frozen=True)
class ModelWeights:
    """A base, and the adapter on it if any.

    Attributes:
        recipe: names the base and how it is quantized and computed.
        adapter: a folder in peft format, or with a whole tuned model; None for the base as it came.
        identity: names the numbers, and so every answer that they give.
    """

    recipe: Recipe
    adapter: Path | None
    identity: str

    @classmethod
    def of(cls, recipe: Recipe, adapter: Path | None = None) -> ModelWeights:
        """Return the weights of a recipe's base with this adapter on it."""
        base = student_identity(recipe, pick_device())
        return cls(recipe, adapter, base if adapter is None else f"{base} {file_digest(adapter)}")

    @property
    def loaded_as(self) -> str:
        """What has to be in memory: the base's identity, or the whole model's own."""
        if self.adapter is not None and is_full(self.adapter):
            return self.identity
        return student_identity(self.recipe, pick_device())


class ModelPool:
    """The one model in memory with the adapters on it, and the tokenizers of all bases."""

    def __init__(self) -> None:
        self._model: Any = None
        self._loaded_as = ""
        self._adapters: set[str] = set()
        self._tokenizers: dict[str, Any] = {}

    def tokenizer(self, weights: ModelWeights) -> Any:
        """Return the tokenizer of the weights' base."""
        base = f"{weights.recipe.model.base} {' '.join(weights.recipe.model.added_tokens)}"
        if base not in self._tokenizers:
            self._tokenizers[base] = student_tokenizer(weights.recipe)
        return self._tokenizers[base]

    @contextmanager
    def holding(self, weights: ModelWeights) -> Iterator[Any]:
        """Yield the model with these weights in force; what it does not need is freed before anything is loaded."""
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
        """Two bases may not fit side by side."""
        import torch

        self._model, self._loaded_as = None, ""
        self._adapters.clear()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
