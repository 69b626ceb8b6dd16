"""A stand-in that draws no page: its picture is the path of the file and the page's index."""

from __future__ import annotations

from typing import Any


class _Page:
    def __init__(self, path: str, index: int) -> None:
        self._picture = (path, index)

    def get_size(self) -> tuple[float, float]:
        return 612.0, 792.0

    def render(self, scale: float) -> Any:
        assert 2.7 < scale < 2.8  # 200 dpi
        return self

    def to_numpy(self) -> tuple[str, int]:
        return self._picture


class PdfDocument:
    def __init__(self, path: str) -> None:
        self._path = path

    def __getitem__(self, index: int) -> _Page:
        return _Page(self._path, index)

    def close(self) -> None:
        pass
