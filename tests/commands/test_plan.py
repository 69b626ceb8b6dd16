"""The plan's figures on the teacher: calls as a range, tokens and money."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tunewright import console
from tunewright.commands.plan import call_range, provable_effect, stage_work, teacher_work
from tunewright.commands.plan_sizes import Sizes, count_sizes
from tunewright.models.hardware import Shape
from tunewright.recipe import Recipe
from tunewright.records import Chunk, SplitEntry
from tunewright.run_folder import RunFolder
from tunewright.settings import (
    DocumentSettings,
    ExamSettings,
    JudgeSettings,
    ModelSettings,
    PreferenceSettings,
    SplitSettings,
    SynthesisSettings,
    TeacherSettings,
    TrainingSettings,
)

SHAPE = Shape.of(
    {"hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 100, "intermediate_size": 128, "num_attention_heads": 4}
)
SIZES = Sizes(num_train_documents=10, num_exam_documents=4, num_samples=0, num_tokens=0, num_questions=0, num_chunks=0)


@pytest.fixture(autouse=True)
def steady_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pace of a machine changes with what else runs on it, also between two plans."""
    monkeypatch.setattr("tunewright.commands.plan._device", lambda: "cpu")
    monkeypatch.setattr("tunewright.commands.plan._cpu_pace", lambda recipe: (4.5e11, 1.0))


def recipe(**teacher: object) -> Recipe:
    return Recipe(
        exam=ExamSettings(learned_per_document=2, unseen_per_document=5),
        synthesis=SynthesisSettings(tasks=("answer-first", "free-qa", "refusal"), samples_per_document=8),
        teacher=TeacherSettings(url="http://x/v1", model="m", **teacher),
    )


def test_calls_are_a_range():
    assert call_range("exam", recipe(), SIZES) == (13, 120)
    assert call_range("synth", recipe(), SIZES) == (20, 10 * (8 + 4))
    assert call_range("curate", recipe(), SIZES) == (0, 0)
    own = recipe().model_copy(update={"exam": ExamSettings(file="exam.csv")})
    assert call_range("exam", own, SIZES) == (0, 0)
    by_rules = recipe().model_copy(update={"exam": ExamSettings(kinds=("short", "choice"))})
    assert call_range("exam", by_rules, SIZES) == (0, 0)


def test_what_is_journalled_is_not_called_again_and_tells_the_size_of_a_call(tmp_path):
    run = RunFolder.create(tmp_path / "run")
    entry = {"stage": "synth", "num_prompt_tokens": 200, "num_tokens": 100, "seconds": 4.0}
    run.journal("teacher.jsonl").append(*[entry] * 20)
    priced = recipe(price=(1.0, 10.0), budget=5.0, concurrency=8)
    told, seconds = teacher_work("synth", priced, run, 50, 1020)
    assert told == "30–1,020 calls, 9,000–306,000 tokens, $0.0360–$1.22 of a budget of $5.00"
    assert seconds == pytest.approx(1020 * 4.0 / 8)
    assert "$" not in teacher_work("synth", recipe(), run, 50, 1020)[0]


def test_what_is_journalled_may_be_of_other_settings(tmp_path):
    run = RunFolder.create(tmp_path / "run")
    entry = {"stage": "exam", "num_prompt_tokens": 200, "num_tokens": 100, "seconds": 4.0}
    run.journal("teacher.jsonl").append(*[entry] * 20)
    assert teacher_work("exam", recipe(price=(1.0, 0.0)), run, 5, 15) == (
        "0–15 calls, 0–4,500 tokens, $0.0000–$0.0030",
        pytest.approx(15 * 4.0 / 64),
    )


def test_the_exam_that_is_there_counts_and_not_the_one_that_would_be_written(tmp_path):
    (tmp_path / "exam.csv").write_text("question,answer\n" + "".join(f"What is {n}?,{n}\n" for n in range(30)))
    (tmp_path / "one.md").write_text("It rained.")
    exam = ExamSettings(file=str(tmp_path / "exam.csv"), retention_items=100)
    own = recipe().model_copy(update={"exam": exam, "documents": DocumentSettings(paths=(str(tmp_path / "one.md"),))})
    sizes = count_sizes(own, RunFolder(tmp_path / "run"))
    assert sizes.num_questions == 30
    told, seconds = stage_work("evaluate", own, RunFolder(tmp_path / "run"), sizes, SHAPE)
    assert told == "210 answers, 200 of general ability"
    compared = own.model_copy(update={"evaluation": own.evaluation.model_copy(update={"compare": ("other",)})})
    more, longer = stage_work("evaluate", compared, RunFolder(tmp_path / "run"), sizes, SHAPE)
    assert more.startswith("240 answers") and longer > seconds
    assert console.rough_duration(stage_work("evaluate", own, RunFolder(tmp_path / "run"), sizes, None)[1]) == "?"
    assert call_range("judge", compared, sizes) == (0, 30 * (8 + 2 * 4))


def test_a_judge_has_calls_and_prices_of_its_own(tmp_path):
    judge = JudgeSettings(url="http://y/v1", model="j", price=(2.0, 4.0))
    asked = recipe().model_copy(update={"judge": judge})
    sizes = replace(SIZES, num_questions=10)
    assert call_range("judge", asked, sizes) == (0, 10 * (4 + 2 * 3))  # without documents, no rag
    told, _ = teacher_work("judge", asked, RunFolder.create(tmp_path / "run"), 0, 110)
    assert "110 calls" in told and "$" in told


