"""Vectors of texts from the student's token vectors, and the pairs that are near: a million take little memory."""

from __future__ import annotations

import math
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from tunewright.models.tensors import Matrix, TokenVectors

_SMOOTHING = 1e-3  # a of SIF, as its authors have it
_LARGEST_FIT = 20_000  # texts from which the common direction is taken
_BITS = 16  # of a bucket's key
_MOST_TABLES = 48
_MISSED = 1e-3  # share of the pairs at the threshold that may be missed
_NEIGHBORS = 24  # compared with each text in its bucket: keeps the cost linear in a crowd
_BLOCK = 20_000  # pairs or texts computed at once
_FEW = 2_000  # rows that pass through memory several times, computed at once: they fit a processor's cache
_SKETCH = 16  # numbers of a row that bound its cosines
_ROUNDING = 1e-4  # of a bound
_MOST_IN_MEMORY = 256 * 2**20  # bytes of the tokens, or of a matrix of vectors


class SifVectors:
    """A unit vector per text: smooth inverse frequency, the common direction removed; computed where it is used.

    Arora, Liang & Ma 2017, "A simple but tough-to-beat baseline for sentence embeddings": the mean of the token vectors
    weighted a / (a + p(token)), minus its projection on the first singular vector of all. p is the tokens' share in
    these texts. A text without tokens gets the zero vector. Stored are the tokens alone, of many texts in a file.

    Raises:
        OSError: there is no room for the file.
    """

    def __init__(self, texts: Iterable[str], vectors: TokenVectors) -> None:
        self._table = vectors.table
        self._file = tempfile.SpooledTemporaryFile(_MOST_IN_MEMORY)  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        counts = np.zeros(len(self._table), dtype=np.int64)
        lengths = [np.zeros(1, dtype=np.int64)]
        following = iter(texts)
        while block := list(islice(following, _BLOCK)):
            tokens = list(vectors.tokens(block))
            flat = np.concatenate(tokens)
            counts += np.bincount(flat, minlength=len(counts))
            self._file.write(flat.tobytes())
            lengths.append(np.array([len(ids) for ids in tokens], dtype=np.int64))
        self._ends = np.cumsum(np.concatenate(lengths))
        self._weight = (_SMOOTHING / (_SMOOTHING + counts / max(1, counts.sum()))).astype(np.float32)
        self._common = self._common_direction()

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, at: slice) -> Matrix:
        """Return the vectors of texts in a row, [num_texts, width], float32."""
        numbers = range(len(self))[at]
        rows = np.empty((len(numbers), self._table.shape[1]), dtype=np.float32)
        for start in range(0, len(numbers), _FEW):
            piece = self._means(numbers[start : start + _FEW])
            piece -= (piece @ self._common)[:, None] * self._common
            length = np.linalg.norm(piece, axis=1, keepdims=True)
            rows[start : start + _FEW] = piece / np.where(length > 1e-9, length, np.inf)
        return rows

    def _means(self, numbers: range) -> Matrix:
        """Return the weighted mean of the token vectors of each of these texts."""
        from scipy.sparse import csr_matrix

        tokens = [self._tokens(numbers)] if numbers.step == 1 else [self._tokens(range(n, n + 1)) for n in numbers]
        num_tokens = self._ends[1:][numbers] - self._ends[:-1][numbers]
        flat, pointers = np.concatenate(tokens), np.concatenate([[0], np.cumsum(num_tokens)])
        bags = csr_matrix((self._weight[flat], flat, pointers), shape=(len(numbers), len(self._table)))
        means: Matrix = bags @ self._table
        means /= np.maximum(num_tokens, 1)[:, None].astype(np.float32)
        return means

    def _tokens(self, numbers: range) -> Matrix:
        start, end = self._ends[numbers.start], self._ends[numbers.stop]
        self._file.seek(int(start) * 4)
        return np.frombuffer(self._file.read(int(end - start) * 4), dtype=np.int32)

    def _common_direction(self) -> Matrix:
        """Return the first right singular vector of the means, or of an even sample of them; of a single one, zero."""
        width = self._table.shape[1]
        if len(self) < 2:
            return np.zeros(width, dtype=np.float32)
        from scipy.sparse.linalg import eigsh

        rows = self._means(range(0, len(self), math.ceil(len(self) / _LARGEST_FIT)))
        products = (rows.T @ rows).astype(np.float64)
        if not products.any():
            return np.zeros(width, dtype=np.float32)
        direction: Matrix = eigsh(products, k=1, v0=np.ones(width))[1][:, 0].astype(np.float32)
        return direction


class StoredRows:
    """Rows of vectors in a file that is read as they are used: the pages of a mapped one would count as memory.

    Raises:
        OSError: there is no room for the file.
    """

    def __init__(self, vectors: SifVectors) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._num_rows = len(vectors)
        for start in range(0, len(vectors), _FEW):
            piece = vectors[start : start + _FEW]
            self._width = piece.shape[1]
            self._file.write(piece.data)

    def __len__(self) -> int:
        return self._num_rows

    def __getitem__(self, at: slice | Matrix) -> Matrix:
        """Return the rows of a slice, or those with these numbers."""
        num_bytes = self._width * 4
        if isinstance(at, slice):
            numbers = range(len(self))[at]
            self._file.seek(numbers.start * num_bytes)
            content = self._file.read(len(numbers) * num_bytes)
        else:
            content = b"".join(map(self._row, at.tolist()))
        return np.frombuffer(content, dtype=np.float32).reshape(-1, self._width)

    def _row(self, number: int) -> bytes:
        self._file.seek(number * self._width * 4)
        return self._file.read(self._width * 4)


