"""Vectors of texts kept in a file, so that a second evaluation embeds only texts that are new."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tunewright import console
from tunewright.records import digest
from tunewright.retrieval.sentence_model import SentenceModel, Vectors
from tunewright.storage import write_atomic

_KEY_BYTES = 8  # of a digest of 16 hexadecimal digits


class StoredVectors:
    """A sentence model whose vectors of passages come from a file where it has them; questions are embedded each time.

    Args:
        model: embeds what the file lacks.
        file: safetensors with the digests of texts (texts, 8) and their vectors (texts, dimensions); written again when
            texts are added. A file of another model is replaced, and a damaged one too, with a warning.
        identity: names the model.
    """

    def __init__(self, model: SentenceModel, file: Path, identity: str) -> None:
        self._model, self._file, self._identity = model, file, identity

    def queries(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of questions, shape (texts, dimensions)."""
        return self._model.queries(texts)

    def passages(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of texts to be found, shape (texts, dimensions)."""
        keys = [digest(text) for text in texts]
        stored = self._read()
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in stored}
        if missing:
            stored |= zip(missing, self._model.passages(list(missing.values())), strict=True)
            self._write(stored)
        return np.stack([stored[key] for key in keys])

    def _read(self) -> dict[str, Vectors]:
        """Return the vectors in the file by digest of their text."""
        from safetensors import SafetensorError, safe_open

        if not self._file.is_file():
            return {}
        try:
            with safe_open(self._file, framework="np") as content:
                metadata = content.metadata() or {}
                if metadata.get("model") != self._identity:
                    return {}
                keys, vectors = content.get_tensor("keys"), content.get_tensor("vectors")
            if metadata.get("digest") == _digest(keys, vectors):
                return dict(zip((bytes(key).hex() for key in keys), vectors, strict=True))
        except (SafetensorError, OSError, ValueError):
            pass
        console.warning(f"{self._file.name} is damaged: its vectors are computed again")
        return {}

    def _write(self, stored: dict[str, Vectors]) -> None:
        from safetensors.numpy import save

        keys = np.frombuffer(bytes.fromhex("".join(stored)), dtype=np.uint8).reshape(-1, _KEY_BYTES)
        vectors = np.stack(list(stored.values()))
        metadata = {"model": self._identity, "digest": _digest(keys, vectors)}
        write_atomic(self._file, save({"keys": keys, "vectors": vectors}, metadata))


def _digest(keys: Any, vectors: Any) -> str:
    return hashlib.sha256(keys.tobytes() + vectors.tobytes()).hexdigest()
