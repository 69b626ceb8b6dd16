"""The child process that reads files: limited in memory, silent, and ended with its parent.

Each line of standard input is ``[path, recognized pages]``, each line of standard output a Reading as JSON. Started by
tunewright.documents.sandbox; see there for its limits.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tunewright.documents.markup import Failure, Reading, single_line
from tunewright.documents.pdf import read_pdf
from tunewright.documents.readers import READERS
from tunewright.documents.recognition import RecognizedPage
from tunewright.errors import DocumentError
from tunewright.models.capped_process import answer_lines

MAX_BYTES = 64 * 2**20  # of a file that is read as one text: it takes up to twelve times as much memory
_IN_PARTS = frozenset({".pdf", ".docx", ".pptx", ".xlsx", ".odt", ".epub"})  # whose readers bound what they unpack
OUT_OF_MEMORY = "too much memory"
CRASHED = "crashed the reader"


def read_file(path: Path, recognized: Mapping[str, Any] = MappingProxyType({})) -> Reading:
    """Return the documents and failures of one file; every error becomes a Failure.

    Args:
        path: of the file.
        recognized: the recognized pages of a PDF, by number, as JSON.
    """
    try:
        num_bytes = path.stat().st_size
        if num_bytes == 0:
            return Reading(failures=(Failure(reason="empty file"),))
        if num_bytes > MAX_BYTES and path.suffix.lower() not in _IN_PARTS:
            return Reading(failures=(Failure(reason="too large", detail=_too_large(num_bytes)),))
        pages = {int(number): RecognizedPage.model_validate(page) for number, page in recognized.items()}
        items = read_pdf(path, pages) if pages else READERS[path.suffix.lower()](path)
        items = items or [Failure(reason="no rows")]
        return Reading(
            documents=tuple(item for item in items if not isinstance(item, Failure)),
            failures=tuple(item for item in items if isinstance(item, Failure)),
        )
    except MemoryError:
        return Reading(failures=(Failure(reason=OUT_OF_MEMORY),))
    except OSError as error:
        return Reading(failures=(Failure(reason="unreadable", detail=error.strerror or str(error)),))
    except DocumentError as error:
        return Reading(failures=(Failure(reason="unreadable", detail=f"{error.headline} ({error.cause})"),))
    except RecursionError:
        return Reading(failures=(Failure(reason="unreadable", detail="nested too deep"),))
    except Exception as error:  # an error in the reader itself must not end the run
        detail = single_line(f"{type(error).__name__}: {error}")[:200]
        return Reading(failures=(Failure(reason=CRASHED, detail=detail),))


def _too_large(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.0f} MB; a text may have {MAX_BYTES / 2**20:.0f} MB: split the file"


def _encode(reading: Reading) -> bytes:
    try:
        return reading.model_dump_json(exclude_defaults=True).encode()
    except MemoryError:
        return _encode(Reading(failures=(Failure(reason=OUT_OF_MEMORY),)))


def _answer(line: bytes) -> bytes:
    path, recognized = json.loads(line)
    return _encode(read_file(Path(path), recognized))


if __name__ == "__main__":
    logging.disable()
    answer_lines(sys.argv[1:], _answer)
