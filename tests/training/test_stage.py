"""The train stage on a tiny model: every variant, both phases, raw text, and several processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from support.bench_of_training import pairs, samples
from support.warm_process import run_command
from tunewright.errors import TrainingError
from tunewright.models.loading import for_inference, load_adapter, pick_device
from tunewright.models.student import student_base, student_tokenizer
from tunewright.recipe import Recipe, dump_recipe
from tunewright.records import Chunk, Document, SplitEntry
from tunewright.run_folder import RunFolder
from tunewright.settings import (
    DistillationSettings,
    DocumentSettings,
    ModelSettings,
    PreferenceSettings,
    TrainingSettings,
)
from tunewright.storage import file_digest
from tunewright.training.metrics import read_metrics
from tunewright.training.stage import train_adapter

TEXT = "The treated group had the lower risk. The survey of nurses followed 426 patients in three hospitals. " * 6
FEW_STEPS = {"rank": 4, "alpha": 8, "epochs": 2, "learning_rate": 0.01, "batch_size": 8, "held_out_share": 0.2}


def make_run(folder: Path) -> RunFolder:
    run = RunFolder.create(folder)
    run.write_records("train.jsonl", samples(24))
    run.write_records("pairs.jsonl", pairs(20))
    documents = [Document(id=f"d{n}", title="", source=f"{n}.txt", text=f"{n} {TEXT}") for n in range(6)]
    run.write_records("documents.jsonl", documents)
    sides = ["train"] * 4 + ["exam"] * 2
    run.write_records("split.jsonl", [SplitEntry(document=f"d{n}", side=s, group=f"d{n}") for n, s in enumerate(sides)])
    return run


def make_recipe(tiny_model: Path, training: dict | None = None, model: dict | None = None, **preference) -> Recipe:
    return Recipe(
        documents=DocumentSettings(paths=("somewhere",)),
        model=ModelSettings(**({"base": str(tiny_model), "quantization": "none", "compute": "fp32"} | (model or {}))),
        training=TrainingSettings(**(FEW_STEPS | (training or {}))),
        preference=PreferenceSettings(
            **({"data": ("pairs",), "epochs": 2, "learning_rate": 0.003} | preference if preference else {})
        ),
    )


def losses(run: RunFolder, phase: str = "sft") -> list[float]:
    rows = read_metrics(run.file("metrics.jsonl"))
    return [row["loss"] for row in rows if row["phase"] == phase and "loss" in row]


VARIANTS = {
    "rslora": ({"method": "rslora"}, {}),
    "dora": ({"method": "dora"}, {}),
    "full": ({"method": "full", "learning_rate": 0.003}, {}),
    "full-bf16": ({"method": "full", "learning_rate": 0.003}, {"compute": "bf16"}),
    "nf4": ({}, {"quantization": "nf4"}),
    "nf4-double": ({}, {"quantization": "nf4-double"}),
    "nf4-dora": ({"method": "dora"}, {"quantization": "nf4-double"}),
    "int8": ({}, {"quantization": "int8"}),
    "bf16": ({}, {"compute": "bf16"}),
    "fp16": ({}, {"compute": "fp16"}),
    "attention": ({"targets": ("attention",)}, {}),
    "listed": ({"targets": ("up_proj", "down_proj")}, {}),
    "adamw-8bit": ({"optimizer": "adamw-8bit"}, {}),
    "paged-adamw-8bit": ({"optimizer": "paged-adamw-8bit"}, {}),
    "linear": ({"schedule": "linear"}, {}),
    "dropout": ({"dropout": 0.1}, {}),
    "added-tokens": ({}, {"added_tokens": ("<severity>", "<label>")}),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_learns_and_its_result_loads_with_the_same_logits(tiny_model, tmp_path, name):
    training, model = VARIANTS[name]
    recipe = make_recipe(tiny_model, {"epochs": 4} | training, model)
    run = make_run(tmp_path / "run")
    summary = train_adapter(run, recipe)
    assert losses(run)[-1] < losses(run)[0] - 0.1
    assert summary.num_in == summary.num_out == 24
    assert summary.figures["held_out"] == 5
    tokenizer = student_tokenizer(recipe)
    loaded = [load_adapter(student_base(recipe, pick_device(), tokenizer), run.file("adapter")) for _ in range(2)]
    base = for_inference(student_base(recipe, pick_device(), tokenizer))
    ids = torch.arange(3, 40, device=pick_device())[None]
    with torch.inference_mode():
        assert torch.equal(loaded[0](ids).logits, loaded[1](ids).logits)
        assert not torch.allclose(loaded[0](ids).logits, base(ids).logits, atol=1e-3)
    assert file_digest(run.file("checkpoints/sft/epoch-4")) and run.file("adapter/tokenizer.json").exists()


def test_preferences_follow_the_training(tiny_model, tmp_path):
    run = make_run(tmp_path / "run")
    train_adapter(run, make_recipe(tiny_model, beta=0.5))
    rows = read_metrics(run.file("metrics.jsonl"))
    assert [row["phase"] for row in rows] == ["sft"] * 7 + ["dpo"] * 5
    dpo = [row for row in rows if row["phase"] == "dpo" and row["step"]]
    assert rows[7]["held_out_loss"] == pytest.approx(0.6931, abs=1e-3)  # log 2: the reference is where it starts
    assert dpo[-1]["margin"] > dpo[0]["margin"]
    assert set(json.loads(run.file("plan.json").read_text())) == {"sft", "dpo"}


def with_passages(run: RunFolder) -> None:
    """Give the samples passages: document n's are those of the training side, the last four have none."""
    chunks = [
        Chunk(id=f"c{n}", document=f"d{n}", title="", section=(), start=0, end=9, text=f"{n} {TEXT}", num_tokens=90)
        for n in range(6)
    ]
    run.write_records("chunks.jsonl", chunks)
    update = [{"document": f"d{n % 4}", "chunk": f"c{n % 4}"} if n < 20 else {} for n in range(24)]
    own = [sample.model_copy(update=values) for sample, values in zip(samples(24), update, strict=True)]
    run.write_records("train.jsonl", own)


