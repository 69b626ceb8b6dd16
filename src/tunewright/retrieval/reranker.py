"""The reranker: a cross-encoder that reads a question together with each text and scores how well it answers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from tunewright.models.loading import pick_device
from tunewright.models.reward import load_reward, score_exchanges
from tunewright.models.source import locate


class Reranker:
    """A cross-encoder in memory (Nogueira & Cho 2019, "Passage Re-ranking with BERT").

    Args:
        folder: a sequence classifier with a single output.

    Raises:
        ModelError: the folder holds none.
    """

    def __init__(self, folder: Path) -> None:
        self._model, self._tokenizer = load_reward(folder, pick_device(), "reranker", "retrieval.reranker")

    def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        """Return the model's score of each text for a query; of a text beyond the model's length a part is read."""
        return score_exchanges(self._model, self._tokenizer, [(query, text) for text in texts]).rewards


@lru_cache(maxsize=1)
def open_reranker(model: str, root: Path) -> Reranker:
    """Return the reranker that ``retrieval.reranker`` names; it stays in memory for the next call.

    Raises:
        ModelError: it is missing, or no cross-encoder.
    """
    return Reranker(locate(model, root))
