"""Jobs: one at a time for each device, in processes that outlive the server, with an end that is always known."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tunewright.studio.jobs import Job, Jobs, is_process, start_time


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    """A queue whose commands are those of a small program: it sleeps, prints an error, or ends."""
    package = tmp_path / "stand-in" / "tunewright"
    package.mkdir(parents=True)
    source = Path(__file__).parents[2] / "src/tunewright"
    (package / "__init__.py").write_text(f"__path__ = [{str(package)!r}, {str(source)!r}]\n")
    (package / "__main__.py").write_text(
        "import sys, time, signal\n"
        "print('started', sys.argv[1:], flush=True)\n"
        "try:\n    time.sleep(60 if 'sleep' in sys.argv else 0)\n"
        "except KeyboardInterrupt:\n    print('checkpoint written'); sys.exit(130)\n"
        "if 'fail' in sys.argv:\n    print('error: the disk is full\\n  no byte is left\\n\\n  hint: free some'); sys.exit(3)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    return Jobs(tmp_path / "runs")


def wait(jobs: Jobs, job: int, until: Callable[[Job], bool], seconds: float = 20) -> Job:
    for _ in range(int(seconds / 0.05)):
        jobs.move()
        current = jobs.get(job)
        assert current is not None
        if until(current):
            return current
        time.sleep(0.05)
    raise AssertionError(f"{current} after {seconds} s")


def ended(job: Job) -> bool:
    return job.state == "ended"


def started(job: Job) -> bool:
    return bool(job.child)


def test_jobs_of_a_device_run_one_after_the_other_and_say_how_they_ended(jobs: Jobs) -> None:
    first, second, other = (
        jobs.add("run", "key", lane, [word]) for lane, word in (("cpu", "a"), ("cpu", "fail"), ("desk", "b"))
    )
    done = [wait(jobs, job, ended) for job in (first, second, other)]
    assert [job.exit_code for job in done] == [0, 3, 0]
    assert [job.how for job in done] == ["finished", "the disk is full", "finished"]
    assert done[1].started and done[0].ended and done[1].started >= done[0].ended
    assert "started ['a']" in jobs.log_path(first).read_text()
    assert not done[0].failed and done[1].failed


def test_a_stop_is_ctrl_c_and_a_waiting_job_leaves_its_queue(jobs: Jobs) -> None:
    first, second = jobs.add("run", "key", "cpu", ["sleep"]), jobs.add("run", "key", "cpu", ["never"])
    wait(jobs, first, started)
    jobs.stop(second)
    time.sleep(0.4)  # python has to be listening for Ctrl-C, or it ends at once
    jobs.stop(first)
    assert "kept" in wait(jobs, first, ended).how
    assert wait(jobs, second, ended).how == "taken from the queue"
    assert not jobs.log_path(second).exists()


def test_the_server_dies_and_the_job_and_its_queue_go_on(jobs: Jobs, tmp_path: Path) -> None:
    code = f"from pathlib import Path; from tunewright.studio.jobs import Jobs; import os, time\njobs = Jobs(Path({str(jobs.folder)!r}))\nfor word in ('sleep', 'after'): jobs.add('run', 'key', 'cpu', [word])\nprint('added', flush=True); time.sleep(60)"
    server = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert server.stdout and server.stdout.readline() == "added\n"
    job = wait(Jobs(jobs.folder), 1, started)
    server.send_signal(signal.SIGKILL)
    server.wait()
    assert job.is_alive and job.child and is_process(job.child, job.child_start)
    time.sleep(0.4)
    Jobs(jobs.folder).stop(1)
    assert wait(jobs, 1, ended).exit_code in (130, -2)
    assert wait(jobs, 2, ended).how == "finished"  # by the worker, without a server


def test_a_killed_command_and_a_killed_worker_are_named(jobs: Jobs) -> None:
    first, second = jobs.add("run", "key", "cpu", ["sleep"]), jobs.add("run", "key", "cpu", ["sleep"])
    os.kill(wait(jobs, first, started).child or 0, signal.SIGKILL)
    assert "killed by SIGKILL" in wait(jobs, first, ended).how
    job = wait(jobs, second, started)
    os.kill(job.worker or 0, signal.SIGKILL)
    time.sleep(0.2)
    jobs.move()
    orphan = jobs.get(second)
    assert orphan is not None and orphan.state == "running" and orphan.is_alive  # its command is not lost
    third = jobs.add("run", "key", "cpu", ["c"])
    waiting = jobs.get(third)
    assert waiting is not None and waiting.state == "queued"
    os.kill(job.child or 0, signal.SIGKILL)
    assert "killed, or the machine went down" in wait(jobs, second, ended).how
    assert wait(jobs, third, ended).how == "finished"


def test_a_number_that_went_to_another_process_is_not_the_job(jobs: Jobs) -> None:
    assert is_process(os.getpid(), start_time(os.getpid()))
    assert not is_process(os.getpid(), "1") and not is_process(None, None)
    with sqlite3.connect(jobs.home / "jobs.sqlite") as connection:
        connection.execute(
            "INSERT INTO jobs (kind, subject, lane, arguments, state, created, worker, worker_start) "
            "VALUES ('run', 'key', 'cpu', '[]', 'running', 0, ?, '1')",
            (os.getpid(),),
        )
    jobs.move()
    assert wait(jobs, 1, ended).exit_code is None