@pytest.mark.parametrize("kernels", ["auto", "off"])
def test_distillation_trains_on_passages_and_on_answers_without_one(tiny_model, tmp_path, kernels, capsys):
    recipe = make_recipe(tiny_model, {"objective": "distillation", "kernels": kernels})
    recipe = recipe.model_copy(update={"distillation": DistillationSettings(cross_entropy=0.5)})
    run = make_run(tmp_path / "run")
    with_passages(run)
    summary = train_adapter(run, recipe)
    assert summary.num_in == summary.num_out == 24
    assert "4 of 24 samples have no passage" in capsys.readouterr().err
    rows = [row for row in read_metrics(run.file("metrics.jsonl")) if row["step"]]
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.1
    assert all(row["divergence"] > 0 for row in rows)
    assert rows[0]["cross_entropy"] > rows[-1]["cross_entropy"] > 0
    plan = json.loads(run.file("plan.json").read_text())["sft"]
    assert plan["planned_s"] > 0
    run.write_records("train.jsonl", samples(24))
    with pytest.raises(TrainingError, match="no sample has a passage"):
        train_adapter(run, recipe)


def test_preferences_alone_start_from_the_base(tiny_model, tmp_path):
    run = make_run(tmp_path / "run")
    summary = train_adapter(run, make_recipe(tiny_model, {"epochs": 0}, loss="ipo"))
    assert {row["phase"] for row in read_metrics(run.file("metrics.jsonl"))} == {"dpo"}
    assert summary.num_in == summary.num_out == 20


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_reference_is_the_base_or_the_trained_model(tiny_model, tmp_path, method):
    """With the base as its reference the first loss already knows what the training before it changed."""
    first = {}
    for reference in ("base", "sft"):
        run = make_run(tmp_path / reference)
        train_adapter(run, make_recipe(tiny_model, {"method": method}, reference=reference))
        rows = [row for row in read_metrics(run.file("metrics.jsonl")) if row["phase"] == "dpo"]
        first[reference] = rows[0]["held_out_loss"]
    assert first["sft"] == pytest.approx(0.6931, abs=1e-3)
    assert abs(first["base"] - first["sft"]) > 1e-2


def test_changed_preferences_do_not_train_the_samples_again(tiny_model, tmp_path):
    run = make_run(tmp_path / "run")
    train_adapter(run, make_recipe(tiny_model, beta=0.5))
    sft = [row for row in read_metrics(run.file("metrics.jsonl")) if row["phase"] == "sft"]
    stamp = run.file("checkpoints/sft").stat().st_mtime_ns
    train_adapter(run, make_recipe(tiny_model, beta=0.1))
    assert [row for row in read_metrics(run.file("metrics.jsonl")) if row["phase"] == "sft"] == sft
    assert run.file("checkpoints/sft").stat().st_mtime_ns == stamp


