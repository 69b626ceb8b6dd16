"""Several runs side by side: only with the same exam, paired by question, with people's marks where there are any."""

import random

import pytest

from support import finished_run
from tunewright.commands.compare import compare_runs, read_entries
from tunewright.commands.mark import read_marks
from tunewright.errors import RunFolderError, UserError
from tunewright.records import Answer, Question
from tunewright.reporting.leaderboard import cost_table, differences, games, score_table


def write(folder, **quality):
    return finished_run.write(folder, quality={**finished_run.QUALITY, **quality})[0]


def marked(run, better):
    """Fill the run's comparison table by hand: tuned wins this share of the questions."""
    from tunewright.evaluation.comparison_csv import comparison_csv

    rng = random.Random(1)
    questions, answers = run.read_records("exam.jsonl", Question), run.read_records("answers.jsonl", Answer)
    lines = comparison_csv(questions, answers, ["base", "tuned"]).splitlines()
    winners = ["winner", *("tie" if rng.random() < 0.2 else rng.choice(better) for _ in questions)]
    path = run.path / "by-hand.csv"
    text = [f'{line.rpartition(",")[0]},"{winner}"' for line, winner in zip(lines, winners, strict=True)]
    path.write_text("\n".join(text), encoding="utf-8")
    read_marks(run, [path], ("base", "tuned"))


def test_runs_are_listed_with_their_paired_differences(tmp_path, capsys):
    runs = [write(tmp_path / "small"), write(tmp_path / "large", tuned=0.9), write(tmp_path / "sub/large", tuned=0.5)]
    entries = read_entries([run.path for run in runs])
    assert [entry.name for entry in entries] == ["small", "large", "large-2"]
    columns, rows = score_table(entries)
    assert all(len(row) == len(columns) for row in rows)
    for row, entry in zip(rows, entries, strict=True):
        assert row[-1] == entry.verdict.name
        assert row[3].startswith(f"{entry.verdict.results.arm('tuned').primary.mean:.2f} (")
    columns, rows = cost_table(entries)
    assert rows[0][3:] == ["8 min 12 s", "10.5 GiB"]
    between = differences(entries)
    assert [(d.first, d.second) for d in between] == [("small", "large"), ("small", "large-2"), ("large", "large-2")]
    means = [entry.verdict.results.arm("tuned").primary.mean for entry in entries]
    assert between[0].interval.mean == pytest.approx(means[0] - means[1])
    assert between[0].interval.high < 0
    assert all(d.p_holm >= d.interval.p for d in between)
    assert not games(entries)
    compare_runs([run.path for run in runs])
    assert "3 runs, one exam" in capsys.readouterr().err


def test_people_s_marks_put_the_bases_and_the_tuned_models_on_one_scale(tmp_path, capsys):
    runs = [write(tmp_path / "small"), write(tmp_path / "large", tuned=0.9)]
    marked(runs[0], ["base", "tuned"])
    marked(runs[1], ["base", "tuned", "tuned", "tuned"])
    played = games(read_entries([run.path for run in runs]))
    assert {name for game in played for name in (game.first, game.second)} == {
        "base of small",
        "small",
        "large",
    }
    assert {game.share for game in played} == {0.0, 0.5, 1.0}
    other = write(tmp_path / "other", base=0.1)
    marked(other, ["base", "tuned"])
    names = {name for game in games(read_entries([runs[0].path, other.path])) for name in (game.first, game.second)}
    assert names == {"base of small", "base of other", "small", "other"}  # whose bases answered otherwise
    compare_runs([run.path for run in runs])
    printed = capsys.readouterr().err
    table = printed.index("Bradley-Terry")
    assert printed.index("large", table) < printed.index("small", table)


def test_runs_that_cannot_be_compared_are_refused_with_the_reason(tmp_path):
    run = write(tmp_path / "one")
    with pytest.raises(UserError, match="at least two runs"):
        read_entries([run.path, run.path])
    twice = read_entries([run.path, write(tmp_path / "two").path, run.path])
    assert [entry.name for entry in twice] == ["one", "two"]
    other = finished_run.write(tmp_path / "other", docs=finished_run.documents(20))[0]
    with pytest.raises(UserError, match="different exams"):
        read_entries([run.path, other.path])
    twin = write(tmp_path / "twin")
    verdict = twin.read_json("verdict.json")
    twin.write_json("verdict.json", {**verdict, "rule": {**verdict["rule"], "margin": 0.01}})
    with pytest.raises(RunFolderError, match="seal of .* is broken"):
        read_entries([run.path, twin.path])
    twin.file("verdict.json").unlink()
    with pytest.raises(RunFolderError, match="has no verdict.json yet"):
        read_entries([run.path, twin.path])


@pytest.mark.slow
def test_two_bases_on_one_exam_are_in_one_table(tiny_model, tmp_path):
    from support.finished_training import own_recipe
    from support.tiny import make_model
    from tunewright import pipeline

    few = {"evaluation": {"arms": ["base", "tuned"]}, "training": {"epochs": 1}}
    students = {"first": tiny_model, "second": make_model(tmp_path / "other", seed=5)}
    runs = [
        pipeline.run(own_recipe(tmp_path / "sources", student, **few), tmp_path / name, until="evaluate")
        for name, student in students.items()
    ]
    entries = read_entries([run.path for run in runs])
    assert [row[1] for row in score_table(entries)[1]] == [student.name for student in students.values()]
    assert [(d.first, d.second) for d in differences(entries)] == [("first", "second")]
    assert entries[0].verdict.results.arm("base").gold_nll != entries[1].verdict.results.arm("base").gold_nll
