"""Tensors read from safetensors without loading the model: the files of all weights, and the input embedding."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright.errors import ModelError
from tunewright.models.model_files import reading_model
from tunewright.models.source import locate
from tunewright.models.stored_quantization import is_state_of_quantization


def weight_files(folder: Path) -> Mapping[str, Path]:
    """Return the file of each weight, in the order of the files, without the scales of packed weights.

    Raises:
        ModelError: the folder holds no safetensors, or damaged ones.
    """
    return {name: file for name, file in stored_tensors(folder).items() if not is_state_of_quantization(name)}


def stored_tensors(folder: Path) -> Mapping[str, Path]:
    """Return the file of each tensor, in the order of the files.

    Raises:
        ModelError: the folder holds no safetensors, or damaged ones.
    """
    with reading_model("weights", folder, "download or export the model again"):
        files = _files(folder)
    if not files:
        raise ModelError(
            f"{folder} holds no weights", "there is no .safetensors file in it", "download the model again"
        )
    return files


def _files(folder: Path) -> dict[str, Path]:
    from safetensors import safe_open

    index = folder / "model.safetensors.index.json"
    if index.is_file() and not (folder / "model.safetensors").is_file():  # transformers loads that one first
        parts = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return {name: folder / part for name, part in parts.items()}
    files: dict[str, Path] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="numpy") as weights:
            files.update(dict.fromkeys(weights.keys(), file))
    return files


_NAMES = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight", "tok_embeddings.weight")
_MAX_WIDTH = 1024
_ROWS = 8192  # read at once
_BATCH = 2000  # texts tokenized at once

Matrix = Any  # numpy.ndarray; numpy's own types say nothing of the shape


@dataclass(frozen=True)
class TokenVectors:
    """A vocabulary's vectors and its tokenizer.

    Attributes:
        table: one row per token, [num_tokens, width], float32.
        tokenizer: of the ``tokenizers`` library.
    """

    table: Matrix
    tokenizer: Any

    def tokens(self, texts: Sequence[str]) -> Iterator[Matrix]:
        """Yield each text's token ids, [num_tokens], int32, without special tokens."""
        import numpy as np

        for start in range(0, len(texts), _BATCH):
            batch = self.tokenizer.encode_batch_fast(list(texts[start : start + _BATCH]), add_special_tokens=False)
            yield from (np.asarray(encoding.ids, dtype=np.int32) for encoding in batch)


def read_token_vectors(base: str, root: Path = Path()) -> TokenVectors:
    """Return the input embedding and the tokenizer of a base model.

    A width above 1,024 is reduced to 1,024 by a random projection, which keeps a cosine of 0.95 within about 0.003
    (Johnson & Lindenstrauss 1984).

    Args:
        base: "embedded", a folder, or a hub name.
        root: the folder that a relative path starts from.

    Raises:
        ModelError: the model is missing, or its weights hold no embedding under a known name.
    """
    folder = locate(base, root)
    file, name = _embedding_tensor(folder)
    with reading_model("embedding and tokenizer", folder):
        return TokenVectors(_table(file, name), _tokenizer(folder))


def _tokenizer(folder: Path) -> Any:
    from tokenizers import Tokenizer

    file = folder / "tokenizer.json"
    if file.is_file():
        fast = Tokenizer.from_file(str(file))
    else:
        from transformers import AutoTokenizer

        fast = AutoTokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer
    fast.no_padding()
    fast.no_truncation()
    return fast


def _embedding_tensor(folder: Path) -> tuple[Path, str]:
    """Return the file that holds the embedding, and the tensor's name."""
    files = weight_files(folder)
    for name, file in files.items():
        if name.endswith(_NAMES):
            return file, name
    raise ModelError(
        f"{folder} has no recognizable input embedding",
        f"none of its {len(files)} tensors ends in {', '.join(_NAMES)}",
        "switch off deduplication by embeddings: --set curation.embedding_duplicate=0",
    )


def _table(file: Path, name: str) -> Matrix:
    """Read the rows in pieces, so that a wide table is never in memory as a whole."""
    import numpy as np
    from safetensors import safe_open

    with safe_open(file, framework="numpy") as weights:
        is_bf16 = weights.get_slice(name).get_dtype() == "BF16"  # numpy lacks the type
    with safe_open(file, framework="pt" if is_bf16 else "numpy") as weights:
        rows = weights.get_slice(name)
        num_rows, width = rows.get_shape()
        projection = None
        if width > _MAX_WIDTH:
            draw = np.random.default_rng(0)
            projection = draw.standard_normal((width, _MAX_WIDTH), dtype=np.float32) / np.float32(_MAX_WIDTH**0.5)
        table = np.empty((num_rows, min(width, _MAX_WIDTH)), dtype=np.float32)
        for start in range(0, num_rows, _ROWS):
            piece = rows[start : min(start + _ROWS, num_rows)]
            piece = piece.float().numpy() if is_bf16 else piece.astype(np.float32)
            table[start : start + _ROWS] = piece if projection is None else piece @ projection
    return table
