from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from tunewright import pipeline
from tunewright.curation.held_out import held_out
from tunewright.curation.stage import curate, hold_out
from tunewright.errors import DocumentError, RecipeError
from tunewright.recipe import Recipe, parse_recipe
from tunewright.records import OWN, Message, Question, Rejection, Sample, digest
from tunewright.run_folder import RunFolder
from tunewright.settings import CurationSettings, ExamSettings, SynthesisSettings
from tunewright.stages import stages_of
from tunewright.synthesis.stage import exam

WORDS = [
    "amber",
    "basin",
    "cedar",
    "delta",
    "ember",
    "fjord",
    "grove",
    "heron",
    "inlet",
    "jetty",
    "kayak",
    "larch",
    "marsh",
    "north",
    "otter",
    "pylon",
    "quarry",
]


def sample(prompt: str, answer: str, system: str = "") -> Sample:
    messages = (Message(role="user", content=prompt), Message(role="assistant", content=answer))
    messages = (Message(role="system", content=system), *messages) if system else messages
    return Sample(id=digest([m.model_dump() for m in messages]), task=OWN, messages=messages)


def prompt(number: int) -> str:
    return " ".join(random.Random(number).choices(WORDS, k=9)) + f" report {number}"


def test_the_share_is_balanced_by_label_and_depends_on_the_seed():
    samples = [sample(prompt(i), "urgent" if i % 5 == 0 else "routine") for i in range(200)]
    result = held_out(samples, [""] * 200, 0.25, 0.8, seed=0)
    assert Counter(s.answer for s in result.samples) == {"urgent": 10, "routine": 40}
    assert "balanced by answer" in result.note
    again = held_out(samples, [""] * 200, 0.25, 0.8, seed=0)
    assert again == result != held_out(samples, [""] * 200, 0.25, 0.8, seed=1)


def test_labels_are_also_fields_of_json():
    answers = [json.dumps({"severity": f"SEV{1 + i % 2}", "note": f"note {i}"}) for i in range(80)]
    result = held_out([sample(prompt(i), a) for i, a in enumerate(answers)], [""] * 80, 0.25, 0.8, seed=0)
    assert Counter(json.loads(s.answer)["severity"] for s in result.samples) == {"SEV1": 10, "SEV2": 10}
    assert "balanced by severity" in result.note


def test_groups_stay_whole():
    samples = [sample(prompt(i), f"answer {i}") for i in range(60)]
    named = [f"customer {i % 12}" for i in range(60)]
    result = held_out(samples, named, 0.25, 0.8, seed=0)
    assert result.num_groups == 12
    assert Counter(s.document for s in result.samples) == dict.fromkeys({s.document for s in result.samples}, 5)
    assert len(result.samples) == 15


def test_near_duplicate_prompts_stay_together_and_a_shared_instruction_is_no_likeness():
    order = "Read the report below with care and give its severity as one word and nothing else at all: "
    samples = [sample(order + prompt(i // 2) + " again" * (i % 2), f"a {i}") for i in range(40)]
    result = held_out(samples, [""] * 40, 0.3, 0.6, seed=0)
    assert result.num_groups == 20
    assert set(Counter(s.document for s in result.samples).values()) == {2}


def test_what_cannot_be_split_is_an_error():
    with pytest.raises(DocumentError, match="one chat cannot be both"):
        held_out([sample(prompt(1), "x")], [""], 0.5, 0.8, seed=0)
    with pytest.raises(DocumentError, match="cannot be split"):
        held_out([sample("one prompt of several words", str(i)) for i in range(9)], [""] * 9, 0.25, 0.8, seed=0)
    long = [s.model_copy(update={"messages": s.messages * 2}) for s in (sample(prompt(i), "x") for i in range(9))]
    with pytest.raises(DocumentError, match="no chat can be held out"):
        held_out(long, [""] * 9, 0.25, 0.8, seed=0)


def recipe_for(path, **exam_settings) -> Recipe:
    return Recipe(
        system_prompt="",
        exam=ExamSettings(retention_items=0, **exam_settings),
        synthesis=SynthesisSettings(data=(str(path),), samples_per_document=0),
        curation=CurationSettings(embedding_duplicate=0),
        folder=path.parent,
    )


@pytest.fixture
def chats(tmp_path):
    path = tmp_path / "chats.jsonl"
    rows = [
        {"prompt": prompt(i), "completion": f"It is the {WORDS[i % 17]} of {i}.", "group": f"g{i // 2}"}
        for i in range(40)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_held_out_chats_become_the_sealed_exam_and_are_not_trained_on(tmp_path, chats):
    recipe, run = recipe_for(chats, held_out_share=0.25), RunFolder.create(tmp_path / "run")
    summary = hold_out(run, recipe)
    assert (summary.num_in, summary.figures["held out"], summary.figures["groups"]) == (40, 10, 20)
    assert exam(run, recipe).num_out == 10
    questions = run.read_records("exam.jsonl", Question)
    assert run.read_json("seal.json")["num_questions"] == 10
    assert Counter(Counter(q.document for q in questions).values()) == {2: 5}
    curated = curate(run, recipe)
    assert curated.rejected["held out for the exam"] == 10
    trained = {s.question for s in run.read_records("train.jsonl", Sample)}
    assert trained and not trained & {q.question for q in questions}
    reasons = Counter(r.reason for r in run.read_records("rejected.jsonl", Rejection) if r.stage == "curate")
    assert reasons["held out for the exam"] == 10


def test_stages_and_their_inputs(tmp_path, chats):
    held = recipe_for(chats, held_out_share=0.25)
    names = [stage.name for stage in stages_of(held)]
    assert names[:2] == ["hold-out", "exam"] and "ingest" not in names
    by_name = {stage.name: stage for stage in stages_of(held)}
    assert "held-out.jsonl" in by_name["exam"].reads and "held-out.jsonl" in by_name["curate"].reads
    assert "hold-out" not in [stage.name for stage in stages_of(recipe_for(chats, file="exam.jsonl"))]
    with pytest.raises(DocumentError) as error:
        pipeline.run(recipe_for(chats), tmp_path / "run")
    assert "--set exam.held_out_share=0.25" in str(error.value.hint)


@pytest.mark.parametrize(
    "exam_settings, data", [({"held_out_share": 0.25}, []), ({"held_out_share": 0.25, "file": "e.csv"}, ["a.jsonl"])]
)
def test_contradictions_are_refused(exam_settings, data):
    with pytest.raises(RecipeError, match="wrong setting"):
        parse_recipe({"exam": exam_settings, "synthesis": {"data": data}}, Path())
