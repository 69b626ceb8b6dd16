"""What systems do differently: every branch here, those of macOS and Windows against stand-ins of what these offer."""

from __future__ import annotations

import ast
import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from support import ROOT
from tunewright import operating_system

SOURCE = ROOT / "src" / "tunewright"
OF_ONE_SYSTEM = {"fcntl", "resource", "msvcrt", "winreg", "pwd", "grp", "termios", "tty", "pty", "ctypes", "selectors"}
CALLS_OF_ONE_SYSTEM = {
    "fork", "forkpty", "killpg", "getpgid", "setsid", "getuid", "geteuid", "set_blocking", "sched_getaffinity", "mkfifo",
    "setitimer", "SIGKILL", "SIGPROF", "SIGHUP", "SIGUSR1", "alarm", "execvp", "O_DIRECTORY", "statvfs",
}  # fmt: skip


class Windows:
    """What the module uses of msvcrt and of kernel32, over Linux's own locks and pipes."""

    LK_NBLCK = 2

    def __init__(self, ended=()):
        self.ended, self.positions = ended, []

    def locking(self, number, mode, size):
        self.positions.append(os.lseek(number, 0, os.SEEK_CUR))
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OSError(13, "Permission denied") from error  # as Windows says it

    def get_osfhandle(self, number):
        return number

    def PeekNamedPipe(self, handle, buffer, size, read, available, left):
        import select

        is_ready = bool(select.select([handle], [], [], 0)[0])
        available._obj.value = int(is_ready)
        return handle not in self.ended

    def OpenProcess(self, rights, inherit, number):
        return 0 if number in self.ended else number

    def WaitForSingleObject(self, handle, milliseconds):
        while Path(f"/proc/{handle}").exists():
            time.sleep(0.01)


@pytest.fixture(params=["Linux", "macOS", "Windows"])
def system(request, monkeypatch):
    """Have the module take the branches of a system; its name."""
    monkeypatch.setattr(operating_system, "LINUX", request.param == "Linux")
    if request.param == "Windows":
        windows = Windows()
        monkeypatch.setattr(operating_system, "WINDOWS", True)
        monkeypatch.setattr(operating_system, "fcntl", None)
        monkeypatch.setattr(operating_system, "resource", None)
        monkeypatch.setattr(operating_system, "msvcrt", windows)
        monkeypatch.setitem(vars(ctypes), "windll", SimpleNamespace(kernel32=windows))
        monkeypatch.setitem(vars(signal), "CTRL_BREAK_EVENT", signal.SIGINT)
        monkeypatch.delattr(os, "sched_getaffinity")
        monkeypatch.delattr(os, "set_blocking")
        monkeypatch.delattr(signal, "setitimer")
        monkeypatch.delattr(signal, "SIGPROF")
    if request.param == "macOS":
        monkeypatch.delattr(os, "sched_getaffinity")
    return request.param


def test_a_lock_keeps_others_out_until_the_file_is_closed(system, tmp_path):
    path = tmp_path / "journal"
    path.write_bytes(b"lines")
    with path.open("r+b") as first, path.open("r+b") as second:
        first.seek(3)
        operating_system.lock(first)
        assert first.tell() == 3  # the reader of the journal is where it was
        with pytest.raises(BlockingIOError):
            operating_system.lock(second, wait=False)
        assert second.read() == b"lines"  # the locked byte is far from what is read
        first.close()
        operating_system.lock(second)  # waits no longer
    if system != "Windows":  # where every lock is exclusive
        with path.open("rb") as first, path.open("rb") as second:
            operating_system.lock(first, shared=True)
            operating_system.lock(second, wait=False, shared=True)


def test_a_folder_is_flushed_where_it_can_be(system, tmp_path):
    operating_system.sync_folder(tmp_path)
    if system == "Windows":
        operating_system.sync_folder(tmp_path / "never opened")
    else:
        with pytest.raises(FileNotFoundError):
            operating_system.sync_folder(tmp_path / "missing")


def test_a_pipe_is_waited_for(system):
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as stream:
        assert not operating_system.wait_readable(stream, 0.02)
        os.write(writer, b"x")
        assert operating_system.wait_readable(stream, 5.0)
        assert os.read(reader, 1) == b"x"
        os.close(writer)
        assert operating_system.wait_readable(stream, 5.0)  # its end is readable too


def test_processors_are_counted(system):
    assert operating_system.num_usable_cpus() >= 1
    assert bool(operating_system.usable_cpus()) == (system == "Linux")


