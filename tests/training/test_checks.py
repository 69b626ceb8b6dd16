from tunewright.training.checks import advise


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
