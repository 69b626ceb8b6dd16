import pytest

from tunewright.errors import TrainingError
from tunewright.records import Rejection
from tunewright.training.checks import advise, check_examples
from tunewright.training.dataset import TOO_LONG


def rows(losses, held=(), phase="sft"):
    steps = [{"phase": phase, "step": n + 1, "epoch": (n + 1) / 10, "loss": loss} for n, loss in enumerate(losses)]
    ends = [{"phase": phase, "step": 0, "epoch": float(n), "held_out_loss": value} for n, value in enumerate(held)]
    return [*steps, *ends]


FALLING = [2.0 - n / 20 for n in range(30)]


def test_all_is_well():
    assert advise(rows(FALLING, [2.0, 1.6, 1.4, 1.39]), 500) == []


def test_too_few_samples_give_advice():
    [sentence] = advise(rows(FALLING), 99)
    assert "Only 99 samples" in sentence
    assert "samples_per_document" in sentence


def test_a_held_out_loss_that_turns_names_the_epoch_to_stop_at():
    [sentence] = advise(rows(FALLING, [2.0, 1.6, 1.4, 1.6]), 500)
    assert "lowest after epoch 2" in sentence
    assert "--set training.epochs=2" in sentence


def test_noise_around_the_lowest_is_no_turn():
    assert advise(rows(FALLING, [2.0, 1.6, 1.40, 1.41]), 500) == []


def test_a_flat_loss_gives_advice():
    [sentence] = advise(rows([2.0] * 30), 500)
    assert "hardly moved (2.000 to 2.000)" in sentence
    assert "training.learning_rate" in sentence


def test_each_phase_is_judged_on_its_own():
    assert len(advise(rows(FALLING) + rows([0.69] * 30, phase="dpo"), 500)) == 1


def test_more_than_one_in_two_hundred_samples_that_do_not_fit_are_refused(tiny_model):
    from support.bench_of_training import tiny_examples

    [example] = tiny_examples(tiny_model, 1)
    too_long = [Rejection(stage="train", id=str(n), reason=TOO_LONG, detail=f"{600 + n} tokens") for n in range(2)]
    check_examples([example] * 199, too_long[:1], 512)
    with pytest.raises(TrainingError, match="2 of 201 samples are longer than training.max_tokens = 512") as caught:
        check_examples([example] * 199, too_long, 512)
    assert "--set training.max_tokens=601" in caught.value.hint
