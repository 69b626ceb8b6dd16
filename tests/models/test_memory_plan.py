"""The memory budget: what is predicted, what is chosen, and that more memory never makes a plan slower."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright.models.hardware import Shape
from tunewright.models.memory_plan import (
    EVERYTHING,
    LEVELS,
    SPARE,
    Choice,
    choose,
    describe_choice,
    levels_of,
    predict_memory,
    step_cost,
)
from tunewright.recipe import Recipe
from tunewright.settings import ModelSettings, TrainingSettings

LLAMA_8B = {
    "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 128256, "model_type": "llama",
}  # fmt: skip
SHAPE = Shape.of(LLAMA_8B)
GIB = 2**30


def recipe(fp8=False, **training):
    return Recipe(model=ModelSettings(fp8=fp8), training=TrainingSettings(**({"max_tokens": 2048} | training)))


def chosen(gib, fast=True, **training):
    return choose(recipe(**training), SHAPE, gib * GIB, fast, gpu=True)


# Measured on an H200 (torch's reserved bytes; the driver's share is not in them).
@pytest.mark.parametrize(
    ("tokens", "kept", "cached", "measured"),
    [(8192, 0, False, 9.67), (4096, 32, False, 11.99), (8192, 16, False, 13.29), (16384, 96, True, 92.08)],
)
def test_predicted_memory_is_near_the_measured(tokens, kept, cached, measured):
    memory = predict_memory(recipe(), SHAPE, Choice(tokens, kept, cached), fast=True)
    assert (memory.total - 0.6e9) / GIB == pytest.approx(measured, rel=0.06)


def test_a_large_card_keeps_everything():
    best = chosen(139)
    assert (best.tokens, best.kept, best.cached) == (16384, LEVELS * 32, True)
    assert "GiB" in best.why


def test_a_small_card_recomputes():
    best = chosen(11)
    assert not best.cached
    assert best.kept < 64
    assert predict_memory(recipe(), SHAPE, best, fast=True).total <= 11 * GIB * (1 - SPARE)


@given(st.floats(7, 160), st.floats(0, 60))
def test_more_memory_is_never_slower_and_always_fits(gib, more):
    less, larger = chosen(gib), chosen(gib + more)
    for budget, best in ((gib, less), (gib + more, larger)):
        if "not to fit" not in best.why:
            assert predict_memory(recipe(), SHAPE, best, fast=True).total <= budget * GIB * (1 - SPARE)
            assert step_cost(SHAPE, larger) <= step_cost(SHAPE, less) or "not to fit" in less.why


@given(st.integers(0, LEVELS * 32))
def test_every_level_takes_memory_and_saves_time(kept):
    if kept == LEVELS * 32:
        return
    less, more = Choice(8192, kept), Choice(8192, kept + 1)
    assert predict_memory(recipe(), SHAPE, less, True).total < predict_memory(recipe(), SHAPE, more, True).total
    assert step_cost(SHAPE, more) < step_cost(SHAPE, less)
    assert sum(levels_of(32, kept)) == kept


def test_the_recipes_own_values_win():
    assert chosen(139, micro_batch_tokens=512).tokens == 512


def test_rows_are_no_larger_than_a_step():
    assert chosen(139, batch_size=1, max_tokens=256).tokens == 512


def test_without_the_fast_path_it_is_all_or_nothing():
    assert chosen(139, fast=False).kept == EVERYTHING
    assert chosen(16, fast=False).kept == 0
    assert not chosen(139, fast=False).cached


def test_eight_bit_gradients_take_a_byte_per_weight():
    choice = Choice(8192, 0, True)
    plain, coarse = (predict_memory(recipe(fp8), SHAPE, choice, fast=True).total for fp8 in (False, True))
    assert coarse - plain == SHAPE.block_weights


def test_nothing_fits_is_reported():
    assert "not to fit" in chosen(3).why


def test_a_cpu_keeps_the_full_weights_where_they_fit():
    small = dataclasses.replace(SHAPE, block_weights=10**8)
    assert choose(recipe(), small, 16 * GIB, True, gpu=False).cached
    assert not choose(recipe(), SHAPE, 16 * GIB, True, gpu=False).cached
    assert choose(recipe(), None, 16 * GIB, True, gpu=False).tokens == 512


def test_a_choice_in_words():
    assert describe_choice(Choice(8192, 0), 32) == "8,192 tokens at once, activation checkpointing on"
    assert describe_choice(Choice(8192, 16), 32) == (
        "8,192 tokens at once, activation checkpointing on for attention in 16 and for the MLP in 32 of 32 layers"
    )
    assert describe_choice(Choice(16384, 96, True), 32).endswith("checkpointing off; a full copy of the base is kept")
