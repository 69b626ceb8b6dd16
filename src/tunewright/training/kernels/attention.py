"""Causal attention within each sequence of a packed row, by the fastest kernel that the hardware has."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_MAX_SCORES = 2**25  # softly capped scores in memory at once; several copies of them live
_STEP = 128  # tokens: softly capped attention pads sequences to multiples of it


@dataclass(frozen=True)
class Scores:
    """How attention computes its scores from products of queries and keys.

    Attributes:
        scale: factor of the products; 0 takes 1/√size.
        window: how many tokens a token sees, itself included; 0 for all before it.
        softcap: c of c · tanh(score / c) (Gemma 2); 0 without.
    """

    scale: float = 0.0
    window: int = 0
    softcap: float = 0.0


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


def attend(query: Tensor, key: Tensor, value: Tensor, segments: Segments, scores: Scores | None = None) -> Tensor:
    """Return causal attention within each sequence.

    Equally long sequences go through cuDNN's kernel, others through a kernel for mixed lengths. Without these kernels
    (a CPU, a GPU before Ampere), the sequences of each length are computed together. Softly capped scores have no
    kernel in torch: they are computed by plain products, of sequences of similar lengths together.

    Args:
        query: [T, heads, size].
        key: [T, key heads, size].
        value: [T, key heads, size].
        segments: the sequences that make up the T tokens.
        scores: how scores are computed.

    Returns:
        [T, heads, size].
    """
    scores = scores or Scores()
    longest, size = max(segments.lengths), query.shape[-1]
    scale = scores.scale or size**-0.5
    window = scores.window if scores.window < longest else 0
    fast = query.is_cuda and _is_ampere(query.device) and query.element_size() == 2 and size % 8 == 0 and size <= 256
    # cuDNN makes a new plan for each new length: leave it only the lengths that recur.
    if scores.softcap:
        return _capped(query, key, value, segments, Scores(scale, window, scores.softcap))
    if segments.same and not window and (not query.is_cuda or segments.lengths[0] % 256 == 0):
        return _batched(query, key, value, len(segments.lengths), scale)
    if fast and _varlen() is not None and (not window or _varlen().has_windows):
        return _varlen()(query, key, value, segments, longest, scale, window)
    return _by_length(query, key, value, segments, Scores(scale, window))


def _batched(query: Tensor, key: Tensor, value: Tensor, count: int, scale: float, mask: Tensor = None) -> Tensor:
    """Attend in ``count`` equally long sequences; a ``mask`` [length, length] says which tokens each one sees."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    query, key, value, grouped = _separated(query, key, value, count)
    order = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    with sdpa_kernel(order, set_priority=True):
        out = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=grouped
        )
    return out.transpose(1, 2).flatten(0, 1)


def _separated(query: Tensor, key: Tensor, value: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor, bool]:
    """Return them as [count, heads, length, size], and whether several query heads share a key head."""
    length = len(query) // count
    query, key, value = (part.unflatten(0, (count, length)).transpose(1, 2) for part in (query, key, value))
    grouped = query.shape[1] != key.shape[1]
    if grouped and query.is_cuda and not _is_ampere(query.device):  # the kernels there take no grouped heads
        times = query.shape[1] // key.shape[1]
        return query, key.repeat_interleave(times, 1), value.repeat_interleave(times, 1), False
    return query, key, value, grouped


def _capped(query: Tensor, key: Tensor, value: Tensor, segments: Segments, scores: Scores) -> Tensor:
    """Attend with softly capped scores, by plain products; shorter sequences are padded to multiples of 128 tokens.

    The scores of a few sequences at a time are in memory, and are computed again in the backward pass.
    """
    from torch.utils.checkpoint import checkpoint

    pieces, order = _capped_pieces(segments.lengths, query.shape[1], query.device)
    parts = []
    for rows, inside in pieces:
        own = (part[rows].transpose(1, 2) for part in (query, key, value))
        mask = _seen(rows.shape[1], scores.window, query.device)
        result = checkpoint(_capped_batch, *own, scores, mask, use_reentrant=False, preserve_rng_state=False)
        parts.append(result.transpose(1, 2).flatten(0, 1)[inside])
    return torch.cat(parts)[order]


