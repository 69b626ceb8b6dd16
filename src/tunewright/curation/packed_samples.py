"""Samples in little memory: packed as JSON one after another, selections of them by number, and texts of them."""

from __future__ import annotations

import os
import tempfile
import weakref
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import overload

from tunewright.records import Sample

_MOST_IN_MEMORY = 32 * 2**20  # bytes
_PIECE = 2**16  # bytes: what is read at once, since samples are mostly read in order


class PackedSamples(Sequence[Sample]):
    """Samples as JSON one after another, decoded where they are read; many lie in a file and take no memory."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._file = tempfile.SpooledTemporaryFile(_MOST_IN_MEMORY)  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._ends = array("Q", [0])
        for sample in samples:
            content = sample.model_dump_json(exclude_defaults=True).encode()
            self._file.write(content)
            self._ends.append(self._ends[-1] + len(content))
        self._file.flush()
        self._start, self._piece = 0, b""

    def _content(self, number: int) -> bytes:
        """Return the JSON of a sample: from the piece that was read last, if that holds it."""
        start, end = self._ends[number], self._ends[number + 1]
        if not self._start <= start <= end <= self._start + len(self._piece):
            self._start, self._piece = start, self._read(start, max(end - start, _PIECE))
        return self._piece[start - self._start : end - self._start]

    def _read(self, start: int, num_bytes: int) -> bytes:
        if self._ends[-1] > _MOST_IN_MEMORY and hasattr(os, "pread"):  # forked processes share the file's position
            return os.pread(self._file.fileno(), num_bytes, start)
        self._file.seek(start)
        return self._file.read(num_bytes)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __iter__(self) -> Iterator[Sample]:
        return map(self.__getitem__, range(len(self)))

    @overload
    def __getitem__(self, at: int) -> Sample: ...
    @overload
    def __getitem__(self, at: slice) -> Selection: ...
    def __getitem__(self, at: int | slice) -> Sample | Selection:
        if isinstance(at, slice):
            return Selection(self, range(len(self))[at])
        number = range(len(self))[at]
        return Sample.model_validate_json(self._content(number))


class Selection(Sequence[Sample]):
    """Some samples of a sequence, in order, without a copy of them.

    Args:
        samples: the sequence.
        numbers: of the chosen samples.
        changed: samples that take the place of those with these numbers.
    """

    _samples: Sequence[Sample]
    _numbers: array[int]
    _changed: dict[int, Sample]

    def __init__(
        self, samples: Sequence[Sample], numbers: Iterable[int], changed: Mapping[int, Sample] | None = None
    ) -> None:
        if isinstance(samples, Selection):
            within = samples._numbers
            changed = {**samples._changed, **{within[number]: new for number, new in (changed or {}).items()}}
            samples, numbers = samples._samples, (within[number] for number in numbers)
        self._samples = samples
        self._numbers = array("I", numbers)
        self._changed = dict(changed or {})

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[Sample]:
        return map(self._sample, self._numbers)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def _sample(self, number: int) -> Sample:
        return self._changed.get(number) or self._samples[number]

    @overload
    def __getitem__(self, at: int) -> Sample: ...
    @overload
    def __getitem__(self, at: slice) -> Selection: ...
    def __getitem__(self, at: int | slice) -> Sample | Selection:
        if isinstance(at, slice):
            return Selection(self, range(len(self))[at])
        return self._sample(self._numbers[at])


class ComputedTexts(Sequence[str]):
    """Texts of samples that are computed where they are used: a million of them take no memory."""

    def __init__(self, text_of: Callable[[int], str], num_texts: int) -> None:
        self._text_of, self._numbers = text_of, range(num_texts)

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        return self._text_of(self._numbers[at]) if isinstance(at, int) else list(map(self._text_of, self._numbers[at]))
