"""A limit of time in a test, for what could wait for ever."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class WaitsForEverError(BaseException):
    """No reader takes it for an error of a file."""


@contextmanager
def no_longer_than(seconds: int) -> Iterator[None]:
    """Raise WaitsForEverError in the block instead of waiting for ever."""

    def stop(number: int, frame: object) -> None:
        raise WaitsForEverError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