def test_changed_pairs_are_trained_on_though_their_number_and_order_stay(tiny_model, tmp_path):
    run, fresh = make_run(tmp_path / "run"), make_run(tmp_path / "fresh")
    train_adapter(run, make_recipe(tiny_model, beta=0.5))
    swapped = [pair.model_copy(update={"chosen": pair.rejected, "rejected": pair.chosen}) for pair in pairs(20)]
    for each in (run, fresh):
        each.write_records("pairs.jsonl", swapped)
        train_adapter(each, make_recipe(tiny_model, beta=0.5))
    assert file_digest(run.file("adapter")) == file_digest(fresh.file("adapter"))


def test_pairs_that_only_moved_are_not_trained_on_again(tiny_model, tmp_path):
    run = make_run(tmp_path / "run")
    train_adapter(run, make_recipe(tiny_model, beta=0.5))
    before = run.file("metrics.jsonl").read_bytes()
    train_adapter(run, make_recipe(tiny_model, beta=0.5, data=("elsewhere",)))
    assert run.file("metrics.jsonl").read_bytes() == before


def test_a_phase_that_is_dropped_leaves_no_figures(tiny_model, tmp_path):
    run = make_run(tmp_path / "run")
    train_adapter(run, make_recipe(tiny_model, beta=0.5))
    summary = train_adapter(run, make_recipe(tiny_model))
    assert {row["phase"] for row in read_metrics(run.file("metrics.jsonl"))} == {"sft"}
    assert not [name for name in summary.figures if name.startswith("dpo")]
    assert set(json.loads(run.file("plan.json").read_text())) == {"sft"}


def test_an_unfinished_phase_with_other_settings_is_refused_before_anything_is_removed(
    tiny_model, tmp_path, monkeypatch
):
    from tunewright.training import checkpoint

    run = make_run(tmp_path / "run")
    original = checkpoint.save

    def save(folder, model, optimizer, step, *rest):
        original(folder, model, optimizer, step, *rest)
        if folder.name == "dpo":
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", save)
    with pytest.raises(KeyboardInterrupt):
        train_adapter(run, make_recipe(tiny_model, {"checkpoint_steps": 1}, beta=0.5))
    monkeypatch.undo()
    before = file_digest(run.file("checkpoints"))
    with pytest.raises(TrainingError, match="unfinished training with other settings") as caught:
        train_adapter(run, make_recipe(tiny_model, {"learning_rate": 0.002}, beta=0.5))
    assert "after" in caught.value.cause
    assert file_digest(run.file("checkpoints")) == before
    train_adapter(run, make_recipe(tiny_model, beta=0.5))


def test_a_phase_without_data_is_refused_not_skipped(tiny_model, tmp_path, capsys):
    run = make_run(tmp_path / "run")
    forged = [pair.model_copy(update={"chosen": "<|im_end|>" + pair.chosen}) for pair in pairs(20)]
    run.write_records("pairs.jsonl", forged)
    with pytest.raises(TrainingError, match="nothing to train on") as caught:
        train_adapter(run, make_recipe(tiny_model, beta=0.5))
    assert "all 20 samples were left out" in caught.value.cause
    assert "hold a control token" in capsys.readouterr().err


def test_added_tokens_belong_to_what_names_a_training(tiny_model, tmp_path):
    run = make_run(tmp_path / "run")
    train_adapter(run, make_recipe(tiny_model))
    train_adapter(run, make_recipe(tiny_model, model={"added_tokens": ("<cite>",)}))
    assert any("token" in name for name in trained(run))


def test_raw_text_of_a_tokenizer_without_end_token(tiny_model, tmp_path):
    recipe = make_recipe(tiny_model, {"text_share": 1.0, "max_tokens": 64})
    tokenizer = student_tokenizer(recipe)
    tokenizer.eos_token = tokenizer.bos_token = None
    from tunewright.training.stage import read_training_data

    data = read_training_data(make_run(tmp_path / "run"), recipe, tokenizer)
    assert all(None not in example.sequences[0].input_ids for example in data.examples)


def test_raw_text_alone_trains_on_the_training_documents(tiny_model, tmp_path):
    run = make_run(tmp_path / "run")
    run.file("train.jsonl").unlink()
    summary = train_adapter(run, make_recipe(tiny_model, {"text_share": 1.0, "max_tokens": 64, "epochs": 6}))
    assert losses(run)[-1] < losses(run)[0] - 0.5
    assert summary.figures["text_share"] == 1.0
    assert all(run.file(f"checkpoints/sft/epoch-{n}").exists() for n in range(1, 7))
    plain = [row["num_tokens"] for row in read_metrics(run.file("metrics.jsonl")) if row["step"]]
    tokenizer = student_tokenizer(make_recipe(tiny_model))
    length = len(tokenizer(f"0 {TEXT}")["input_ids"])
    assert sum(plain) / 6 < 4.5 * length  # four documents and the context of their pieces, never six


