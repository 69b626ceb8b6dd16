"""A model folder as GGUF, by the writer that exports use."""

from __future__ import annotations

from pathlib import Path

from tunewright.export.gguf.model import write_model
from tunewright.export.gguf.write import MergedRows
from tunewright.export.merge import Merge
from tunewright.models.chat_template import load_tokenizer
from tunewright.models.source import read_config
from tunewright.models.tensors import weight_files


def write_gguf(folder: Path, out: Path, dtype: str) -> None:
    """Write the model of a folder, without an adapter."""
    merge = Merge(folder, weight_files(folder), None, "none", frozenset(), None, 0, "cpu")
    write_model(MergedRows(merge), read_config(folder), load_tokenizer(folder), out, dtype)
