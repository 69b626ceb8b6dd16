"""Text recognition (OCR) of scanned pages: an extra, page by page in a capped child process of its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from pydantic import ValidationError

from tunewright.errors import StageError
from tunewright.models.capped_process import CappedProcess, ProcessEndedError
from tunewright.records import Record

INSTALL = "pip install 'tunewright[ocr]'"
_PARTS = ("rapidocr", "onnxruntime", "pypdfium2")
_TIMEOUT_S = 120.0  # for a page; the first one loads the models
_MEMORY_MB = 4096  # of addresses: the runtime reserves far more than it uses


class RecognizedPage(Record):
    """The text of a scanned page.

    Attributes:
        lines: in reading order.
        confidence: of the recognition, in [0, 1]: the mean over the characters.
        fault: why there are no lines, if the recognition failed.
    """

    lines: tuple[str, ...] = ()
    confidence: float = 0.0
    fault: str = ""


def is_available() -> bool:
    """Return whether the extra is installed."""
    return all(find_spec(name) is not None for name in _PARTS)


class Recognizer:
    """Recognizes pages of PDFs; its process starts with the first page and is replaced when a page breaks it."""

    def __init__(self) -> None:
        self._process: CappedProcess | None = None

    def pages(self, file: Path, numbers: Sequence[int]) -> dict[int, RecognizedPage]:
        """Return the recognized pages of a file by their numbers, from 1; those that fail hold their fault."""
        return {number: self._page(file, number) for number in numbers}

    def _page(self, file: Path, number: int) -> RecognizedPage:
        try:
            self._process = self._process or CappedProcess(
                "tunewright.documents.recognition_worker", _MEMORY_MB, "recognizes text"
            )
            line = self._process.ask(json.dumps([str(file.absolute()), number]).encode(), _TIMEOUT_S)
            return RecognizedPage.model_validate_json(line)
        except TimeoutError:
            fault = f"took longer than {_TIMEOUT_S:g} s"
        except MemoryError:
            fault = "too much memory"
        except (ProcessEndedError, ValidationError, StageError) as error:
            fault = str(error)
        self.stop()
        return RecognizedPage(fault=fault)

    def stop(self) -> None:
        """End the process."""
        if self._process:
            self._process.stop()
        self._process = None
