"""The gradient does not depend on how a batch is cut, and equals TRL's on the same tokens."""

from pathlib import Path

import pytest
import torch
from bench_of_training import loop_settings, tiny_adapted, tiny_examples

from tunewright.models.template import IGNORED, load_tokenizer
from tunewright.training.batches import collate
from tunewright.training.checkpoint import trainable
from tunewright.training.loop import accumulate
from tunewright.training.objectives import sft_loss


def wake(model):
    """Give the adapter's zero halves values, so that every parameter has a gradient."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return model


def gradients(model, run):
    model.zero_grad()
    loss = run()
    return loss, {name: parameter.grad.clone() for name, parameter in trainable(model).items()}


@pytest.mark.parametrize("micro_batch_size", [1, 3])
def test_one_batch_of_8_equals_accumulated_smaller_ones(tiny_model, micro_batch_size):
    model, examples = wake(tiny_adapted(tiny_model)), tiny_examples(tiny_model, 8)
    whole_loss, whole = gradients(model, lambda: accumulate(model, examples, loop_settings(micro_batch_size=8))[0])
    parts_loss, parts = gradients(
        model, lambda: accumulate(model, examples, loop_settings(micro_batch_size=micro_batch_size))[0]
    )
    assert parts_loss == pytest.approx(whole_loss, rel=1e-5)
    for name, gradient in whole.items():
        assert gradient.norm() > 0
        assert (parts[name] - gradient).norm() <= 1e-5 * gradient.norm(), name


def test_loss_is_the_plain_one_over_all_logits(tiny_model):
    model, examples = tiny_adapted(tiny_model), tiny_examples(tiny_model, 5)
    batch = collate(examples, 2, "cpu")
    total, number = sft_loss(model, batch)
    logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[:, :-1]
    plain = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), batch.labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="sum"
    )
    assert number == sum(example.encoded.num_supervised for example in examples)
    assert float(total.detach()) == pytest.approx(float(plain.detach()), rel=1e-6)


def test_loss_and_gradients_equal_trl(tiny_model, tmp_path: Path):
    """TRL's SFTTrainer on the same token ids and labels, batch of 6, fp32."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    examples = tiny_examples(tiny_model, 6)
    model = wake(tiny_adapted(tiny_model))
    ours_loss, ours = gradients(model, lambda: accumulate(model, examples, loop_settings(micro_batch_size=2))[0])
    model.zero_grad()
    rows = [{"input_ids": e.encoded.input_ids, "labels": e.encoded.labels} for e in examples]
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(tmp_path),
            per_device_train_batch_size=6,
            bf16=False,
            use_cpu=True,
            report_to=[],
            max_length=None,
            gradient_checkpointing=False,
            dataset_kwargs={"skip_prepare_dataset": True},
            remove_unused_columns=False,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=load_tokenizer(tiny_model),
    )
    inputs = next(iter(trainer.get_train_dataloader()))
    theirs_loss = trainer.compute_loss(trainer.model, inputs)
    theirs_loss.backward()
    assert float(theirs_loss.detach()) == pytest.approx(ours_loss, rel=1e-5)
    theirs = trainable(trainer.model)
    for name, gradient in ours.items():
        assert (theirs[name].grad - gradient).norm() <= 1e-5 * gradient.norm(), name
