"""What a result was computed with."""

import platform

import torch

from tunewright.environment import machine, versions


def test_versions_and_machine_do_not_hold_the_machines_name():
    assert versions()["torch"] == torch.__version__
    assert versions()["python"] == platform.python_version()
    assert machine()["threads"] == str(torch.get_num_threads())
    assert machine()["instructions"]
    assert platform.node() not in machine().values()
