"""The placebo: an adapter trained by the same recipe on the same prompts, with each other's answers.

What it gains over the base is form: the tone, the length, the habit of answering or of declining. Only what the tuned
model gains over it is knowledge of which answer belongs to which question.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunewright.distributed import processes
from tunewright.errors import TrainingError
from tunewright.recipe import Recipe
from tunewright.records import PreferencePair, Sample, StageSummary, digest
from tunewright.run_folder import RunFile, RunFolder
from tunewright.training.stage import train_adapter

FOLDER = "placebo"


def train_placebo(run: RunFolder, recipe: Recipe) -> StageSummary:
    """Train on the run's training set with its answers shuffled, in the folder placebo/; resumed like the training.

    Raises:
        TrainingError: all answers are the same, so that shuffling changes nothing.
    """
    own, group = RunFolder(run.file(FOLDER)), processes()
    if group.is_first:
        _write_shuffled(run, own, recipe)
    group.wait()
    # A long question may get a long answer; both fitted before, so that twice the limit holds any two.
    training = recipe.training.model_copy(update={"max_tokens": 2 * recipe.training.max_tokens})
    return train_adapter(own, recipe.model_copy(update={"training": training}))


def _write_shuffled(run: RunFolder, own: RunFolder, recipe: Recipe) -> None:
    moved = 0
    if recipe.needs_samples and run.file(RunFile.TRAIN).exists():
        samples = run.read_records(RunFile.TRAIN, Sample)
        shuffled = shuffled_answers(samples, recipe.seed)
        moved += sum(before.messages != after.messages for before, after in zip(samples, shuffled, strict=True))
        own.write_records(RunFile.TRAIN, shuffled)
    if recipe.preference.wanted:
        pairs = run.read_records(RunFile.PAIRS, PreferencePair)
        exchanged = shuffled_pairs(pairs, recipe.seed)
        moved += sum(before.chosen != after.chosen for before, after in zip(pairs, exchanged, strict=True))
        own.write_records(RunFile.PAIRS, exchanged)
    if not moved:
        raise TrainingError(
            "a placebo of this training set would be the adapter itself",
            "all of its answers are the same, and shuffling them changes nothing",
            'leave "placebo" out of evaluation.arms',
        )


def donors(texts: Sequence[str], seed: int) -> list[int]:
    """Return for each text the place of another to take instead: each place once, the same text as seldom as can be.

    Equal texts stand together, in an order drawn by the seed, and all move on by the number of the most frequent one:
    so none meets its equal unless more than half of all are equal.
    """
    places: dict[str, list[int]] = {}
    for place, text in enumerate(texts):
        places.setdefault(text, []).append(place)
    order = [place for text in sorted(places, key=lambda text: digest(FOLDER, seed, text)) for place in places[text]]
    step = max((len(same) for same in places.values()), default=0)
    taken = [0] * len(order)
    for number, place in enumerate(order):
        taken[place] = order[(number + step) % len(order)]
    return taken


def shuffled_answers(samples: Sequence[Sample], seed: int) -> list[Sample]:
    """Return the samples with their assistant turns exchanged within each task, refusals among refusals.

    A task with a single answer exchanges it with those of other such tasks, or with the largest task's.
    """
    turns: dict[str, list[tuple[int, int]]] = {}
    for number, sample in enumerate(samples):
        own = [(number, place) for place, message in enumerate(sample.messages) if message.role == "assistant"]
        turns.setdefault(sample.task, []).extend(own)
    told = {(n, place): samples[n].messages[place].content for pool in turns.values() for n, place in pool}
    for pool in _pools(list(turns.values())):
        before = [samples[n].messages[place].content for n, place in pool]
        told |= {turn: before[donor] for turn, donor in zip(pool, donors(before, seed), strict=True)}
    return [
        sample.model_copy(
            update={
                "messages": tuple(
                    message.model_copy(update={"content": told.get((number, place), message.content)})
                    for place, message in enumerate(sample.messages)
                ),
                "evidence": None,
                "further_evidence": (),
            }
        )
        for number, sample in enumerate(samples)
    ]


def _pools(tasks: Sequence[list[tuple[int, int]]]) -> list[list[tuple[int, int]]]:
    """Return the groups of turns that exchange answers, none of them of one turn alone where that can be helped."""
    large = [turns for turns in tasks if len(turns) > 1]
    single = [turn for turns in tasks if len(turns) == 1 for turn in turns]
    if len(single) == 1 and large:
        largest = max(large, key=len)
        return [[*turns, *single] if turns is largest else turns for turns in large]
    return [*large, single] if single else large


def shuffled_pairs(pairs: Sequence[PreferencePair], seed: int) -> list[PreferencePair]:
    """Return the pairs with the chosen and the rejected answer of another prompt, both of the same one."""
    taken = [pairs[donor] for donor in donors([pair.chosen for pair in pairs], seed)]
    return [
        pair.model_copy(update={"chosen": other.chosen, "rejected": other.rejected})
        for pair, other in zip(pairs, taken, strict=True)
    ]
