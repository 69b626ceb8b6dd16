"""The gradient does not depend on how a step is cut or packed, and equals TRL's on the same tokens."""

from pathlib import Path

import pytest
import torch

from support.bench_of_training import (
    dpo_objective,
    loop_settings,
    pairs,
    tasks,
    tiny_adapted,
    tiny_examples,
    tiny_pairs,
    wake,
)
from tunewright.models.chat_template import IGNORED, load_tokenizer
from tunewright.models.loading import attach_adapter, load_base, pick_device
from tunewright.settings import TrainingSettings
from tunewright.training.checkpoint import trainable
from tunewright.training.loop import TrainingTask, accumulate, held_out_loss
from tunewright.training.objectives import NEXT_TOKEN, reference_logps, sequence_logps
from tunewright.training.packing import collate
from tunewright.training.plain_path import PlainPath
from tunewright.training.step_plan import Capacity


def gradients(model, run):
    model.zero_grad()
    loss = run()
    return float(loss), {name: parameter.grad.clone() for name, parameter in trainable(model).items()}


def ours(model, objective, examples, budget):
    def run():
        return accumulate(PlainPath(model), objective, examples, loop_settings(), Capacity(budget))["loss"]

    return gradients(model, run)


def assert_close(ours, reference, tolerance=1e-5):
    for name, gradient in ours.items():
        assert gradient.norm() > 0
        assert (reference[name] - gradient).norm() <= tolerance * gradient.norm(), name


@pytest.mark.parametrize("name", ["sft", "text", "distillation", "dpo"])
@pytest.mark.parametrize("budget", [1, 120])
def test_a_packed_row_equals_many_smaller_rows(tiny_model, name, budget):
    model, task = wake(tiny_adapted(tiny_model)), tasks(tiny_model)[name]
    whole_loss, whole = ours(model, task.objective, task.examples[:8], 100_000)
    parts_loss, parts = ours(model, task.objective, task.examples[:8], budget)
    assert parts_loss == pytest.approx(whole_loss, rel=1e-5)
    assert_close(whole, parts)


def test_activation_checkpointing_changes_nothing(tiny_model):
    model, examples = wake(tiny_adapted(tiny_model)).train(), tiny_examples(tiny_model, 8)
    plain_loss, plain = ours(model, NEXT_TOKEN, examples, 200)
    Capacity(200, kept=0).apply(PlainPath(model))
    again_loss, again = ours(model, NEXT_TOKEN, examples, 200)
    assert again_loss == plain_loss
    assert all(torch.equal(plain[name], again[name]) for name in plain)


def test_each_sample_has_the_loss_that_it_has_alone(tiny_model):
    """No token sees across a border: the packed log-probabilities are those of plain, unpacked forward passes."""
    model, examples = wake(tiny_adapted(tiny_model)).eval(), tiny_examples(tiny_model, 6)
    with torch.no_grad():
        packed = sequence_logps(PlainPath(model), collate(examples, "cpu"))[0]
        for example, together in zip(examples, packed, strict=True):
            sequence = example.sequences[0]
            ids, labels = torch.tensor([sequence.input_ids]), torch.tensor(sequence.labels)
            logits = model(input_ids=ids).logits[0, :-1]
            alone = torch.nn.functional.cross_entropy(logits, labels[1:], ignore_index=IGNORED, reduction="sum")
            assert float(-together) == pytest.approx(float(alone), rel=1e-5)


def trl_arguments(tmp_path: Path, size: int) -> dict:
    return {
        "output_dir": str(tmp_path),
        "per_device_train_batch_size": size,
        "bf16": False,
        "use_cpu": True,
        "report_to": [],
        "max_length": None,
        "gradient_checkpointing": False,
    }


