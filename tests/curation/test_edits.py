"""Edits by people: applied by curate, counted in the funnel, undone at will; and what no approval overrides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tunewright import pipeline
from tunewright.commands.inspect import edit_sample
from tunewright.curation.edits import BY_HAND, decisions, new_edit, read_edits, reworded
from tunewright.curation.stage import curate
from tunewright.errors import RunFolderError, UserError
from tunewright.recipe import Recipe
from tunewright.records import Chunk, Document, Message, Question, Rejection, Sample, Span, digest
from tunewright.run_folder import RunFile, RunFolder
from tunewright.settings import CurationSettings
from tunewright.stages import STAGES

FACTS = ("In 1991, the number of red foxes rose by 3.5%.", "In 1992, the number of gray wolves rose by 4.5%.",
         "In 1993, the number of snowy owls rose by 5.5%.")  # fmt: skip
TEXT = " ".join(FACTS)
RECIPE = Recipe(curation=CurationSettings(embedding_duplicate=0))


def sample(number: int, question: str, answer: str = "") -> Sample:
    quote, start = FACTS[number], TEXT.index(FACTS[number])
    span = Span(document="d", start=start, end=start + len(quote), quote=quote)
    turns = (Message(role="user", content=question), Message(role="assistant", content=answer or quote))
    return Sample(id=digest(question, answer), task="free-qa", messages=turns, document="d", chunk="c", evidence=span)


GOOD = sample(0, "By how much did the red foxes increase?")
WORDING = sample(1, "What does this text say about the gray wolves?")
LEAK = sample(2, "How did the snowy owls fare in that year?")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    opened = RunFolder.create(tmp_path / "run")
    opened.write_records("documents.jsonl", [Document(id="d", title="Animals", source="a.md", text=TEXT)])
    chunk = Chunk(id="c", document="d", title="Animals", section=(), start=0, end=len(TEXT), text=TEXT, num_tokens=60)
    opened.write_records("chunks.jsonl", [chunk])
    question = Question(id="e", ring="learned", document="d", question=LEAK.question, gold=FACTS[2], answerable=True)
    opened.write_records("exam.jsonl", [question])
    opened.write_records("samples.jsonl", [GOOD, WORDING, LEAK])
    return opened


def kept(run: RunFolder) -> list[str]:
    return [sample.id for sample in run.read_records("train.jsonl", Sample)]


def test_each_edit_does_what_it_says_and_the_funnel_adds_up(run: RunFolder) -> None:
    assert curate(run, RECIPE).rejected == {"question refers to the text": 1, "leaks an exam question": 1}
    edit_sample(run, "reject", GOOD.id[:6], note="a repeat of the handbook")
    edit_sample(run, "approve", WORDING.id)
    summary = curate(run, RECIPE)
    assert kept(run) == [WORDING.id]
    assert summary.rejected == {BY_HAND: 1, "leaks an exam question": 1}
    assert summary.num_in == summary.num_out + sum(summary.rejected.values()) == 3
    assert summary.figures["approved by hand"] == 1
    by_hand = next(r for r in run.read_records("rejected.jsonl", Rejection) if r.reason == BY_HAND)
    assert "a repeat of the handbook" in by_hand.detail
    edit_sample(run, "undo", GOOD.id)
    edit_sample(run, "edit", WORDING.id, question="By how much did the gray wolves increase?", answer="By 4.5%.")
    summary = curate(run, RECIPE)
    assert kept(run) == [GOOD.id, WORDING.id] and summary.figures["edited by hand"] == 1
    assert "approved by hand" not in summary.figures  # each decision counts once
    edited = run.read_records("train.jsonl", Sample)[1]
    assert (edited.question, edited.answer) == ("By how much did the gray wolves increase?", "By 4.5%.")


@pytest.mark.parametrize("action", ["approve", "edit"])
def test_nobody_approves_a_leak_or_a_secret(run: RunFolder, action: Any) -> None:
    edit_sample(run, action, LEAK.id, answer=f"It is said: {FACTS[2]}" if action == "edit" else None)
    edit_sample(run, "approve", WORDING.id)
    edit_sample(run, "edit", GOOD.id, answer="Write to jane.doe@example.org, it rose by 3.5%.")
    summary = curate(run, RECIPE)
    assert kept(run) == [WORDING.id]
    assert any(reason.startswith("personal data") for reason in summary.rejected)
    assert any("exam" in reason for reason in summary.rejected)


def test_an_undo_is_undone_and_order_decides() -> None:
    first = new_edit("reject", "s", "ann", "1")
    undo = new_edit("undo", first.id, "ben", "2")
    assert decisions([first])["s"].rejected and decisions([first, undo]) == {}
    assert decisions([first, undo, new_edit("undo", undo.id, "ann", "3")])["s"].rejected
    again = [new_edit("edit", "s", "ann", "1", answer="A"), new_edit("edit", "s", "ann", "2", question="Q")]
    decision = decisions(again)["s"]
    assert (decision.question, decision.answer, decision.state) == ("Q", "A", "edited")
    assert decisions([*again, new_edit("reject", "s", "ben", "3")])["s"].state == "rejected"
    assert read_edits([{"nonsense": 1}, first.model_dump()]) == [first]


def test_the_passage_before_a_question_stays() -> None:
    with_passage = sample(0, f"{TEXT}\n\nQuestion: Which animals?")
    assert reworded(with_passage, "Which ones rose?", None).question == f"{TEXT}\n\nQuestion: Which ones rose?"
    assert reworded(with_passage, None, "Foxes.").messages[0] == with_passage.messages[0]


def test_edits_make_the_stage_stale_and_records_without_them_stay_fresh(run: RunFolder) -> None:
    stage = next(stage for stage in STAGES if stage.name == "curate")
    pipeline._run_stage(run, RECIPE, stage, "")
    record = run.read_json("stages/curate.json")
    del record["ingredients"]["edits.jsonl"]  # as a version before edits wrote it
    run.write_json("stages/curate.json", record)
    assert pipeline.stage_state(run, RECIPE, stage).state == "fresh"
    edit_sample(run, "reject", GOOD.id)
    state = pipeline.stage_state(run, RECIPE, stage)
    assert state.state == "stale" and "edits.jsonl" in state.why


def test_a_text_in_another_encoding_is_refused_and_leaves_no_edit(run: RunFolder) -> None:
    for texts in ({"question": "Wer\udcff?"}, {"answer": "\udcffa"}, {"note": "\udce4"}):
        with pytest.raises(UserError, match="no text"):
            edit_sample(run, "edit", GOOD.id, **texts)
    assert run.journal_entries(RunFile.EDITS) == []


def test_edits_are_linked_lines_and_an_unknown_sample_is_an_error(run: RunFolder) -> None:
    edit_sample(run, "reject", GOOD.id)
    text = run.file("edits.jsonl").read_text()
    run.file("edits.jsonl").write_text(text.replace('"reject"', '"approve"'))
    assert run.changes() and curate(run, RECIPE).rejected.get(BY_HAND) is None  # a changed line is not used
    for action, identifier in (("reject", "nothing"), ("undo", WORDING.id), ("reject", "")):
        with pytest.raises(RunFolderError):
            edit_sample(run, action, identifier)  # type: ignore[arg-type]
