"""A GGUF file written piece by piece: no tensor is whole in memory, and no half file ever has the name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright.errors import ModelError
from tunewright.export.gguf.k_quants import LLAMA_TYPES, quantized
from tunewright.operating_system import sync_folder
from tunewright.storage import disk_errors

if TYPE_CHECKING:
    from gguf import GGUFWriter

Array = Any  # numpy.ndarray

_PIECE_BYTES = 1 << 26  # of fp32 values, converted at once
_QUANTIZED = {"q8_0", "q4_0"}


@dataclass(frozen=True)
class Tensor:
    """A tensor to be written, with the function that reads its values.

    Attributes:
        name: llama.cpp's.
        shape: rows first, as in torch and numpy.
        dtype: one of DTYPES.
        read: (start, end) -> the rows from start to end as fp32: [rows, ...].
        importance: of its columns, [width], fp32; only the types of LLAMA_TYPES use it.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    read: Callable[[int, int], Array]
    importance: Array | None = None


def choose_dtype(dtype: str, shape: Sequence[int], sensitive: bool = False) -> str:
    """Return a tensor's type in a file of type ``dtype``, as llama.cpp chooses it.

    Vectors (norms, biases) stay fp32. The ``sensitive`` matrix, which computes the logits, gets 8 bits where others get
    4. A matrix whose rows do not divide into blocks of 32 stays in 16 bits.
    """
    if len(shape) < 2:
        return "f32"
    if dtype in _QUANTIZED and shape[-1] % 32:
        return "f16"
    return "q8_0" if sensitive and dtype == "q4_0" else dtype


def constant(name: str, values: Array, dtype: str) -> Tensor:
    """Return a tensor whose values are in memory."""
    return Tensor(name, values.shape, choose_dtype(dtype, values.shape), lambda start, end: values[start:end])


def write_file(out: Path, architecture: str, fields: Mapping[str, Any], tensors: Sequence[Tensor]) -> None:
    """Write the file under a temporary name, and rename it once it is on disk.

    Raises:
        ModelError: a value does not fit the type.
        DiskFullError: no space; an older file of that name is kept.
    """
    from gguf import GGUFWriter

    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    writer = GGUFWriter(part, architecture)
    for name, value in fields.items():
        _add_field(writer, name, value)
    sizes = [_add_info(writer, tensor) for tensor in tensors]
    try:
        with disk_errors(out, sum(sizes)):
            _write(writer, tensors)
            with part.open("rb") as written:
                os.fsync(written.fileno())
            part.replace(out)
    finally:
        writer.close()
        part.unlink(missing_ok=True)
    sync_folder(out.parent)


def _write(writer: GGUFWriter, tensors: Sequence[Tensor]) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    (file,) = writer.fout
    writer.write_padding(file, file.tell())
    for tensor in tensors:
        start = file.tell()
        for piece in _pieces(tensor):
            file.write(piece.tobytes())
        writer.write_padding(file, file.tell() - start)
    file.flush()


def _pieces(tensor: Tensor) -> Iterator[Array]:
    """Yield the tensor's bytes, some rows at a time."""
    import numpy as np
    from gguf.quants import quantize

    width = max(1, int(np.prod(tensor.shape[1:])))
    step = max(1, _PIECE_BYTES // (4 * width))
    for start in range(0, tensor.shape[0], step):
        values = np.ascontiguousarray(tensor.read(start, min(start + step, tensor.shape[0])), dtype=np.float32)
        with np.errstate(over="ignore"):  # reported below
            if tensor.dtype in LLAMA_TYPES:
                piece = quantized(np.nan_to_num(values.reshape(-1, tensor.shape[-1])), tensor.dtype, tensor.importance)
            else:
                piece = quantize(values, _quantization(tensor.dtype))
        if not np.isfinite(values).all() or (tensor.dtype == "f16" and not np.isfinite(piece).all()):
            raise ModelError(
                f"the values of {tensor.name} do not fit {tensor.dtype}",
                f"the largest is {np.abs(values).max():g}",
                "export as bf16, which has the range of fp32; if that also fails, the weights are damaged",
            )
        yield piece


def _add_info(writer: GGUFWriter, tensor: Tensor) -> int:
    """Add the tensor to the file's header; return its size in bytes."""
    import numpy as np
    from gguf import GGML_QUANT_SIZES

    kind = _quantization(tensor.dtype)
    block, block_bytes = GGML_QUANT_SIZES[kind]
    num_bytes: int = int(np.prod(tensor.shape)) // block * block_bytes
    writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), num_bytes, raw_dtype=kind)
    return num_bytes


def _add_field(writer: GGUFWriter, name: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(name, value)
    elif isinstance(value, int):
        writer.add_uint32(name, value)
    elif isinstance(value, float):
        writer.add_float32(name, value)
    elif isinstance(value, str):
        writer.add_string(name, value)
    else:
        writer.add_array(name, value)


def _quantization(dtype: str) -> Any:
    """Return the gguf package's constant for the type."""
    from gguf import GGMLQuantizationType

    return GGMLQuantizationType[dtype.upper()]


def file_type(dtype: str) -> int:
    """Return llama.cpp's code for a file whose matrices are mostly of that type.

    Raises:
        ModelError: an unknown type.
    """
    if dtype not in DTYPES:
        raise ModelError(f"GGUF type {dtype!r} is not supported", "", f"choose a type: {', '.join(DTYPES)}")
    return DTYPES[dtype].file_type


@dataclass(frozen=True)
class NumberType:
    """A type of number: llama.cpp's code for a file that is mostly of it, and the bits of a weight."""

    file_type: int
    bits: float


DTYPES: Mapping[str, NumberType] = {
    "f16": NumberType(1, 16.0),
    "q8_0": NumberType(7, 8.5),
    "q4_0": NumberType(2, 4.5),
    "q4_k_m": NumberType(15, 4.9),
    "q5_k_m": NumberType(17, 5.7),
    "q6_k": NumberType(18, 6.6),
    "bf16": NumberType(32, 16.0),
    "f32": NumberType(0, 32.0),
}
