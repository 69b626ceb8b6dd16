"""Every error that a user can meet: a headline, a cause, and a hint with the next thing to type.

TunewrightError            exit code
├── UserError              1    the user can fix it: recipe, documents, model, run folder
│   ├── RecipeError
│   ├── DocumentError
│   ├── ModelError
│   ├── HubError
│   └── RunFolderError
└── StageError             3    a stage failed; finished work is kept and the run can be resumed
    ├── TeacherError
    ├── TrainingError
    ├── ExportError
    └── DiskFullError
"""

from __future__ import annotations

import errno
import os
import re
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class TunewrightError(Exception):
    """An error with a headline, the cause, and a hint that names the next command or edit.

    ``code`` names the kind of error for programs; codes do not change.
    """

    code = "defect"
    exit_code = 1

    def __init__(self, headline: str, cause: str = "", hint: str = "") -> None:
        super().__init__(headline)
        self.headline = headline
        self.cause = cause
        self.hint = hint

    def __str__(self) -> str:
        parts = [self.headline]
        if self.cause:
            parts.append(f"  {self.cause}")
        if self.hint:
            parts.append(f"  hint: {self.hint}")
        return "\n".join(parts)


class UserError(TunewrightError):
    """Something that the user can fix before running again."""

    code = "user"


class RecipeError(UserError):
    """A recipe that cannot be read, or a setting that is unknown or out of range."""

    code = "recipe"


class DocumentError(UserError):
    """Documents that are missing, empty or unreadable."""

    code = "documents"


class ModelError(UserError):
    """A model that is missing, gated, unreachable or not supported."""

    code = "model"


class HubError(UserError):
    """A push that the hub refuses or cannot accept; files that it already has are not sent again."""

    code = "hub"


class RunFolderError(UserError):
    """A run folder that is in use, damaged or not a run folder."""

    code = "run-folder"


class StageError(TunewrightError):
    """A stage failed part-way; finished work is kept and the same command resumes it."""

    code = "stage"
    exit_code = 3


class TeacherError(StageError):
    """The teacher still refuses, times out or answers nonsense after all retries."""

    code = "teacher"


class TrainingError(StageError):
    """Training stopped: a non-finite loss, a damaged checkpoint, nothing to train on."""

    code = "training"


class ExportError(StageError):
    """An export differs from the evaluated model, or was changed after it was written; an earlier export is kept."""

    code = "export"


class DiskFullError(StageError):
    """A write failed for lack of space; the previous version of the file is untouched."""

    code = "disk-full"


def cause_of(error: BaseException) -> str:
    """Return what an error of a library or the system says, in one line."""
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not {error.encoding.upper()}: the file is damaged, or in another encoding"
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = " ".join(lines[:2]) if lines and lines[0].endswith(":") else "".join(lines[:1])
    if isinstance(error, KeyError | AttributeError | TypeError | IndexError | AssertionError | MemoryError):
        return f"{type(error).__name__}: {first}".rstrip(": ")  # says little without the name
    return first or type(error).__name__


_REMEDIES = {
    errno.ENOSPC: "free some space, then run the same command again: it resumes",
    errno.EDQUOT: "free some of your quota, then run the same command again: it resumes",
    errno.EMFILE: "allow more open files (ulimit -n 4096), then run the same command again",
}


_LACK = re.compile(
    r"out of memory|RESOURCE_EXHAUSTED|can(?:'t|not) allocate memory|failed to allocate|STATUS_ALLOC_FAILED",
    re.IGNORECASE,
)
_OF_THE_MACHINE = re.compile(r"DefaultCPUAllocator|cannot allocate memory", re.IGNORECASE)


def hint_of(error: BaseException, path: object, hint: str) -> str:
    """Return what to type after an error of reading a path: to get another copy helps nothing that may not be read."""
    if isinstance(error, PermissionError) or "Permission denied" in str(error):
        return f"let your user read it: {shell('chmod', '-R', 'u+rX', path)}"
    return hint


