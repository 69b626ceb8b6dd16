import json

import pytest

from support.faulty_server import Answer, Seen, completion, fake_teacher
from tunewright.run_folder import RunFolder
from tunewright.settings import TeacherSettings
from tunewright.teacher import open_teacher
from tunewright.teacher.llm_judge import Comparison, JudgedAnswer, compare_answers


@pytest.mark.parametrize(
    ("prefers", "expected"),
    [
        (lambda a, b: "A" if a > b else "B", Comparison("first", choices=2, first_shown=1)),
        (lambda a, b: "A" if a < b else "B", Comparison("second", choices=2, first_shown=1)),
        (lambda a, b: "A", Comparison("tie", True, 2, 2)),  # whatever stands first
        (lambda a, b: "B", Comparison("tie", True, 2, 0)),
        (lambda a, b: "A" if a > b else "tie", Comparison("tie", True, 1, 1)),
        (lambda a, b: "tie", Comparison("tie")),
        (lambda a, b: "neither" if a > b else "A", None),
    ],
)
def test_two_answers_are_compared_in_both_orders(tmp_path, prefers, expected):
    def respond(seen: Seen) -> Answer:
        prompt = seen.body["messages"][-1]["content"]
        first, second = (prompt.split(f"Answer {label}: ")[1].split("\n")[0] for label in "AB")
        return Answer(body=completion(json.dumps({"better": prefers(first, second)})))

    pair = (JudgedAnswer("q", "zebra", "p"), JudgedAnswer("q", "ant", "p"))
    same = (JudgedAnswer("q", "ant", "p"), JudgedAnswer("q", "ant ", "p"))
    settings = TeacherSettings(url="http://none", model="m", concurrency=4)
    with fake_teacher(respond) as server:
        settings = settings.model_copy(update={"url": server.url})
        with open_teacher(RunFolder.create(tmp_path).journal("teacher.jsonl"), settings, "judge") as teacher:
            assert compare_answers([same, pair, same], teacher) == [Comparison("tie"), expected, Comparison("tie")]
        assert len(server.seen) == 2  # the same answer twice needs no judge
