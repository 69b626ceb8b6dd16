from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tunewright.models.chat_template import question_prompt
from tunewright.records import Message, Rejection, Sample, StageSummary
from tunewright.reporting.data_statistics import funnel, named_figures, refusals, teacher_use, total

REFUSAL = "The documents do not give the answer to this question."


def sample(name: str, task: str, question: str = "Why?", answer: str = "So.") -> Sample:
    return Sample(
        id=name, task=task, messages=(Message(role="user", content=question), Message(role="assistant", content=answer))
    )


TASKS = st.sampled_from(["answer-first", "free-qa", "refusal"])
REASONS = st.sampled_from(["too short", "near duplicate", "leaks"])
FATES = st.lists(st.tuples(TASKS, st.one_of(st.none(), st.tuples(st.sampled_from(["curate", "verify"]), REASONS))))


@given(FATES, st.lists(st.tuples(TASKS, REASONS)), st.lists(st.one_of(st.none(), REASONS)), st.booleans())
def test_every_count_adds_up(
    fates: list[tuple[str, tuple[str, str] | None]],
    failed: list[tuple[str, str]],
    own: list[str | None],
    named: bool,
) -> None:
    written = [sample(f"s{n}", task) for n, (task, _) in enumerate(fates)]
    data = [sample(f"o{n}", "own") for n in range(len(own))]
    kept = [s for s, (_, fate) in zip(written, fates, strict=True) if fate is None]
    kept += [s for s, reason in zip(data, own, strict=True) if reason is None]
    rejections = [Rejection(stage="exam", id="x", reason="too short"), Rejection(stage="train", id="s0", reason="long")]
    rejections += [Rejection(stage="synth", id="f", reason=reason, task=task) for task, reason in failed]
    rejections += [
        Rejection(stage=fate[0], id=s.id, reason=fate[1], task=s.task if named else "")
        for s, (_, fate) in zip(written, fates, strict=True)
        if fate
    ]
    rejections += [
        Rejection(stage="curate", id=s.id, reason=r, task="own" if named else "")
        for s, r in zip(data, own, strict=True)
        if r
    ]
    rows = funnel(written, rejections, kept)
    for row in rows:
        assert row.kept is not None
        assert row.tried == row.kept + sum(row.rejected.values())
        assert row.unaccounted == 0
    whole = total(rows)
    assert whole.tried == len(fates) + len(failed) + len(own)
    assert whole.kept == (len(kept) if rows else 0)
    assert sum(whole.rejected.values()) == len(rejections) - 2
    counts = Counter(s.task for s in kept)
    assert {row.task: row.kept for row in rows if row.kept} == dict(counts)
    before = total(funnel(written, rejections, None))
    assert (before.tried, before.kept) == ((len(fates) + len(failed), None) if before.tried else (0, before.kept))


def test_files_of_different_runs_are_seen() -> None:
    written = [sample("a", "answer-first"), sample("b", "answer-first")]
    (row,) = funnel(written, [], written[:1])
    assert row.unaccounted == 1
    (row,) = funnel(written, [Rejection(stage="curate", id="a", reason="x", task="answer-first")], written)
    assert row.unaccounted == -1


def test_rejections_from_before_they_named_their_task() -> None:
    written = [sample("a", "free-qa"), sample("b", "free-qa")]
    old = [Rejection(stage="synth", id="z", reason="cut"), Rejection(stage="curate", id="a", reason="leaks")]
    rows = {row.task: row for row in funnel(written, old, written[1:])}
    assert rows["unknown"].rejected == {("synth", "cut"): 1}
    assert rows["free-qa"].rejected == {("curate", "leaks"): 1}
    assert rows["free-qa"].share == 0.5


def test_refusals_are_counted_both_ways() -> None:
    shown = question_prompt("What is it?", ("A title\nSome text.",))
    samples = [
        sample("1", "refusal", shown, REFUSAL),
        sample("2", "grounded", shown, "It is red."),
        sample("3", "grounded", shown, "It is blue."),
        sample("4", "answer-first", "What is it?", "It is green."),
        sample("5", "own", "What is it?", "I cannot answer that; the documents do not give the answer."),
    ]
    result = refusals(samples, REFUSAL)
    assert result.rows == [
        ("all samples: decline", 5, 2),
        ("show a passage: decline", 3, 1),
        ("show a passage: answer", 3, 2),
        ("show no passage: decline", 2, 1),
    ]


def test_teacher_use_by_stage() -> None:
    line = '{"stage": "%s", "num_prompt_tokens": 10, "num_tokens": 3, "seconds": 0.5}\n'
    journal = line % "exam" + line % "synth" + "[]\n{}\n" + line % "synth" + '{"stage": "sy'
    use = teacher_use(journal.encode().splitlines(keepends=True))
    assert use["synth"] == {"calls": 2, "prompt tokens": 20, "written tokens": 6, "seconds": 1.0}
    assert use["exam"]["calls"] == 1
    assert use["unknown"]["calls"] == 1


def test_figures_by_the_start_of_their_name() -> None:
    summaries = {
        "synth": StageSummary(num_in=1, num_out=1, figures={"leaks_found": 2, "calls": 3}),
        "curate": StageSummary(num_in=1, num_out=1, figures={"leaks_left": 0, "faithfulness_low": 0.5}),
    }
    assert named_figures(summaries, "leak") == [("synth", "leaks_found", 2), ("curate", "leaks_left", 0)]
    assert named_figures(summaries, "faithfulness", "x") == [("curate", "faithfulness_low", 0.5)]
