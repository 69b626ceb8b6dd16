"""Reward scores of samples: a rank to look at and to choose by, and never what lets a sample in or keeps it out."""

from __future__ import annotations

from collections.abc import Sequence

from tunewright import console
from tunewright.models.load import pick_device
from tunewright.models.reward import load_reward, score
from tunewright.models.source import locate
from tunewright.recipe import Recipe
from tunewright.records import Record, Sample
from tunewright.rundir import RunFolder

FILE = "rewards.jsonl"


class Reward(Record):
    """A sample's score by ``curation.reward``, on that model's own scale."""

    sample: str
    reward: float


def rewards_of(exchanges: Sequence[tuple[str, str]], recipe: Recipe) -> list[float]:
    """Return the reward of each (prompt, answer), by the model that ``curation.reward`` names.

    Raises:
        ModelError: the model cannot be loaded, or is no reward model.
    """
    if not exchanges:
        return []
    device = pick_device()
    console.line(f"loading {recipe.curation.reward} on {device}")
    model, tokenizer = load_reward(locate(recipe.curation.reward, recipe.folder), device)
    with console.progress("rewards", len(exchanges)) as bar:
        scored = score(model, tokenizer, exchanges, bar.advance)
    if scored.num_cut:
        console.warning(
            f"{scored.num_cut} of {len(exchanges)} exchanges are longer than the {scored.limit} tokens of the reward "
            "model: it did not see the beginning of their prompt"
        )
    return scored.rewards


def ranked(samples: Sequence[Sample], recipe: Recipe) -> list[float]:
    """Return the reward of each sample's last answer to its last question, in the samples' order."""
    return rewards_of([(sample.question, sample.answer) for sample in samples], recipe)


def write_rewards(run: RunFolder, samples: Sequence[Sample], recipe: Recipe) -> dict[str, float | int | str]:
    """Write rewards.jsonl for the samples and return the figures: mean, least and greatest; nothing without a model."""
    if not recipe.curation.reward or not samples:
        return {}
    rewards = ranked(samples, recipe)
    run.write_records(FILE, [Reward(sample=s.id, reward=r) for s, r in zip(samples, rewards, strict=True)])
    return {
        "reward_mean": round(sum(rewards) / len(rewards), 4),
        "reward_min": round(min(rewards), 4),
        "reward_max": round(max(rewards), 4),
    }
