"""Train in children of this process that kill themselves (SIGKILL), one after the other, until one gets through.

Usage: killed_training.py MODEL FOLDER TASK MOMENT, with MOMENT one of

- "steps": each child finishes one step, and dies in the middle of the next one's loss;
- "saves": each child dies at a later file operation of its first checkpoint, until one completes it, and so on.

Prints one line of JSON: the number of kills. A child is forked, so the libraries are imported once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import safetensors.torch
import torch

from support.bench_of_training import run_loop, tasks, tiny_adapted
from tunewright import storage
from tunewright.training.loop import TrainingTask
from tunewright.training.objectives import Objective
from tunewright.training.step_plan import Capacity

SETTINGS = {"epochs": 10, "batch_size": 8, "checkpoint_steps": 1}  # 30 steps of 20 examples


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def watched(task: TrainingTask, ledger: Path, last_loss: int) -> TrainingTask:
    """The same task, which notes the examples of each computed row, and dies in its n-th row."""
    calls: list[int] = []

    def loss(path, row, examples):
        calls.append(1)
        if len(calls) == last_loss:
            die()
        with ledger.open("a") as file:
            file.write(json.dumps([example.sample for example in examples]) + "\n")
        return task.objective.loss(path, row, examples)

    return TrainingTask(task.examples, Objective(task.objective.count, loss, task.objective.figures))


def dying_writes(last_write: int) -> None:
    """Die at the n-th write of tensors, write of text, flush, or rename."""
    calls: list[int] = []

    def dying(original):
        def call(*args, **kwargs):
            calls.append(1)
            if len(calls) == last_write:
                die()
            return original(*args, **kwargs)

        return call

    safetensors.torch.save_file = dying(safetensors.torch.save_file)
    os.fsync = dying(os.fsync)
    Path.write_text = dying(Path.write_text)
    Path.rename = dying(Path.rename)
    storage.shutil.rmtree = dying(storage.shutil.rmtree)


def child(model, task: TrainingTask, folder: Path, last_loss: int, last_write: int) -> None:
    torch.manual_seed(7)
    if last_write:
        dying_writes(last_write)
    whole_step = Capacity(micro_batch_tokens=1_000_000)  # per step, so that a row of the ledger is a step
    run_loop(model, watched(task, folder / "ledger.jsonl", last_loss), folder, {"a": 1}, whole_step, **SETTINGS)


def fork(*arguments) -> bool:
    """Run a child; return whether it got through."""
    number = os.fork()
    if not number:
        try:
            child(*arguments)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = os.waitpid(number, 0)[1]
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return False
    if status:
        raise SystemExit(f"a child failed: {status}")
    return True


def main() -> None:
    source, folder, name, moment = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
    folder.mkdir(exist_ok=True)
    task, model = tasks(source)[name], tiny_adapted(source, dropout=0.1)
    moments = {
        "none": lambda kills: (0, 0),
        "steps": lambda kills: (2, 0),
        "saves": lambda kills: (0, kills + 1),
    }
    kills = 0
    while not fork(model, task, folder, *moments[moment](kills)):
        kills += 1
        if kills > 200:
            raise SystemExit("never got through")
    print(json.dumps({"kills": kills}))


if __name__ == "__main__":
    main()
