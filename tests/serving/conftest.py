"""A run whose tuned model answers otherwise than its base."""

from __future__ import annotations

import pytest

from support.tuned_run import make_speaking_model, make_tuned_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    return make_tuned_run(folder / "my run", make_speaking_model(folder / "student"))
