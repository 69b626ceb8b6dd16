"""The types of llama.cpp's K-quants: which tensor gets which, and llama.cpp's own code that computes them."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tunewright.errors import ModelError

Array = Any  # numpy.ndarray

BLOCK = 256  # weights that share their scales
_SMALL_BLOCK = 32
_SYMBOL = "ggml_quantize_chunk"
_LEAST_SHARE = 1e-3  # of the mean importance: a column that no text reaches still counts a little
# A type, and the one for tensors that lose most by few bits. Where a row does not divide into blocks of 256, the type
# of about the same size with blocks of 32 takes its place.
MIXES: Mapping[str, tuple[str, str]] = {
    "q4_k_m": ("q4_k", "q6_k"),
    "q5_k_m": ("q5_k", "q6_k"),
    "q6_k": ("q6_k", "q6_k"),
}
_SMALLER_BLOCKS = {"q4_k": "q5_0", "q5_k": "q5_1", "q6_k": "q8_0"}
# The types that llama.cpp's quantizers compute: those of the gguf package take no importance matrix.
LLAMA_TYPES = frozenset({*_SMALLER_BLOCKS, "q4_0", "q5_0", "q5_1"})
WEIGHED = frozenset({*MIXES, "q4_0"})  # the types of files whose matrices are rounded by importance


def k_type(mix: str, name: str, width: int, num_layers: int, logits: bool) -> str:
    """Return a matrix's type in a file of this mix, as llama.cpp's own program chooses it.

    Args:
        mix: a key of MIXES.
        name: llama.cpp's, of the tensor.
        width: of its rows.
        num_layers: of the model.
        logits: whether it computes the logits.
    """
    plain, finer = MIXES[mix]
    layer = re.match(r"blk\.(\d+)\.(\w+)\.weight", name)
    finest = logits or (
        layer is not None and layer[2] in ("attn_v", "ffn_down") and _gets_more_bits(int(layer[1]), num_layers)
    )
    chosen = finer if finest else plain
    if width % BLOCK == 0:
        return chosen
    return _SMALLER_BLOCKS[chosen] if width % _SMALL_BLOCK == 0 else "f16"


def _gets_more_bits(layer: int, num_layers: int) -> bool:
    """Return whether a layer is among the first or last eighth, or every third between."""
    eighth = num_layers // 8
    return layer < eighth or layer >= 7 * num_layers // 8 or (layer - eighth) % 3 == 2


def quantized(values: Array, dtype: str, importance: Array | None) -> Array:
    """Return rows in a type of the mixes: [rows, bytes], uint8.

    Args:
        values: [rows, width], fp32, width a multiple of the type's block.
        dtype: one of LLAMA_TYPES.
        importance: [width], mean square of each column's input, by which rounding errors are weighted; None weighs by
            the weights alone.

    Raises:
        ModelError: the installed llama.cpp offers no quantizer.
    """
    import numpy as np
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    kind = GGMLQuantizationType[dtype.upper()]
    block, block_bytes = GGML_QUANT_SIZES[kind]
    num_rows, width = values.shape
    source = np.ascontiguousarray(values, dtype=np.float32)
    target = np.empty((num_rows, width // block * block_bytes), dtype=np.uint8)
    weights = None if importance is None else _floored(importance)
    chunk = _quantize_chunk()

    def quantize(rows: range) -> None:  # ctypes lets other threads run meanwhile
        pointer = None if weights is None else weights.ctypes.data_as(ctypes.c_void_p)
        chunk(
            int(kind),
            source[rows.start : rows.stop].ctypes.data_as(ctypes.c_void_p),
            target[rows.start : rows.stop].ctypes.data_as(ctypes.c_void_p),
            0,
            len(rows),
            width,
            pointer,
        )

    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        list(threads.map(quantize, _parts(num_rows, 4 * (os.cpu_count() or 1))))
    return target


def _parts(count: int, most: int) -> Sequence[range]:
    step = max(1, -(-count // most))
    return [range(start, min(count, start + step)) for start in range(0, count, step)]


def _floored(importance: Array) -> Array:
    """Return importances with a mean of 1, none of them 0: a block of zeros would have no scale."""
    import numpy as np

    mean = float(importance.mean())
    scaled = importance / mean if mean > 0 else np.ones_like(importance)
    return np.ascontiguousarray(np.maximum(scaled, _LEAST_SHARE), dtype=np.float32)


@lru_cache(maxsize=1)
def _quantize_chunk() -> Any:
    """Return llama.cpp's function that quantizes rows, from the library in the package xllamacpp.

    Raises:
        ModelError: the package does not offer it.
    """
    spec = find_spec("xllamacpp")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    for file in sorted(file for folder in folders for file in Path(folder).glob("xllamacpp*.so")):
        function = getattr(ctypes.CDLL(str(file)), _SYMBOL, None)
        if function is not None:
            function.restype = ctypes.c_size_t
            function.argtypes = (
                ctypes.c_int,
                ctypes.c_void_p,
                ctypes.c_void_p,
                ctypes.c_int64,
                ctypes.c_int64,
                ctypes.c_int64,
                ctypes.c_void_p,
            )
            return function
    raise ModelError(
        "the installed llama.cpp offers no quantizer for fewer than 8 bits",
        f"the library of the package xllamacpp has no {_SYMBOL}",
        "pip install -U xllamacpp, or take another type: --dtype q8_0",
    )