def is_lack_of_memory(error: BaseException) -> bool:
    """Return whether the memory of a GPU or of the machine was full, which says nothing of the file that was loaded.

    Libraries say it in many ways: torch by an OutOfMemoryError, by an AcceleratorError of the driver ("CUDA error: out
    of memory") or by a plain RuntimeError; XLA by RESOURCE_EXHAUSTED; the system by ENOMEM. A wrapped error counts. Not
    so Python's own MemoryError, which a file that is too large can cause.
    """
    if type(error).__name__ == "OutOfMemoryError" or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    if isinstance(error, RuntimeError) and _LACK.search(str(error)):
        return True
    return error.__cause__ is not None and is_lack_of_memory(error.__cause__)


def _lack_of_memory(error: BaseException) -> StageError:
    while error.__cause__ is not None and is_lack_of_memory(error.__cause__):
        error = error.__cause__
    if isinstance(error, MemoryError | OSError) or _OF_THE_MACHINE.search(str(error)):
        hint = "close other programs, or take a smaller model or smaller files"
        return StageError("the memory of this machine is used up", cause_of(error) if str(error) else "", hint)
    return StageError(
        "the memory of the GPU is full",
        cause_of(error),
        "see what else uses it (nvidia-smi) and end that; or take a smaller base, --set model.quantization=nf4 or "
        "fewer training.max_tokens; then run the same command again: it resumes",
    )


def trouble(error: BaseException) -> StageError | None:
    """Return what the system says where a file, the disk, a connection or the memory failed: no defect of a program."""
    if isinstance(error, MemoryError) or (not isinstance(error, TunewrightError) and is_lack_of_memory(error)):
        return _lack_of_memory(error)
    if not isinstance(error, OSError) or not (error.errno or isinstance(error, TimeoutError)):
        return None
    name = error.filename if error.filename is not None else ""
    name = os.fsdecode(name) if isinstance(name, str | bytes) else str(name)
    hint = _REMEDIES.get(error.errno or 0, "check that file or folder, its permissions and its disk, then run again")
    return StageError(
        f"cannot use {name}" if name else "the system refuses a file or a connection", cause_of(error), hint
    )


_SPECIAL = {
    stat.S_ISFIFO: "a FIFO (a named pipe)",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
    stat.S_ISSOCK: "a socket",
}


def special_file(path: object) -> str:
    """Return what a path is, in words, where it is neither a file nor a folder: opening it could wait for ever."""
    try:
        mode = Path(str(path)).stat().st_mode
    except (OSError, ValueError):
        return ""  # whoever opens it says what is missing
    return next((f"it is {words}, not a file" for is_kind, words in _SPECIAL.items() if is_kind(mode)), "")


def is_text(value: str) -> bool:
    """Return whether a text can be written as UTF-8: a command line in another encoding, or half an emoji, cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def regular(path: Path) -> Path:
    """Return the path of a file that a user names.

    Raises:
        OSError: it is a FIFO, a device or a socket, whose opening could wait for ever.
    """
    if fault := special_file(path):
        raise OSError(fault)
    return path


@contextmanager
def reading(what: str, path: object, hint: str, kind: type[TunewrightError] = UserError) -> Iterator[None]:
    """Make every error of a block that loads a user's file name this file: whatever it holds, it is no defect of ours.

    Args:
        what: the file is, such as "exam".
        path: of the file or folder.
        hint: the next thing to type.
        kind: of the error. Ours pass unchanged, as does a lack of memory, which says nothing of the file.
    """
    if fault := special_file(path):
        raise kind(f"cannot read the {what} {path}", fault, hint)
    try:
        yield
    except TunewrightError:
        raise
    except Exception as error:
        if is_lack_of_memory(error):
            raise
        raise kind(f"cannot read the {what} {path}", cause_of(error), hint_of(error, path, hint)) from error


def command(*words: object) -> str:
    """Return a tunewright command line, quoted for a shell."""
    return shell("tunewright", *words)


def shell(*words: object) -> str:
    """Return a command line, quoted for a shell."""
    return shlex.join(map(str, words))