@functools.lru_cache(maxsize=4)  # the layers of a row ask for the same
def _capped_pieces(
    lengths: tuple[int, ...], heads: int, device: torch.device
) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
    """Return sequences of similar lengths in pieces of few enough scores, and the order that undoes it.

    Returns:
        For each piece its tokens, [count, longest], and which of them, counted one by one, are no padding; and for
        each token of the row where the pieces one behind the other hold it, [T].
    """
    groups: dict[int, list[tuple[int, int]]] = {}
    start = 0
    for length in lengths:
        groups.setdefault(-(-length // _STEP) * _STEP, []).append((start, length))
        start += length
    pieces, all_rows = [], []
    for members in groups.values():
        longest = max(length for _, length in members)
        most = max(1, _MAX_SCORES // (heads * longest**2))
        for first in range(0, len(members), most):
            starts, sizes = torch.tensor(members[first : first + most]).t()[:, :, None]
            at = torch.arange(longest)
            # Behind its end, a sequence repeats its last token, which no earlier one sees.
            rows, inside = starts + torch.minimum(at, sizes - 1), (at < sizes).flatten().nonzero()[:, 0]
            all_rows.append(rows.flatten()[inside])
            pieces.append((rows.to(device, non_blocking=True), inside.to(device, non_blocking=True)))
    return pieces, torch.cat(all_rows).argsort().to(device, non_blocking=True)


def _capped_batch(query: Tensor, key: Tensor, value: Tensor, scores: Scores, mask: Tensor) -> Tensor:
    """Attend in equally long sequences, [count, heads, length, size]."""
    groups = (key.shape[1], query.shape[1] // key.shape[1])
    products = (query.unflatten(1, groups) @ key[:, :, None].transpose(-1, -2)).float()
    values = scores.softcap * (products * (scores.scale / scores.softcap)).tanh()
    weights = values.masked_fill(~mask, float("-inf")).softmax(-1).to(value.dtype)
    return (weights @ value[:, :, None]).flatten(1, 2)


def _seen(length: int, window: int, device: torch.device) -> Tensor:
    """Return which tokens each token of a sequence sees: [length, length], bool."""
    at = torch.arange(length, device=device)
    distance = at[:, None] - at[None, :]
    return (distance >= 0) & (distance < (window or length))


def _by_length(query: Tensor, key: Tensor, value: Tensor, segments: Segments, scores: Scores) -> Tensor:
    """Attend in all sequences of one length at a time."""
    rows_by_length: dict[int, list[int]] = {}
    start = 0
    for length in segments.lengths:
        rows_by_length.setdefault(length, []).extend(range(start, start + length))
        start += length
    parts = []
    for length, rows in rows_by_length.items():
        chosen = torch.tensor(rows, device=query.device)
        own = query[chosen], key[chosen], value[chosen], len(rows) // length
        windowed = 0 < scores.window < length
        parts.append(_batched(*own, scores.scale, _seen(length, scores.window, query.device) if windowed else None))
    order = torch.tensor([row for rows in rows_by_length.values() for row in rows], device=query.device)
    return torch.cat(parts)[order.argsort()]


@dataclass(frozen=True)
class _Varlen:
    """torch's attention over mixed lengths; its settings differ between versions of torch."""

    function: Callable[..., Tensor]
    parameters: frozenset[str]

    @property
    def has_windows(self) -> bool:
        return "window_size" in self.parameters

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, segments: Segments, longest: int, scale: float, window: int
    ) -> Tensor:
        more: dict[str, Any] = {"enable_gqa": True} if "enable_gqa" in self.parameters else {}
        if self.has_windows:
            more["window_size"] = (window - 1, 0)  # without a window: (-1, 0), causal
        else:
            more["is_causal"] = True
        if "scale" in self.parameters:
            more["scale"] = scale
        elif scale != query.shape[-1] ** -0.5:
            query = query * (scale * query.shape[-1] ** 0.5)
        borders = segments.borders
        return self.function(query, key, value, borders, borders, longest, longest, **more)


@functools.cache
def _varlen() -> Any:
    """Return torch's attention over mixed lengths; None in a version of torch without it."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return _Varlen(varlen_attn, frozenset(inspect.signature(varlen_attn).parameters))


@functools.cache
def _is_ampere(device: torch.device) -> bool:
    return bool(torch.cuda.get_device_capability(device) >= (8, 0))
