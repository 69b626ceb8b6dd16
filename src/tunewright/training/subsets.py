"""Nested parts of a training set, for a learning curve: the smaller ones lie within the larger ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import TypeVar

from tunewright.recipe import Recipe
from tunewright.records import Document, PreferencePair, Sample, SplitEntry, digest
from tunewright.rundir import RunFolder

_Item = TypeVar("_Item")


def nested(
    items: Sequence[_Item], percent: int, seed: int, name: Callable[[_Item], str], kind: Callable[[_Item], str]
) -> list[_Item]:
    """Return a share of the items in their order: of each kind the same share, rounded up, drawn by the seed.

    Who is drawn for a smaller share is drawn for every larger one too.
    """
    kept: set[int] = set()
    for one in dict.fromkeys(map(kind, items)):
        places = [place for place, item in enumerate(items) if kind(item) == one]
        ranked = sorted(places, key=lambda place: digest("curve", seed, name(items[place])))
        kept |= set(ranked[: math.ceil(Fraction(percent, 100) * len(ranked))])
    return [item for place, item in enumerate(items) if place in kept]


def write_subset(run: RunFolder, own: RunFolder, recipe: Recipe, percent: int) -> int:
    """Write the share of a run's training data to another folder; return its size as ``training_size`` counts it."""
    seed = recipe.seed
    if recipe.needs_samples:
        samples = run.read_records("train.jsonl", Sample)
        drawn = nested(samples, percent, seed, lambda sample: sample.id, lambda sample: sample.task)
        own.write_records("train.jsonl", drawn)
    if recipe.preference.wanted:
        pairs = run.read_records("pairs.jsonl", PreferencePair)
        preferred = nested(pairs, percent, seed, lambda pair: pair.id, lambda pair: pair.origin)
        own.write_records("pairs.jsonl", preferred)
    if recipe.training.text_share:
        entries = run.read_records("split.jsonl", SplitEntry)
        learning = [entry for entry in entries if entry.side == "train"]
        reading = nested(learning, percent, seed, lambda entry: entry.document, lambda entry: entry.side)
        own.write_records("split.jsonl", reading)
        own.write_records("documents.jsonl", run.read_records("documents.jsonl", Document))
    return training_size(own, recipe)


def training_size(run: RunFolder, recipe: Recipe) -> int:
    """Return how much a run trains on: its samples and pairs, or its documents where it learns raw text alone."""
    size = 0
    if recipe.needs_samples:
        size += len(run.read_records("train.jsonl", Sample))
    if recipe.preference.wanted:
        size += len(run.read_records("pairs.jsonl", PreferencePair))
    return size or sum(entry.side == "train" for entry in run.read_records("split.jsonl", SplitEntry))
