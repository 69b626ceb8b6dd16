"""Causal attention within each sequence of a packed row, by the fastest means that the hardware has."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Segments:
    """Where the sequences of a packed row lie: their lengths, and their borders [s + 1] on the device."""

    lengths: tuple[int, ...]
    borders: Any

    @property
    def same(self) -> bool:
        """Whether all sequences are equally long."""
        return len(set(self.lengths)) == 1


def segments_of(lengths: Sequence[int], device: Any) -> Segments:
    """Return the segments of sequences of these lengths."""
    borders = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    return Segments(tuple(lengths), borders.to(device, non_blocking=True))


def attend(query: Any, key: Any, value: Any, segments: Segments) -> Any:
    """Return causal attention [T, heads, size] of queries [T, heads, size] on keys and values [T, key heads, size].

    Equally long sequences go through cuDNN's kernel, others through a kernel for several lengths; where that is
    missing (a CPU, a GPU before Ampere), sequences of each length are computed together.
    """
    # cuDNN plans anew for every length that it meets: leave to it those that come again.
    if segments.same and (not query.is_cuda or segments.lengths[0] % 256 == 0):
        return _batched(query, key, value, len(segments.lengths))
    if query.is_cuda and _varlen() is not None and _is_ampere(query.device) and query.element_size() == 2:
        longest = max(segments.lengths)
        return _varlen()(query, key, value, segments.borders, segments.borders, longest, longest)
    return _by_length(query, key, value, segments)


def _batched(query: Any, key: Any, value: Any, count: int) -> Any:
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


def _by_length(query: Any, key: Any, value: Any, segments: Segments) -> Any:
    """Attend in all sequences of one length at a time."""
    places: dict[int, list[int]] = {}
    start = 0
    for length in segments.lengths:
        places.setdefault(length, []).extend(range(start, start + length))
        start += length
    parts = []
    for length, rows in places.items():
        chosen = torch.tensor(rows, device=query.device)
        parts.append(_batched(query[chosen], key[chosen], value[chosen], len(rows) // length))
    order = torch.tensor([row for rows in places.values() for row in rows], device=query.device)
    return torch.cat(parts)[order.argsort()]


@functools.cache
def _varlen() -> Any:
    """Return torch's attention over several lengths as a causal one, or None in a torch that has none."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    known = inspect.signature(varlen_attn).parameters
    causal: dict[str, Any] = {"is_causal": True} if "is_causal" in known else {"window_size": (-1, 0)}
    if "enable_gqa" in known:
        causal["enable_gqa"] = True
    return functools.partial(varlen_attn, **causal)


@functools.cache
def _is_ampere(device: Any) -> bool:
    return bool(torch.cuda.get_device_capability(device) >= (8, 0))
