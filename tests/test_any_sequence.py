"""A few sequences of commands and crashes, drawn at random; benchmarks/command_sequences.py draws thousands."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from support.crash_machine import machine
from support.faulty_server import fake_teacher
from support.whole_path import asks


@pytest.mark.slow
def test_any_sequence_of_commands_and_crashes_ends_as_an_undisturbed_run(
    tiny_model: Path,
) -> None:
    few = settings(max_examples=4, stateful_step_count=6, deadline=None, derandomize=True, database=None)
    with fake_teacher(asks) as teacher, machine(tiny_model, teacher.url) as own:
        run_state_machine_as_test(own, settings=settings(few, suppress_health_check=list(HealthCheck)))
        assert own.counts["commands"] > 8
        assert own.counts["kill"] + own.counts["clock"] > 0
