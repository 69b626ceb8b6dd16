"""Raw text, mixtures and preferences through the whole pipeline: what runs, what is read, what is refused."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from support.bench_of_training import pairs
from support.faulty_server import fake_teacher
from support.whole_path import asks, write_recipe
from tunewright import pipeline
from tunewright.commands import plan
from tunewright.errors import DocumentError, RecipeError
from tunewright.recipe import load_recipe
from tunewright.records import PreferencePair, Question, Sample
from tunewright.run_folder import RunFolder
from tunewright.storage import file_digest

STAGES = [
    name for name in pipeline.STAGE_NAMES if name not in ("hold-out", "placebo", "seeds", "judge", "verdict")
]  # nobody asks for them here


@pytest.fixture
def teacher():
    with fake_teacher(asks) as server:
        yield server


def write_pairs(folder, lines=None):
    rows = [
        {
            "prompt": [turn.model_dump() for turn in pair.prompt],
            "chosen": pair.chosen,
            "rejected": [{"role": "assistant", "content": pair.rejected}],
        }
        for pair in pairs(12)
    ]
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in [*rows, *(lines or [])]) + "\n")
    return path


def started(run):
    return [entry["stage"] for entry in run.journal().entries if entry["event"] == "start"]


@pytest.mark.slow
def test_raw_text_alone_needs_no_samples(tmp_path, tiny_model, teacher, abstracts):
    path = write_recipe(tmp_path, tiny_model, teacher.url, abstracts, training={"text_share": 1.0, "max_tokens": 128})
    run = pipeline.run(load_recipe(path), tmp_path / "run")
    assert started(run) == ["ingest", "split", "exam", "train", "evaluate", "report"]
    assert [p.name for p in sorted(run.file("checkpoints/sft").glob("epoch-*"))] == ["epoch-1", "epoch-2"]
    verdict = run.read_json("verdict.json")
    assert {arm["arm"] for arm in verdict["results"]["arms"]} == {"base", "rag", "oracle", "tuned", "tuned+rag"}
    pipeline.run(load_recipe(path), tmp_path / "run")
    assert len(started(run)) == 6


@pytest.mark.slow
def test_distillation_reads_passages_and_is_trained_again_when_its_settings_change(
    tmp_path, tiny_model, teacher, abstracts
):
    sections = {"training": {"objective": "distillation"}, "distillation": {"distractors": 1}}
    path = write_recipe(tmp_path, tiny_model, teacher.url, abstracts, **sections)
    run = pipeline.run(load_recipe(path), tmp_path / "run", until="train")
    rows = [json.loads(line) for line in run.file("metrics.jsonl").read_text().splitlines()]
    assert all(row["divergence"] >= 0 for row in rows if row["step"])
    pipeline.run(load_recipe(path), tmp_path / "run", until="train")
    assert started(run) == ["ingest", "split", "exam", "synth", "curate", "train"]
    pipeline.run(load_recipe(path, ["distillation.temperature=2.0"]), tmp_path / "run", until="train")
    pipeline.run(
        load_recipe(path, ["distillation.distractors=0", 'training.objective="sft"']), tmp_path / "run", until="train"
    )
    assert started(run)[6:] == ["train", "train"]


@pytest.mark.slow
def test_further_seeds_train_further_adapters_that_answer_the_same_exam(tmp_path, tiny_model, teacher, abstracts):
    one = write_recipe(tmp_path, tiny_model, teacher.url, abstracts, exam={"retention_items": 0})
    run = pipeline.run(load_recipe(one), tmp_path / "run", until="train")
    first = file_digest(run.file("adapter"))
    pipeline.run(load_recipe(one, ["training.seeds=2"]), tmp_path / "run", until="evaluate")
    assert started(run)[-2:] == ["seeds", "evaluate"]  # the first adapter is not trained again
    assert file_digest(run.file("adapter")) == first != file_digest(run.file("more-seeds/2/adapter"))
    results = run.read_json("verdict.json")["results"]
    assert len(results["seeds"]["means"]) == 2
    [gain] = [d for d in results["differences"] if (d["first"], d["second"]) == ("tuned", "base")]
    assert gain["interval"]["mean"] == pytest.approx(sum(results["seeds"]["means"]) / 2)
    assert "tuned-seed-2" not in run.file("comparison.csv").read_text()


@pytest.mark.slow
def test_preferences_after_samples_then_a_changed_beta_trains_only_them(tmp_path, tiny_model, teacher, abstracts):
    sections = {"preference": {"data": [str(write_pairs(tmp_path))], "learning_rate": 0.003}}
    path = write_recipe(tmp_path, tiny_model, teacher.url, abstracts, **sections)
    run = pipeline.run(load_recipe(path), tmp_path / "run")
    assert started(run) == STAGES
    assert len(run.read_records("pairs.jsonl", PreferencePair)) == 12
    assert set(run.read_json("plan.json")) == {"sft", "dpo"}
    assert "reward of the chosen" in run.file("report.html").read_text()
    sft = run.file("metrics.jsonl").read_text().splitlines()[:3]
    pipeline.run(load_recipe(path, ["preference.beta=0.5"]), tmp_path / "run")
    assert started(run)[len(STAGES) :] == ["train", "evaluate", "report"]
    assert run.file("metrics.jsonl").read_text().splitlines()[:3] == sft


@pytest.mark.slow
def test_pairs_made_by_edits_train_after_the_samples(tmp_path, tiny_model, teacher, abstracts):
    """Documents to preferences without a pair of the user's own; other settings of [preference] make no pair again."""
    sections = {
        "preference": {"make": ["edits"], "learning_rate": 0.003},
        "synthesis": {"samples_per_document": 4},
        "training": {"epochs": 1, "batch_size": 24},
        "evaluation": {"arms": ["base", "tuned"]},
    }
    path = write_recipe(tmp_path, tiny_model, teacher.url, abstracts, **sections)
    run = pipeline.run(load_recipe(path), tmp_path / "run")
    assert started(run) == STAGES
    made = run.read_records("pairs.jsonl", PreferencePair)
    samples = {sample.id: sample for sample in run.read_records("train.jsonl", Sample)}
    assert {"number", "refusal"} <= {pair.origin for pair in made}
    assert all(samples[pair.sample].answer == pair.chosen for pair in made)
    summary = run.read_json("stages/pairs.json")["summary"]
    assert summary["num_in"] == len(made) + sum(summary["rejected"].values())
    steps = [row for row in map(json.loads, run.file("metrics.jsonl").read_text().splitlines()) if row["step"]]
    assert sum(row["phase"] == "dpo" for row in steps) == 2
    assert set(run.read_json("plan.json")) == {"sft", "dpo"}
    changed = load_recipe(path, ["preference.beta=0.5", "preference.samples=7"])
    pipeline.run(changed, tmp_path / "run", until="train")
    assert started(run)[len(STAGES) :] == ["train"]


