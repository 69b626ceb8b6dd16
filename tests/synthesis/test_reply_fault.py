from __future__ import annotations

import pytest

from tunewright.synthesis.context import reply_fault
from tunewright.teacher.protocol import Reply


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        (Reply("Whole?", "stop", 1, 1), None),
        (Reply("Cut", "length", 1, 1), "teacher reply cut"),
        (Reply("Filtered", "other", 1, 1), "teacher reply not finished"),
        (Reply(" ", "stop", 1, 1), "teacher reply empty"),
        (None, "teacher call failed"),
    ],
)
def test_only_a_complete_answer_can_become_a_sample(reply, fault):
    assert reply_fault(reply) == fault
