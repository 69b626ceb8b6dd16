"""Files and folders that a crash leaves whole."""

import errno
import os
import stat
import subprocess
import sys

import pytest

from tunewright.distributed import Processes
from tunewright.errors import DiskFullError
from tunewright.storage import atomic_folder, file_digest, write_atomic
from tunewright.training.checkpoint import make_room


def no_space(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_leaves_the_old_file_and_names_the_bytes(tmp_path, monkeypatch):
    path = tmp_path / "f"
    write_atomic(path, b"old")
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(DiskFullError) as caught:
        write_atomic(path, b"new!")
    assert path.read_bytes() == b"old"
    assert "4 bytes" in caught.value.cause
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "adapter"
    with atomic_folder(target) as work:
        (work / "a").write_text("1")
    with pytest.raises(RuntimeError), atomic_folder(target) as work:
        (work / "a").write_text("2")
        raise RuntimeError
    assert (target / "a").read_text() == "1"
    assert [p.name for p in tmp_path.iterdir()] == ["adapter"]
    with atomic_folder(target) as work:
        (work / "b").write_text("3")
    assert [p.name for p in target.iterdir()] == ["b"]


def test_folder_digest_sees_names_and_bytes(tmp_path):
    digests = set()
    for name, content in (("a", "1"), ("a", "2"), ("b", "1")):
        folder = tmp_path / f"{name}{content}"
        folder.mkdir()
        (folder / name).write_text(content)
        digests.add(file_digest(folder))
    assert len(digests) == 3


def test_what_a_killed_process_left_is_removed_and_the_old_folder_put_back(tmp_path):
    target = tmp_path / "adapter"
    code = (
        "import os, signal, sys; from pathlib import Path; from tunewright.storage import atomic_folder\n"
        "def die(*_): os.kill(os.getpid(), signal.SIGKILL)\n"
        "if sys.argv[2] == 'swap':\n"
        "    rename, renamed = Path.rename, []\n"
        "    Path.rename = lambda *a: die() if renamed else (renamed.append(1), rename(*a))\n"
        "with atomic_folder(Path(sys.argv[1])) as work:\n"
        "    (work / 'new').write_text('2')\n"
        "    sys.argv[2] == 'write' and die()\n"
    )
    for moment in ("write", "swap"):
        with atomic_folder(target) as work:
            (work / "old").write_text("1")
        assert subprocess.run([sys.executable, "-c", code, str(target), moment], check=False).returncode == -9
        assert len(list(tmp_path.iterdir())) == 2
        with pytest.raises(RuntimeError), atomic_folder(target):
            raise RuntimeError
        assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")] == ["adapter", "adapter/old"]


def test_a_training_removes_the_half_written_checkpoint_of_a_kill(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path; from tunewright.storage import atomic_folder\n"
        "with atomic_folder(Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "step-0000007")], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    make_room(tmp_path, {}, Processes())
    assert list(tmp_path.iterdir()) == []


def test_a_private_file_is_its_owners_alone(tmp_path):
    path = tmp_path / "key"
    write_atomic(path, b"old")
    assert stat.S_IMODE(path.stat().st_mode) != 0o600
    write_atomic(path, b"secret", private=True)
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"secret", 0o600)
