"""kill -9 at every step of a 30-step training, and at every file operation of a checkpoint."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest
from safetensors.torch import load_file

from support.bench_of_training import tasks
from support.warm_process import run_command
from tunewright.training import checkpoint
from tunewright.training.metrics import read_metrics
from tunewright.training.packing import num_steps


def killed(model: Path, folder: Path, task: str, moment: str) -> int:
    """Train with kills at that moment; return how many there were."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = run_command([model, folder, task, moment], environment, module="support.killed_training")
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout)["kills"]


def result_of(folder: Path):
    newest = checkpoint.latest(folder / "checkpoints")
    rows = read_metrics(folder / "metrics.jsonl")
    figures = [(row["step"], row["loss"], row["learning_rate"], row["grad_norm"]) for row in rows]
    return newest.step, load_file(newest.path / "adapter.safetensors"), figures


def same(ours, reference) -> bool:
    return (
        ours[0] == reference[0]
        and ours[2] == reference[2]
        and all(ours[1][name].equal(reference[1][name]) for name in ours[1])
    )


@pytest.mark.parametrize(
    "task", ["sft", *(pytest.param(name, marks=pytest.mark.slow) for name in ("text", "distillation", "dpo"))]
)
def test_a_kill_at_every_step_changes_no_bit(tiny_model, tmp_path, task):
    killed(tiny_model, tmp_path / "whole", task, "none")
    kills = killed(tiny_model, tmp_path / "killed", task, "steps")
    examples = tasks(tiny_model)[task].examples
    total = num_steps(len(examples), 8, 10)
    assert kills == total - 1 >= 29
    assert same(result_of(tmp_path / "whole"), result_of(tmp_path / "killed"))
    # Every step that counts consumed the same examples in both, each of them once per epoch.
    ledgers = [
        [json.loads(line) for line in (tmp_path / name / "ledger.jsonl").read_text().splitlines()]
        for name in ("whole", "killed")
    ]
    assert ledgers[0] == ledgers[1]  # the row that a child died in is not written before it died
    per_epoch = total // 10
    for epoch in range(10):
        used = Counter(sample for row in ledgers[1][epoch * per_epoch : (epoch + 1) * per_epoch] for sample in row)
        assert set(used) == {example.sample for example in examples}
        assert set(used.values()) == {1}


@pytest.mark.slow
def test_a_kill_at_every_file_operation_of_a_save_needs_no_help(tiny_model, tmp_path):
    killed(tiny_model, tmp_path / "whole", "sft", "none")
    kills = killed(tiny_model, tmp_path / "killed", "sft", "saves")
    assert kills > 30  # 30 saves, none of which a single operation makes
    assert same(result_of(tmp_path / "whole"), result_of(tmp_path / "killed"))