def test_own_data_is_counted_without_its_held_out_part(tmp_path, tiny_model):
    rows = [{"prompt": f"Where is ship {i}?", "completion": f"In dock {i}."} for i in range(100)]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    own = Recipe(
        model=ModelSettings(base=str(tiny_model), quantization="none"),
        synthesis=SynthesisSettings(data=("chats.jsonl",)),
        exam=ExamSettings(held_out_share=0.25),
        training=TrainingSettings(batch_size=8, epochs=2, held_out_share=0),
        folder=tmp_path,
    )
    run = RunFolder(tmp_path / "run")
    sizes = count_sizes(own, run)
    assert (sizes.num_samples, sizes.num_held_out, sizes.num_questions) == (75, 25, 25)
    assert 75 * 10 < sizes.num_tokens < 75 * 100
    text, seconds = stage_work("train", own, run, sizes, SHAPE)
    assert text == f"75 samples, 20 steps, {2 * sizes.num_tokens:,} tokens" and seconds > 0
    assert "25 question(s)" in next(provable_effect(own, run, sizes))
    elsewhere = own.model_copy(update={"model": ModelSettings(base="some/hub-name")})
    assert count_sizes(elsewhere, run).num_tokens == pytest.approx(75 * 7, rel=0.2)  # characters / 4


def test_preference_pairs_are_work_of_their_own(tmp_path, tiny_model):
    chats, pairs = tmp_path / "chats.jsonl", tmp_path / "pairs.jsonl"
    chats.write_text("".join(f'{{"prompt": "What is {n}?", "completion": "It is {n}."}}\n' for n in range(20)))
    pairs.write_text('{"prompt": "What is it?", "chosen": "A red pump.", "rejected": "I cannot say that."}\n' * 6)
    own = Recipe(
        model=ModelSettings(base=str(tiny_model), quantization="none"),
        synthesis=SynthesisSettings(data=(str(chats),)),
        exam=ExamSettings(held_out_share=0.5),
    )
    without = count_sizes(own, RunFolder(tmp_path / "run"))
    assert "pairs" not in stage_work("train", own, RunFolder(tmp_path / "run"), without, SHAPE)[0]
    own = own.model_copy(update={"preference": PreferenceSettings(data=(str(pairs),), make=("edits",))})
    sizes = count_sizes(own, RunFolder(tmp_path / "run"))
    assert (sizes.num_own_pairs, sizes.num_pairs, sizes.num_pair_tokens) == (6, 16, 6 * 12 + 2 * sizes.num_tokens)
    work, _ = stage_work("pairs", own, RunFolder(tmp_path / "run"), sizes, SHAPE)
    assert work == "6 of your own and at most 10 made of the samples"
    work, seconds = stage_work("train", own, RunFolder(tmp_path / "run"), sizes, SHAPE)
    assert f"16 pairs, {sizes.num_pair_tokens:,} tokens" in work
    assert seconds > 1.4 * stage_work("train", own, RunFolder(tmp_path / "run"), without, SHAPE)[1]


def test_raw_text_is_counted_by_its_tokens_and_not_by_samples(tmp_path):
    (tmp_path / "a.md").write_text("A text.")
    raw = Recipe(
        documents=DocumentSettings(paths=("a.md",), chunk_tokens=100),
        split=SplitSettings(exam_share=0),
        training=TrainingSettings(text_share=1.0, epochs=2),
        folder=tmp_path,
    )
    run = RunFolder.create(tmp_path / "run")
    work, _ = stage_work("train", raw, run, count_sizes(raw, run), SHAPE)
    assert work == "1,600 tokens of raw text"  # the guess before it is read: eight chunks
    run.write_records("split.jsonl", [SplitEntry(document=d, side=d, group=d) for d in ("train", "exam")])
    chunk = {"title": "", "section": (), "start": 0, "end": 1, "text": "x", "num_tokens": 30}
    run.write_records("chunks.jsonl", [Chunk(id=d, document=d, **chunk) for d in ("train", "exam")])
    work, _ = stage_work("train", raw, run, count_sizes(raw, run), SHAPE)
    assert work == "60 tokens of raw text"
    half = raw.model_copy(update={"training": TrainingSettings(text_share=0.5, epochs=1)})
    assert "samples" in (work := stage_work("train", half, run, count_sizes(half, run), SHAPE)[0])
    assert work.endswith(", 30 tokens of raw text")


def test_a_training_on_a_cpu_counts_what_is_beside_its_products_and_the_loading(tmp_path):
    """At a pace of 450 GFLOP/s the products alone were a quarter of the processor time that trainings took."""
    shape = Shape.of({"hidden_size": 576, "num_hidden_layers": 30, "vocab_size": 49152, "intermediate_size": 1536,
                      "num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True})  # fmt: skip
    once = recipe().model_copy(update={"training": TrainingSettings(epochs=1, held_out_share=0.0)})
    sizes = replace(SIZES, num_samples=70, num_tokens=17_241)
    text, seconds = stage_work("train", once, RunFolder(tmp_path / "run"), sizes, shape)
    assert "17,241 tokens" in text and seconds == pytest.approx(80, rel=0.25)  # as measured