Rows = Matrix | StoredRows


def sif_vectors(texts: Iterable[str], vectors: TokenVectors) -> Rows:
    """Return the rows of ``SifVectors``; many of them lie in a file.

    Raises:
        OSError: there is no room for the file.
    """
    computed = SifVectors(texts, vectors)
    return computed[:] if len(computed) * vectors.table[0].nbytes <= _MOST_IN_MEMORY else StoredRows(computed)


def near_pairs(rows: Rows, groups: Sequence[int], threshold: float) -> Iterator[tuple[int, int]]:
    """Yield the pairs (earlier, later) of a group whose cosine reaches the threshold, by later and earlier.

    Random hyperplanes find candidates (Charikar 2002): two vectors at an angle t fall on the same side of one with
    probability 1 - t / pi. There are as many tables as miss one in a thousand at the threshold, 48 at most. In a
    bucket, a vector is compared with the 24 before it. So the cost grows with the number of texts and not with its
    square.

    Args:
        rows: unit vectors, [num_texts, width].
        groups: of each row.
        threshold: the lowest cosine.
    """
    if not len(rows):
        return
    same_side = (1 - math.acos(min(1.0, threshold)) / math.pi) ** _BITS
    num_tables = min(_MOST_TABLES, math.ceil(math.log(_MISSED) / math.log1p(-min(same_side, 1 - 1e-9))))
    draw = np.random.default_rng(0)
    group = np.asarray(groups, dtype=np.int64) << _BITS
    codes = np.empty(0, dtype=np.int64)
    first = rows[:_FEW]
    planes = np.hstack([draw.standard_normal((first.shape[1], _BITS), dtype=np.float32) for _ in range(num_tables)])
    sides = np.empty((num_tables, len(rows)), dtype="<u2")
    sketches = _Sketches(first, len(rows))
    for start in range(0, len(rows), _FEW):
        piece = rows[start : start + _FEW]
        sketches.add(start, piece)
        packed = np.packbits(piece @ planes > 0, axis=1, bitorder="little")
        sides[:, start : start + _FEW] = packed.view(sides.dtype).T
    for side in sides:
        codes = np.union1d(codes, _neighbors(group | side, rows, sketches, threshold))
    num = len(rows)
    yield from ((int(code % num), int(code // num)) for code in codes)


class _Sketches:
    """What bounds a cosine from above: the rows in their 16 main directions, and the length of the rest.

    By Cauchy and Schwarz, the rests add at most the product of their lengths. So most pairs need not be read.

    Args:
        first: rows that show the main directions.
        num_rows: of all rows.
    """

    def __init__(self, first: Matrix, num_rows: int) -> None:
        from scipy.sparse.linalg import eigsh

        width = first.shape[1]
        products = (first.T @ first).astype(np.float64) + 1e-9 * np.eye(width)  # zero vectors have no directions
        directions = eigsh(products, k=min(_SKETCH, width - 1), v0=np.ones(width))[1]
        self._basis = directions.astype(np.float32)
        self._main = np.empty((num_rows, self._basis.shape[1]), dtype=np.float32)
        self._rest = np.empty(num_rows, dtype=np.float32)

    def add(self, start: int, piece: Matrix) -> None:
        """Sketch the rows from a number on."""
        main = piece @ self._basis
        squares = np.einsum("ij,ij->i", piece, piece) - np.einsum("ij,ij->i", main, main)
        self._main[start : start + len(piece)] = main
        self._rest[start : start + len(piece)] = np.sqrt(np.maximum(squares, 0) + _ROUNDING**2)

    def bounds(self, earlier: Matrix, later: Matrix) -> Matrix:
        """Return what the cosine of each pair does not exceed."""
        bounds: Matrix = np.einsum("ij,ij->i", self._main[earlier], self._main[later])
        bounds += self._rest[earlier] * self._rest[later] + np.float32(_ROUNDING)
        return bounds


def _neighbors(keys: Matrix, rows: Rows, sketches: _Sketches, threshold: float) -> Matrix:
    """Return the near pairs of one table, as later * num_rows + earlier."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    codes: list[Any] = [np.empty(0, dtype=np.int64)]
    for distance in range(1, _NEIGHBORS + 1):
        at = np.flatnonzero(ordered[distance:] == ordered[:-distance])
        if not at.size:
            break
        for start in range(0, len(at), _BLOCK):
            earlier, later = order[at[start : start + _BLOCK]], order[at[start : start + _BLOCK] + distance]
            may_be_near = sketches.bounds(earlier, later) >= threshold
            earlier, later = earlier[may_be_near], later[may_be_near]
            for few in range(0, len(earlier), _FEW):
                first, second = earlier[few : few + _FEW], later[few : few + _FEW]
                near = np.einsum("ij,ij->i", rows[first], rows[second]) >= threshold
                codes.append(second[near].astype(np.int64) * len(rows) + first[near])
    return np.concatenate(codes)
