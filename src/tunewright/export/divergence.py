"""How far an artifact's words are from those examined: prompts token by token, distributions by top-1 and KL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tunewright.export.conversations import conversations
from tunewright.export.runners import Runner
from tunewright.models.template import IGNORED, encode, encode_prompt
from tunewright.records import Message, Record

if TYPE_CHECKING:
    import numpy as np

_SHOWN = 40  # characters of a token or a conversation


class PromptParity(Record):
    """Whether prompts are the same tokens in training, chat and the artifact; the first that is not, in words.

    ``limited`` more are the same only once the text avoids ``limits``: what the program cannot do with any artifact.
    """

    conversations: int
    identical: int
    limited: int = 0
    limits: tuple[str, ...] = ()
    first: str = ""


class Closeness(Record):
    """How near two models' next-token distributions are; KL(examined ‖ artifact) in nats.

    ``same`` of ``positions`` have the same likeliest token. ``ties`` have another one that the examined model thinks as
    likely, within ``tie_nats``: rounding decides between the two.
    """

    positions: int
    same: int
    ties: int
    tie_nats: float
    mean_kl: float
    max_kl: float
    first: str = ""

    @property
    def agreement(self) -> float:
        """The share of positions with the same likeliest token, ties allowed."""
        return (self.same + self.ties) / self.positions


def _difference(tokenizer: Any, name: str, wanted: Sequence[int], found: Sequence[int]) -> str:
    """Return where two token sequences part, both tokens decoded; nothing where they are the same."""
    if list(wanted) == list(found):
        return ""
    shared = min(len(wanted), len(found))
    place = next((n for n in range(shared) if wanted[n] != found[n]), shared)

    def told(ids: Sequence[int]) -> str:
        return f"{tokenizer.decode([ids[place]])[:_SHOWN]!r} ({ids[place]})" if place < len(ids) else "the end"

    return f"at token {place} {name} has {told(found)}, chat has {told(wanted)}"


def _training_ids(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Return a prompt's tokens as they stand before a trained answer."""
    whole = encode(tokenizer, (*messages, Message(role="assistant", content="Yes.")), last_turn_only=True)
    return whole.input_ids[: next(n for n, label in enumerate(whole.labels) if label != IGNORED)]


def compare_prompts(tokenizer: Any, runner: Runner) -> PromptParity:
    """Compare the prompts of the fixed conversations: training's encoding, chat's, and the artifact's own."""
    identical, limited, first = 0, 0, ""
    told = conversations()
    for number, (kind, messages) in enumerate(told):
        fault = _prompt_fault(tokenizer, runner, messages)
        if not fault:
            identical += 1
        elif runner.limits and not _prompt_fault(tokenizer, runner, _avoiding(runner, messages)):
            limited += 1
        elif not first:
            shown = messages[-1].content[:_SHOWN]
            first = f"conversation {number} ({kind}, ending in {shown!r}): {fault}"
    limits = tuple(limit.told for limit in runner.limits) if limited else ()
    return PromptParity(conversations=len(told), identical=identical, limited=limited, limits=limits, first=first)


def _prompt_fault(tokenizer: Any, runner: Runner, messages: Sequence[Message]) -> str:
    """Return where a conversation's prompt is another in training, or in the artifact, than in chat."""
    chat = encode_prompt(tokenizer, messages)
    fault = _difference(tokenizer, "training", chat, _training_ids(tokenizer, messages))
    return fault or _difference(tokenizer, runner.name, chat, runner.prompt_ids(messages))


def _avoiding(runner: Runner, messages: Sequence[Message]) -> list[Message]:
    """Return the conversation in words that avoid what the program cannot do."""
    avoiding = list(messages)
    for limit in runner.limits:
        avoiding = [message.model_copy(update={"content": limit.avoid(message.content)}) for message in avoiding]
    return avoiding


def _choices(tokenizer: Any, log_probs: np.ndarray, best: int, told: int) -> str:
    """Return what the examined model and the artifact say, with the examined model's probability of each."""
    import numpy as np

    likely = [f"{tokenizer.decode([token])!r} ({np.exp(log_probs[token]):.1%})" for token in (best, told)]
    return f"the examined model says {likely[0]}, the artifact {likely[1]}"


def compare_distributions(
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    examined: np.ndarray,
    found: Sequence[np.ndarray],
    tie_nats: float,
) -> Closeness:
    """Compare next-token distributions.

    Args:
        tokenizer: to show the tokens of the first disagreement.
        prompts: the tokens before each position.
        examined: log-probabilities [position, vocabulary] of the examined model.
        found: the artifact's for each position; its vocabulary may be padded.
        tie_nats: how much likelier one token may be than another and still count as equal.
    """
    import numpy as np

    same = ties = 0
    first, divergences = "", []
    for number, (wanted, got) in enumerate(zip(examined, found, strict=True)):
        size = min(len(wanted), len(got))
        p, q = wanted[:size].astype(np.float64), np.asarray(got[:size], dtype=np.float64)
        divergences.append(max(0.0, float((np.exp(p) * (p - np.maximum(q, -100.0))).sum())))
        best, told = int(p.argmax()), int(q.argmax())
        same += best == told
        if best != told:
            tied = p[best] - p[told] <= tie_nats
            ties += int(tied)
            if not tied and not first:
                context = tokenizer.decode(list(prompts[number])[-12:])
                first = f"position {number}, after {context!r}: {_choices(tokenizer, p, best, told)}"
    return Closeness(
        positions=len(divergences),
        same=same,
        ties=ties,
        tie_nats=tie_nats,
        mean_kl=float(np.mean(divergences)),
        max_kl=max(divergences),
        first=first,
    )