def test_loss_and_gradients_equal_trl(tiny_model, tmp_path: Path):
    """TRL's SFTTrainer on the same token ids and labels, batch of 6, fp32."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    examples = tiny_examples(tiny_model, 6)
    model = wake(tiny_adapted(tiny_model))
    ours_loss, mine = ours(model, NEXT_TOKEN, examples, 150)
    model.zero_grad()
    rows = [{"input_ids": e.sequences[0].input_ids, "labels": e.sequences[0].labels} for e in examples]
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            dataset_kwargs={"skip_prepare_dataset": True}, remove_unused_columns=False, **trl_arguments(tmp_path, 6)
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=load_tokenizer(tiny_model),
    )
    inputs = next(iter(trainer.get_train_dataloader()))
    theirs_loss = trainer.compute_loss(trainer.model, inputs)
    theirs_loss.backward()
    theirs = {name: p.grad.clone() for name, p in trainable(trainer.model).items()}
    assert float(theirs_loss.detach()) == pytest.approx(ours_loss, rel=1e-5)
    assert_close(mine, theirs)


@pytest.mark.parametrize(
    ("kind", "label_smoothing", "theirs"),
    [("sigmoid", 0.0, "sigmoid"), ("normalized", 0.0, "sigmoid_norm"), ("ipo", 0.0, "ipo"), ("sigmoid", 0.1, "aot")],
)
def test_dpo_loss_and_gradients_equal_trl(tiny_model, tmp_path: Path, kind, label_smoothing, theirs):
    """TRL's DPOTrainer on the same token ids, four pairs, fp32; the reference is the adapter before a change.

    TRL offers no smoothed sigmoid by that name; on a single pair its "aot" loss is that formula.
    """
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    size = 1 if theirs == "aot" else 4
    examples = tiny_pairs(tiny_model, size)
    model = wake(tiny_adapted(tiny_model))
    reference = reference_logps(PlainPath(model), [examples], lambda row: collate(row, "cpu"))
    objective = dpo_objective(tiny_model, examples, kind=kind, label_smoothing=label_smoothing, reference=reference)
    rows = []
    for pair, example in zip(pairs(size), examples, strict=True):
        chosen, rejected = example.sequences
        start = next(index for index, label in enumerate(chosen.labels) if label != IGNORED)
        rows.append(
            {
                "prompt_ids": chosen.input_ids[:start],
                "chosen_ids": [label for label in chosen.labels if label != IGNORED],
                "rejected_ids": [label for label in rejected.labels if label != IGNORED],
                "prompt": [message.model_dump() for message in pair.prompt],
                "chosen": [{"role": "assistant", "content": pair.chosen}],
                "rejected": [{"role": "assistant", "content": pair.rejected}],
            }
        )
    trainer = DPOTrainer(
        model=model,
        args=DPOConfig(beta=0.3, loss_type=[theirs], label_smoothing=label_smoothing, **trl_arguments(tmp_path, size)),
        train_dataset=Dataset.from_list(rows),
        processing_class=load_tokenizer(tiny_model),
    )
    # The same tokens as ours: TRL's own tokenization leaves the newline after the end token in the answer.
    trainer.train_dataset = Dataset.from_list([{k: r[k] for k in r if k.endswith("_ids")} for r in rows])
    wake(trainer.model, seed=2)  # TRL kept a copy of the adapter as it was, for its reference
    inputs = trainer.data_collator(list(trainer.train_dataset))
    trainer.model.zero_grad()
    theirs_loss = trainer.compute_loss(trainer.model, inputs)
    theirs_loss.backward()
    gradients_of_trl = {name: p.grad.clone() for name, p in trainable(trainer.model).items()}
    ours_loss, mine = ours(trainer.model, objective, examples, 150)
    assert float(theirs_loss.detach()) == pytest.approx(ours_loss, rel=1e-5)
    assert_close(mine, gradients_of_trl)


@pytest.mark.parametrize("quantization", ["nf4-double", "int8", "none"])
def test_measuring_the_held_out_loss_changes_no_gradient(tiny_model, quantization):
    """In evaluation mode bitsandbytes repacks weights on some CPUs, and later gradients are off by a factor."""
    base = load_base(tiny_model, quantization, pick_device(), torch.bfloat16)
    model = wake(attach_adapter(base, TrainingSettings(rank=4, dropout=0.1), 0)).train()
    task = TrainingTask(tiny_examples(tiny_model, 8), NEXT_TOKEN, tiny_examples(tiny_model, 4))
    settings = loop_settings(device=pick_device(), compute=torch.bfloat16)

    def gradient():
        torch.manual_seed(5)
        model.zero_grad()
        accumulate(PlainPath(model), task.objective, task.examples, settings, Capacity(200))
        return {name: parameter.grad.clone() for name, parameter in trainable(model).items()}

    before = gradient()
    losses = [held_out_loss(PlainPath(model), task, settings, Capacity(200))["held_out_loss"] for _ in range(2)]
    assert losses[0] == losses[1]  # no dropout
    after = gradient()
    assert all(torch.equal(before[name], after[name]) for name in before)
