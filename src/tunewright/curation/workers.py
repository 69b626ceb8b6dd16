"""Work on many samples, shared among forked processes: the same results in the same order, whatever their number."""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from tunewright import operating_system
from tunewright.errors import StageError

Result = TypeVar("Result")

_MOST_WORKERS = 4  # more would wait for the process that reads their results
_CHUNK = 100  # items: their results nearly fit a pipe, so that a worker need not wait for its reader
_FEW = 4_000  # items that are done before workers have started


def num_workers() -> int:
    """Return how many processes share the work: one per core, four at most; one where forking is not safe."""
    return min(_MOST_WORKERS, operating_system.num_usable_cpus()) if operating_system.LINUX else 1


def in_order(work: Callable[[int], Result], num_items: int) -> Iterator[Result]:
    """Yield ``work(0)``, ``work(1)`` and so on; where there are many, worker processes compute them.

    Each of n workers takes every n-th chunk, and waits until its results are read: so memory is bounded and the order
    fixed. Workers are forked: they read what this process holds without a copy. ``work`` must not depend on what it has
    changed itself, and must not use libraries with threads of their own. The workers end with the iteration.

    Raises:
        StageError: a worker was ended from outside.
        MemoryError, OSError: as ``work`` raised them.
        RuntimeError: any other error of ``work`` in a worker, with its traceback.
    """
    number = num_workers()
    if number < 2 or num_items <= _FEW:
        yield from map(work, range(num_items))
        return
    chunks = [range(start, min(start + _CHUNK, num_items)) for start in range(0, num_items, _CHUNK)]
    with ExitStack() as running:
        pipes: list[Connection] = []
        workers = [running.enter_context(_worker(work, chunks[first::number], pipes)) for first in range(number)]
        for index in range(len(chunks)):
            yield from _results(workers[index % number], pipes[index % number])


def _results(worker: Any, pipe: Connection) -> Sequence[Any]:
    """Return what a worker made of its next chunk."""
    try:
        results: Sequence[Any] | str | Exception = pipe.recv()
    except (EOFError, ConnectionError):
        worker.join()
        raise StageError(
            "a process that judges samples did not finish",
            operating_system.end_in_words(worker.exitcode),
            "free some memory, and run again",
        ) from None
    if isinstance(results, Exception):
        raise results
    if isinstance(results, str):
        raise RuntimeError(f"a process that judges samples failed:\n{results}")
    return results


@contextmanager
def _worker(work: Callable[[int], Any], chunks: Sequence[range], pipes: list[Connection]) -> Iterator[Any]:
    """Yield a worker, which is ended afterwards; its pipe is added to the others, none of which it keeps open."""
    pipe, own = multiprocessing.Pipe(duplex=False)
    pipes.append(pipe)
    arguments = (work, chunks, own, list(pipes), os.getpid())
    process = multiprocessing.get_context("fork").Process(target=_compute, args=arguments, daemon=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, whose locks the worker does not take
        process.start()
    own.close()
    try:
        yield process
    finally:
        process.kill()
        process.join()
        pipe.close()


def _compute(
    work: Callable[[int], Any], chunks: Sequence[range], own: Connection, others: Sequence[Connection], parent: int
) -> None:
    """Send the results of each chunk, in the worker; or an error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    operating_system.end_with_parent(parent)
    for pipe in others:
        pipe.close()
    try:
        for chunk in chunks:
            own.send(list(map(work, chunk)))
    except BrokenPipeError:
        pass  # the parent needs no more
    except (MemoryError, OSError) as error:
        own.send(error)
    except Exception:
        own.send(traceback.format_exc())
    os._exit(0)  # what the parent has registered for its own end is not the worker's to do