def test_how_a_process_ended_is_put_into_words(system):
    assert operating_system.end_in_words(-9) == "ended by SIGKILL"
    assert operating_system.end_in_words(3) == "ended with exit code 3"
    assert operating_system.end_in_words(-1073741819) == "ended with exit code -1073741819"  # a fault on Windows
    assert operating_system.ended_by_cpu_limit(-27) == (system != "Windows")
    assert not operating_system.ended_by_cpu_limit(0)
    operating_system.limit_cpu(0.0)


def test_a_child_of_its_own_session_is_interrupted_and_ended(system):
    words = [sys.executable, "-c", "import time; print('ready', flush=True); time.sleep(60)"]
    options = operating_system.own_session()
    if system == "Windows":
        assert options == {"creationflags": 0x200}
        options = {"start_new_session": True}  # Popen knows the other only there
    with subprocess.Popen(words, stdout=subprocess.PIPE, **options) as child:
        assert child.stdout.readline()
        operating_system.interrupt(child.pid)
        assert child.wait(20) in (-signal.SIGINT, 1)
    operating_system.interrupt(child.pid)  # it has ended: nothing to do
    deaf = [
        sys.executable,
        "-c",
        "import signal, time; signal.signal(15, signal.SIG_IGN); print('', flush=True); time.sleep(60)",
    ]
    with subprocess.Popen(deaf, stdout=subprocess.PIPE, start_new_session=True) as child:
        assert child.stdout.readline()
        if system == "Windows":
            child.terminate = child.kill  # there, it asks nobody
        operating_system.end_session(child, 0.2)
        assert child.returncode == -signal.SIGKILL


def test_a_write_to_a_full_pipe_need_not_wait(system):
    reader, writer = os.pipe()
    operating_system.set_non_blocking(writer)
    if system != "Windows":
        with pytest.raises(BlockingIOError):
            while True:
                os.write(writer, bytes(2**20))
    os.close(reader)
    os.close(writer)


_CHILD = """
import os, sys, time
sys.path[:0] = {path!r}
from tunewright import operating_system as system
exec({prelude!r})
getattr(system, {function!r})(*eval({arguments!r}))
print("ready", flush=True)
time.sleep(60)
"""
_PRELUDES = {
    "Linux": "",
    "macOS": "system.LINUX = False",
    "Windows": (
        "import ctypes; from types import SimpleNamespace; from test_operating_system import Windows\n"
        "system.LINUX, system.WINDOWS, system.resource = False, True, None\n"
        "vars(ctypes)['windll'] = SimpleNamespace(kernel32=Windows())"
    ),
}


@pytest.mark.parametrize("name", _PRELUDES)
def test_a_worker_ends_with_its_parent(name, tmp_path):
    code = _CHILD.format(
        path=[str(ROOT / "src"), str(ROOT / "tests")],
        prelude=_PRELUDES[name],
        function="confine",
        arguments="(2**34, os.getppid())",
    )
    (tmp_path / "child.py").write_text(code)
    parent = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, sys.argv[1]], stdout=subprocess.PIPE)\n"
        "child.stdout.readline(); print(child.pid, flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent, tmp_path / "child.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        child = int(process.stdout.readline())
        assert Path(f"/proc/{child}").exists()
        process.kill()
    for _ in range(200):
        if not _runs(child):
            return
        time.sleep(0.05)
    raise AssertionError("it outlives its parent")


def _runs(child):
    try:
        return Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("is_linux", [True, False])
def test_a_process_becomes_another_program(is_linux):
    code = (
        f"from tunewright import operating_system as s\ns.LINUX = {is_linux}\n"
        "s.replace_process(['sh', '-c', 'echo became; exit 7'])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (7, "became\n")


def test_no_other_module_uses_what_only_some_systems_have():
    for path in SOURCE.rglob("*.py"):
        if path.name == "operating_system.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                allowed = {"ctypes"} if path.name == "k_quants.py" else set()  # it calls llama.cpp's own library
                assert not {alias.name for alias in node.names} & OF_ONE_SYSTEM - allowed, path
            elif isinstance(node, ast.ImportFrom):
                assert node.module not in OF_ONE_SYSTEM, path
            elif (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id in ("os", "signal")
            ):
                assert node.attr not in CALLS_OF_ONE_SYSTEM, f"{path}:{node.lineno}"


def test_the_module_loads_where_those_modules_are_missing(tmp_path):
    for name in ("fcntl", "resource"):
        (tmp_path / f"{name}.py").write_text("raise ImportError")
    code = "from tunewright import operating_system as s; print(s.fcntl, s.resource)"
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT / 'src'}"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert result.stdout == "None None\n"