def test_the_students_errors_alone_need_samples_but_no_training_on_them(tmp_path, tiny_model, teacher, abstracts):
    student = shutil.copytree(tiny_model, tmp_path / "student")
    ends = {"eos_token_id": [2, *range(300, 316)]}  # a random student would hardly ever come to an end
    (student / "generation_config.json").write_text(json.dumps(ends))
    sections = {"preference": {"make": ["student"], "samples": 4}, "training": {"epochs": 0}}
    path = write_recipe(tmp_path, student, teacher.url, abstracts, **sections)
    run = pipeline.run(load_recipe(path, ["synthesis.samples_per_document=2"]), tmp_path / "run", until="train")
    assert started(run) == ["ingest", "split", "exam", "synth", "curate", "pairs", "train"]
    assert {pair.origin for pair in run.read_records("pairs.jsonl", PreferencePair)} == {"student"}
    assert set(run.read_json("plan.json")) == {"dpo"}


def test_pairs_that_leak_the_exam_repeat_or_are_none_are_left_out(tmp_path, tiny_model, teacher, abstracts):
    path = write_recipe(tmp_path, tiny_model, teacher.url, abstracts)
    asked = pipeline.run(load_recipe(path), tmp_path / "run", until="exam").read_records("exam.jsonl", Question)
    leak = {"prompt": asked[0].question, "chosen": "Yes.", "rejected": "No."}
    same = {"prompt": "Who?", "chosen": "A.", "rejected": "a."}
    whole = {
        "chosen": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "They."}],
        "rejected": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Them."}],
    }
    file = write_pairs(tmp_path, [leak, same, whole, whole, {"prompt": "Who?", "chosen": "A."}])
    recipe = load_recipe(path, [f'preference.data=["{file}"]'])
    run = pipeline.run(recipe, tmp_path / "run", until="pairs")
    assert len(run.read_records("pairs.jsonl", PreferencePair)) == 13
    reasons = [
        json.loads(line)["reason"] for line in run.file("rejected.jsonl").read_text().splitlines() if '"pairs"' in line
    ]
    assert sorted(reasons) == ["chosen and rejected are the same", "duplicate", "leaks an exam question", "not a pair"]


def test_no_pair_at_all_is_an_error_with_the_form(tmp_path, tiny_model, teacher, abstracts):
    path = write_recipe(tmp_path, tiny_model, teacher.url, abstracts)
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "Who?", "chosen": "A."}\n')
    with pytest.raises(DocumentError, match="no preference pair") as caught:
        pipeline.run(load_recipe(path, ['preference.data=["pairs.jsonl"]']), tmp_path / "run", until="pairs")
    assert '"rejected"' in caught.value.hint


@pytest.mark.parametrize(
    ("assignment", "cause"),
    [
        ("training.epochs=0", "nothing to train"),
        ('training.method="full"', "4-bit weights cannot move"),
        ("model.sharded=true", "quantized bases are copied"),
    ],
)
def test_settings_that_do_not_fit_together_say_why(tmp_path, tiny_model, abstracts, assignment, cause):
    path = write_recipe(tmp_path, tiny_model, "http://localhost:1/v1", abstracts, model={"quantization": "nf4"})
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, [assignment])
    assert cause in caught.value.cause


def test_plan_proves_itself_before_there_is_data(tmp_path, tiny_model, teacher, abstracts, capsys):
    path = write_recipe(tmp_path, tiny_model, teacher.url, abstracts, training={"max_tokens": 64})
    plan.prove_plan(load_recipe(path), tmp_path / "run")
    stderr = capsys.readouterr().err
    assert "samples of training.max_tokens stand for it" in stderr
    assert "real steps took" in stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_launch_of_two_processes_runs_the_whole_path(tmp_path, tiny_model, teacher, abstracts):
    """The first process runs every stage, the second one takes part in training; run again, nothing is done."""
    path = write_recipe(tmp_path, tiny_model, teacher.url, abstracts)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "tunewright", "run", str(path), "--dir", str(tmp_path / "run")]
    for _ in range(2):
        result = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert result.returncode == 0, result.stderr[-3000:]
    run = RunFolder.open(tmp_path / "run")
    assert started(run) == [name for name in STAGES if name != "pairs"]
    assert result.stdout.count("verdict") + result.stderr.count("verdict:") == 1
