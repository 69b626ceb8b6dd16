from hypothesis import given
from hypothesis import strategies as st

from tunewright.models.chat_template import IGNORED, Encoded
from tunewright.training.packing import Example, collate, epoch_order, num_steps, pack, step_examples

sizes = st.integers(1, 60)
lengths = st.lists(st.integers(1, 90), min_size=1, max_size=60)


def examples_of(lengths):
    return [Example(f"e{n:02d}", (Encoded([7] * size, [7] * size, True),)) for n, size in enumerate(lengths)]


@given(sizes, st.integers(1, 17), st.integers(1, 4), st.integers(0, 9))
def test_every_example_is_used_exactly_once_per_epoch(num_examples, batch_size, epochs, seed):
    total = num_steps(num_examples, batch_size, epochs)
    used = [step_examples(num_examples, batch_size, seed, step) for step in range(total)]
    flat = [number for step in used for number in step]
    for epoch in range(epochs):
        assert sorted(flat[epoch * num_examples : (epoch + 1) * num_examples]) == list(range(num_examples))
    assert all(used)


@given(st.integers(20, 60), st.integers(0, 9))
def test_order_depends_on_seed_and_epoch_alone(num_examples, seed):
    assert epoch_order(num_examples, seed, 1) == epoch_order(num_examples, seed, 1)
    assert epoch_order(num_examples, seed, 0) != epoch_order(num_examples, seed, 1)
    assert epoch_order(num_examples, seed, 0) != epoch_order(num_examples, seed + 1, 0)


@given(lengths, st.integers(1, 120))
def test_packing_keeps_every_example_once_and_every_row_within_the_budget(lengths, budget):
    examples = examples_of(lengths)
    rows = pack(examples, budget)
    assert sorted(example.sample for row in rows for example in row) == [example.sample for example in examples]
    for row in rows:
        assert sum(example.num_tokens for example in row) <= budget or len(row) == 1


@given(lengths, st.integers(90, 400))
def test_packing_needs_few_rows(lengths, budget):
    """Best-fit decreasing: at most 11/9 of the fewest possible and 4 more (Johnson 1974)."""
    fewest = -(-sum(lengths) // budget)
    rows = pack(examples_of(lengths), budget)
    # The fewest rows are not known, but no two rows of a best fit could be one.
    fill = sorted(sum(example.num_tokens for example in row) for row in rows)
    assert len(rows) < 2 or fill[0] + fill[1] > budget
    assert len(rows) <= 2 * fewest


@given(lengths, st.integers(1, 200), st.randoms())
def test_packing_does_not_depend_on_the_order_given(lengths, budget, random):
    examples = examples_of(lengths)
    shuffled = list(examples)
    random.shuffle(shuffled)
    assert pack(examples, budget) == pack(shuffled, budget)


def test_a_row_restarts_positions_and_never_supervises_a_first_token():
    encoded = [Encoded([5, 6, 7], [5, 6, 7], True), Encoded([8, 9], [IGNORED, 9], True)]
    batch = collate([Example("a", (encoded[0],)), Example("b", (encoded[1],))], "cpu")
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 9]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 0, 1]]
    assert batch.lengths == (3, 2)
    assert batch.logit_positions.tolist() == [0, 1, 3]
    assert batch.targets.tolist() == [6, 7, 9]
    assert batch.owner.tolist() == [0, 0, 1]
