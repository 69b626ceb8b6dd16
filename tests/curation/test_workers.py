import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tunewright import operating_system
from tunewright.curation import workers
from tunewright.curation.workers import in_order
from tunewright.errors import StageError

pytestmark = pytest.mark.skipif(not operating_system.LINUX, reason="elsewhere nothing is forked")


@pytest.fixture(autouse=True)
def _many(monkeypatch):
    monkeypatch.setattr(workers, "_FEW", 10)
    monkeypatch.setattr(workers, "_CHUNK", 7)
    monkeypatch.setattr(workers, "num_workers", lambda: 3)


@pytest.mark.parametrize("number", [1, 2, 3, 8])
@pytest.mark.parametrize("num_items", [0, 1, 10, 11, 22, 100])
def test_results_are_those_of_a_single_process_in_order(number, num_items, monkeypatch):
    monkeypatch.setattr(workers, "num_workers", lambda: number)
    assert list(in_order(lambda item: (item, "x" * 3000), num_items)) == [(n, "x" * 3000) for n in range(num_items)]


def test_few_items_start_no_process_and_many_do():
    assert set(in_order(lambda _: os.getpid(), 10)) == {os.getpid()}
    processes = set(in_order(lambda _: os.getpid(), 100))
    assert len(processes) == 3 and os.getpid() not in processes


def test_an_error_of_the_work_is_raised_with_its_place():
    with pytest.raises(RuntimeError, match=r"(?s)test_workers.*ZeroDivisionError"):
        list(in_order(lambda item: 1 // (item - 50), 100))
    assert not multiprocessing.active_children()


def test_a_lack_of_memory_stays_one():
    def work(item: int) -> None:
        raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        list(in_order(work, 100))


def test_a_worker_that_is_ended_is_an_error_and_not_a_wait():
    with pytest.raises(StageError, match="did not finish") as caught:
        list(in_order(lambda item: os.kill(os.getpid(), signal.SIGKILL) if item == 50 else item, 100))
    assert "SIGKILL" in caught.value.cause
    assert not multiprocessing.active_children()


def test_workers_end_when_nobody_reads_on():
    items = in_order(lambda item: "x" * 10_000 + str(item), 1000)
    assert next(items).endswith("0") and len(multiprocessing.active_children()) == 3
    items.close()
    assert not multiprocessing.active_children()


PARENT = """
import os, sys, time
from tunewright.curation import workers
workers._FEW, workers._CHUNK, workers.num_workers = 1, 1, lambda: 2
def work(item):
    os.write(1, b"%d\\n" % os.getpid())
    time.sleep(60)
list(workers.in_order(work, 4))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_its_parent(number):
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
        children = [int(parent.stdout.readline()) for _ in range(2)]
        parent.send_signal(number)
        parent.wait(20)
    deadline = time.monotonic() + 10
    while any(map(is_running, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, children))


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
