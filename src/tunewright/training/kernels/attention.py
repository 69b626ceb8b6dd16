"""Causal attention within each sequence of a packed row, by the fastest kernel that the hardware has."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Segments:
    """The extents of a packed row's sequences.

    Attributes:
        lengths: tokens of each of the s sequences.
        borders: [s + 1], int32, on the device: where each sequence begins, and where the last ends.
    """

    lengths: tuple[int, ...]
    borders: Tensor

    @property
    def same(self) -> bool:
        """Whether all sequences are equally long."""
        return len(set(self.lengths)) == 1


def segments_of(lengths: Sequence[int], device: torch.device | str) -> Segments:
    """Return the segments of sequences of these lengths."""
    borders = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    return Segments(tuple(lengths), borders.to(device, non_blocking=True))


def attend(query: Tensor, key: Tensor, value: Tensor, segments: Segments) -> Tensor:
    """Return causal attention within each sequence.

    Equally long sequences go through cuDNN's kernel, others through a kernel for mixed lengths. Without that kernel (a
    CPU, a GPU before Ampere), the sequences of each length are computed together.

    Args:
        query: [T, heads, size].
        key: [T, key heads, size].
        value: [T, key heads, size].
        segments: the sequences that make up the T tokens.

    Returns:
        [T, heads, size].
    """
    # cuDNN makes a new plan for each new length: leave it only the lengths that recur.
    if segments.same and (not query.is_cuda or segments.lengths[0] % 256 == 0):
        return _batched(query, key, value, len(segments.lengths))
    if query.is_cuda and _varlen() is not None and _is_ampere(query.device) and query.element_size() == 2:
        longest = max(segments.lengths)
        return _varlen()(query, key, value, segments.borders, segments.borders, longest, longest)
    return _by_length(query, key, value, segments)


def _batched(query: Tensor, key: Tensor, value: Tensor, count: int) -> Tensor:
    """Attend in ``count`` equally long sequences."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    length = len(query) // count
    query, key, value = (part.unflatten(0, (count, length)).transpose(1, 2) for part in (query, key, value))
    grouped = query.shape[1] != key.shape[1]
    if grouped and query.is_cuda and not _is_ampere(query.device):  # the kernels there take no grouped heads
        times = query.shape[1] // key.shape[1]
        key, value, grouped = key.repeat_interleave(times, 1), value.repeat_interleave(times, 1), False
    order = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    with sdpa_kernel(order, set_priority=True):
        out = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=grouped)
    return out.transpose(1, 2).flatten(0, 1)


def _by_length(query: Tensor, key: Tensor, value: Tensor, segments: Segments) -> Tensor:
    """Attend in all sequences of one length at a time."""
    rows_by_length: dict[int, list[int]] = {}
    start = 0
    for length in segments.lengths:
        rows_by_length.setdefault(length, []).extend(range(start, start + length))
        start += length
    parts = []
    for length, rows in rows_by_length.items():
        chosen = torch.tensor(rows, device=query.device)
        parts.append(_batched(query[chosen], key[chosen], value[chosen], len(rows) // length))
    order = torch.tensor([row for rows in rows_by_length.values() for row in rows], device=query.device)
    return torch.cat(parts)[order.argsort()]


@functools.cache
def _varlen() -> Any:
    """Return torch's attention over mixed lengths, made causal; None in a version of torch without it."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    parameters = inspect.signature(varlen_attn).parameters
    causal: dict[str, Any] = {"is_causal": True} if "is_causal" in parameters else {"window_size": (-1, 0)}
    if "enable_gqa" in parameters:
        causal["enable_gqa"] = True
    return functools.partial(varlen_attn, **causal)


@functools.cache
def _is_ampere(device: torch.device) -> bool:
    return bool(torch.cuda.get_device_capability(device) >= (8, 0))