def test_raw_text_mixes_with_samples(tiny_model, tmp_path):
    run = make_run(tmp_path / "run")
    summary = train_adapter(run, make_recipe(tiny_model, {"text_share": 0.3, "max_tokens": 80}))
    assert summary.figures["text_share"] == pytest.approx(0.3, abs=0.06)
    assert summary.num_in > 24


def test_fp16_halves_its_loss_scale_and_loses_no_sample(tiny_model, tmp_path):
    """From a scale that overflows at once: the step is done again at half of it until the gradient is finite."""
    from tunewright.training import step_plan

    run = make_run(tmp_path / "run")
    before, step_plan._FIRST_LOSS_SCALE = step_plan._FIRST_LOSS_SCALE, 2.0**24
    try:
        train_adapter(run, make_recipe(tiny_model, model={"compute": "fp16"}))
    finally:
        step_plan._FIRST_LOSS_SCALE = before
    state = json.loads(sorted(run.file("checkpoints/sft").glob("step-*"))[-1].joinpath("state.json").read_text())
    assert 1 < state["loop"]["loss_scale"] < 2.0**24
    assert len(losses(run)) == 6


def launch(run: RunFolder, recipe_file: Path, processes: int, *options: str) -> subprocess.CompletedProcess:
    """Train in several processes, as torchrun starts them (tests/test_training_paths.py has a real torchrun)."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **meeting}
    module = "support.train_in_processes"
    return run_command([run.path, recipe_file, *options], environment, module=module, ranks=processes)


def trained(run: RunFolder) -> dict[str, torch.Tensor]:
    return load_file(run.file("adapter/adapter_model.safetensors"))


@pytest.mark.parametrize(
    ("training", "model"),
    [
        pytest.param({}, {}, id="replicated"),
        pytest.param({}, {"sharded": True}, id="sharded", marks=pytest.mark.slow),
        pytest.param({"epochs": 0}, {"sharded": True}, id="sharded-preferences-alone", marks=pytest.mark.slow),
    ],
)
def test_two_processes_train_the_same_as_a_single_process(tiny_model, tmp_path, training, model):
    recipe = make_recipe(tiny_model, training, model, beta=0.5)
    alone, together = make_run(tmp_path / "alone"), make_run(tmp_path / "together")
    train_adapter(alone, recipe)
    (tmp_path / "recipe.toml").write_text(dump_recipe(recipe))
    result = launch(together, tmp_path / "recipe.toml", 2)
    assert result.returncode == 0, result.stderr[-3000:]
    for phase in ("sft", "dpo") if recipe.training.epochs else ("dpo",):
        assert losses(together, phase) == pytest.approx(losses(alone, phase), rel=1e-4)
    for name, value in trained(alone).items():
        assert torch.allclose(trained(together)[name], value, atol=2e-4), name


@pytest.mark.slow
def test_two_processes_distill_the_same_as_a_single_process(tiny_model, tmp_path):
    recipe = make_recipe(tiny_model, {"objective": "distillation"})
    alone, together = make_run(tmp_path / "alone"), make_run(tmp_path / "together")
    with_passages(alone)
    with_passages(together)
    train_adapter(alone, recipe)
    (tmp_path / "recipe.toml").write_text(dump_recipe(recipe))
    result = launch(together, tmp_path / "recipe.toml", 2)
    assert result.returncode == 0, result.stderr[-3000:]
    assert losses(together) == pytest.approx(losses(alone), rel=1e-3)
    for name, value in trained(alone).items():
        assert torch.allclose(trained(together)[name], value, atol=5e-4), name


def test_resume_onto_another_number_of_processes(tiny_model, tmp_path):
    recipe = make_recipe(tiny_model, {"checkpoint_steps": 1})
    alone, cut = make_run(tmp_path / "alone"), make_run(tmp_path / "cut")
    train_adapter(alone, recipe)
    (tmp_path / "recipe.toml").write_text(dump_recipe(recipe))
    first = launch(cut, tmp_path / "recipe.toml", 2, "--stop-after", "2")
    assert first.returncode != 0
    assert len(losses(cut)) == 2
    train_adapter(cut, recipe)
    assert losses(cut) == pytest.approx(losses(alone), rel=1e-4)
    for name, value in trained(alone).items():
        assert torch.allclose(trained(cut)[name], value, atol=2e-4), name
