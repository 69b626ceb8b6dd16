"""The agents' environment: its check reads the database, its tools cannot leave it, and turns are counted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright.public_benchmarks import agent_database
from tunewright.public_benchmarks.agent_database import (
    MAX_TURNS,
    act,
    begin,
    open_database,
    read_action,
    run_statement,
    succeeded,
)


def call(tool: str, argument: str) -> str:
    import json

    return json.dumps({"tool": tool, {"sql": "statement", "answer": "value"}[tool]: argument})


@pytest.mark.parametrize("task", agent_database.tasks(), ids=lambda task: task.id)
def test_every_task_is_done_by_its_gold_and_not_by_saying_so(task):
    episode = begin(task)
    act(episode, "Let me see: " + call("sql", task.gold))
    act(episode, call("answer", "done" if task.changes else str(episode.gold)))
    assert succeeded(episode) and episode.num_valid == episode.num_turns == 2
    idle = begin(task)
    act(idle, call("answer", "done"))
    assert not succeeded(idle)


def test_a_right_answer_with_a_spoilt_database_is_no_success():
    task = agent_database.tasks()[0]
    episode = begin(task)
    act(episode, call("sql", "DELETE FROM staff WHERE id = 6"))
    act(episode, call("answer", str(episode.gold)))
    assert not succeeded(episode)


def test_turns_run_out_and_what_is_no_action_costs_one():
    episode = begin(agent_database.tasks()[0])
    while not episode.is_over:
        act(episode, "I think the answer is 2.")
    assert episode.num_turns == MAX_TURNS and episode.num_valid == 0 and not succeeded(episode)
    assert "expected one JSON object" in episode.messages[-1].content


@pytest.mark.parametrize(
    "statement",
    [
        "ATTACH DATABASE '/tmp/other.db' AS other",
        "PRAGMA writable_schema = 1",
        "SELECT load_extension('x')",
        "VACUUM INTO '/tmp/out.db'",
        "CREATE TABLE t (x)",
        "DROP TABLE staff",
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT COUNT(*) FROM n",
        "SELECT 1; SELECT 2",
        "",
    ],
)
def test_a_statement_reaches_nothing_but_rows_and_ends(statement):
    base = open_database()
    ran, text = run_statement(base, statement)
    assert not ran or text == "no rows"
    assert run_statement(base, "SELECT COUNT(*) FROM staff") == (True, "[6]")


@given(st.text())
def test_any_reply_is_read_or_is_no_action(reply):
    action = read_action(reply)
    assert action is None or action["tool"] in ("sql", "answer")
    episode = begin(agent_database.tasks()[0])
    act(episode, reply)
    assert episode.num_turns == 1


def test_the_model_is_shown_a_part_of_many_rows():
    ran, text = run_statement(open_database(), "SELECT * FROM readings")
    assert ran and text.endswith("(more rows)") and len(text) < 700
