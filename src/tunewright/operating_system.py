"""What operating systems do differently: locks, limits of child processes, signals, folders flushed to disk.

Linux is the system on which tunewright is run and tested. The branches for macOS and Windows are run by tests against
stand-ins of what those systems offer, not on them.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Protocol


class _HasNumber(Protocol):
    def fileno(self) -> int: ...


def _module_if_any(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        return None


LINUX, WINDOWS = sys.platform == "linux", os.name == "nt"
fcntl, resource, msvcrt = map(_module_if_any, ("fcntl", "resource", "msvcrt"))

_LOCKED_BYTE = 0x7FFFFFF0  # of a file on Windows, where the locked bytes themselves cannot be read
_PAUSE_S = 0.05
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)
_SYNCHRONIZE, _FOREVER = 0x00100000, 0xFFFFFFFF  # of OpenProcess and WaitForSingleObject
_NEW_PROCESS_GROUP = 0x00000200  # CREATE_NEW_PROCESS_GROUP
KILL: int = getattr(signal, "SIGKILL", signal.SIGTERM)


def lock(file: _HasNumber, wait: bool = True, shared: bool = False) -> None:
    """Hold an open file against other processes until it is closed.

    Args:
        file: open for writing, or for reading where the lock is shared.
        wait: until nobody else holds it.
        shared: with others that share it; on Windows every lock is exclusive.

    Raises:
        BlockingIOError: without ``wait``, somebody else holds it.
    """
    if fcntl is not None:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        return
    number = file.fileno()
    before = os.lseek(number, 0, os.SEEK_CUR)
    try:
        while True:
            os.lseek(number, _LOCKED_BYTE, os.SEEK_SET)
            try:
                msvcrt.locking(number, msvcrt.LK_NBLCK, 1)
                return
            except OSError as error:
                if not wait:
                    raise BlockingIOError(error.errno, "another process holds it") from error
            time.sleep(_PAUSE_S)
    finally:
        os.lseek(number, before, os.SEEK_SET)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk; on Windows, whose file system journals them, a folder cannot be opened."""
    if WINDOWS:
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def wait_readable(stream: IO[bytes], timeout_s: float) -> bool:
    """Return whether a pipe has something to read, or has ended, within that time."""
    if not WINDOWS:
        import selectors

        with selectors.DefaultSelector() as selector:
            selector.register(stream, selectors.EVENT_READ)
            return bool(selector.select(max(0.0, timeout_s)))
    # There, only sockets can be waited for: look into the pipe until there is something.
    deadline, available = time.monotonic() + timeout_s, ctypes.c_ulong(0)
    while True:
        handle = msvcrt.get_osfhandle(stream.fileno())
        is_open = _kernel().PeekNamedPipe(handle, None, 0, None, ctypes.byref(available), None)
        if not is_open or available.value:
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(min(_PAUSE_S, timeout_s))


def num_usable_cpus() -> int:
    """Return the number of logical processors that this process may use."""
    return len(usable_cpus()) or os.cpu_count() or 1


def usable_cpus() -> list[int]:
    """Return the logical processors that this process may use; empty where the system does not say."""
    affinity = getattr(os, "sched_getaffinity", None)
    return sorted(affinity(0)) if affinity else []


def _kernel() -> Any:
    return vars(ctypes)["windll"].kernel32


def end_with_parent(parent: int, number: int = KILL) -> None:
    """End this process when its parent ends, however that ends.

    Args:
        parent: the parent's process number, as the parent knows it.
        number: the signal with which Linux ends this process; elsewhere it exits.
    """
    if LINUX:
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, number, 0, 0, 0)
        if os.getppid() != parent:  # it ended before the line above
            os._exit(0)
        return
    threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _exit_after(parent: int) -> None:
    """Wait until the parent has ended, then exit."""
    if WINDOWS:
        handle = _kernel().OpenProcess(_SYNCHRONIZE, False, parent)
        if handle:  # 0: it has ended already
            _kernel().WaitForSingleObject(handle, _FOREVER)
    else:
        while os.getppid() == parent:
            time.sleep(_PAUSE_S)
    os._exit(0)


def replace_process(words: Sequence[str]) -> None:
    """Become another program that ends with this process's parent; never returns."""
    if LINUX:  # where the wish to end with the parent outlives the change of the program
        os.execvp(words[0], list(words))
    sys.exit(subprocess.call(list(words)))


def confine(memory_bytes: int, parent: int) -> None:
    """Limit this process's memory beyond its present use, forbid core dumps, and end it with its parent.

    Linux limits the memory; macOS takes the limit and does not keep it, and Windows has none of the kind. There, the
    parent's limits of time and of the reply's size are what holds.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    if resource is not None:
        _lower_limit(resource.RLIMIT_CORE, 0)
    if LINUX:
        _lower_limit(resource.RLIMIT_AS, memory_bytes + _used_bytes())
    end_with_parent(parent)


def _used_bytes() -> int:
    """Return the size of this process's address space; 0 if the system does not report it."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * int(resource.getpagesize())
    except OSError:
        return 0


def _lower_limit(kind: int, limit: int) -> None:
    ceiling = resource.getrlimit(kind)[1]
    if ceiling != resource.RLIM_INFINITY:
        limit = min(limit, ceiling)
    resource.setrlimit(kind, (limit, limit))


def limit_cpu(seconds: float) -> None:
    """Have the system end this process after so much processor time from now; 0 takes the limit away.

    Windows has no such timer: there, the parent's limit of time is what holds.
    """
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


def ended_by_cpu_limit(exit_code: int) -> bool:
    """Return whether a process ended by ``limit_cpu``."""
    return hasattr(signal, "SIGPROF") and exit_code == -signal.SIGPROF


def end_in_words(exit_code: int) -> str:
    """Return how a process ended: "ended by SIGKILL", "ended with exit code 1"."""
    with suppress(ValueError):
        if exit_code < 0:
            return f"ended by {signal.Signals(-exit_code).name}"
    return f"ended with exit code {exit_code}"


def own_session() -> dict[str, Any]:
    """Return the options that start a child apart from this terminal: its Ctrl-C does not reach the child."""
    return {"creationflags": _NEW_PROCESS_GROUP} if WINDOWS else {"start_new_session": True}


def interrupt(child: int) -> None:
    """Send Ctrl-C to a child of a session of its own, and to all that it started; nothing if it has ended."""
    with suppress(ProcessLookupError, PermissionError):
        if WINDOWS:
            os.kill(child, vars(signal)["CTRL_BREAK_EVENT"])
        else:
            os.killpg(child, signal.SIGINT)


def end_session(child: subprocess.Popen[Any], patience_s: float) -> None:
    """End a child of a session of its own, and all that it started: at once where it does not listen in time."""
    for number in (signal.SIGTERM, KILL):
        try:
            if WINDOWS:
                child.terminate()
            else:
                os.killpg(child.pid, number)
            child.wait(patience_s)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
    child.wait()


def set_non_blocking(number: int) -> None:
    """Let a write to a pipe fail where it would have to wait; Windows has no such pipes before Python 3.12."""
    if hasattr(os, "set_blocking"):
        os.set_blocking(number, False)
