"""Training objectives: what a step minimizes. Each is a sum over a packed row, and what that sum is divided by."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from tunewright.training.packing import Example, PackedRow
from tunewright.training.step_plan import FAST

DpoLoss = Literal["sigmoid", "normalized", "ipo"]
DPO_FIGURES = ("chosen_reward", "rejected_reward", "margin", "accuracy")


@dataclass(frozen=True)
class Objective:
    """A loss that does not depend on how a step is cut into rows.

    Attributes:
        count: an example's part of the divisor; a step divides the summed loss by the sum over all its examples,
            so that eight rows of one give the gradient of one row of eight.
        loss: (model, row, its examples) → (summed loss in nats, summed figures to log).
        figures: the names of those figures.
    """

    count: Callable[[Example], int]
    loss: Callable[[Any, PackedRow, Sequence[Example]], tuple[Any, dict[str, Any]]]
    figures: tuple[str, ...] = ()


def token_logps(model: Any, batch: PackedRow) -> Any:
    """Return the log-probability in nats of each supervised token, [n].

    The head runs only on the positions that predict a supervised token.
    """
    import torch

    if fast := getattr(model, FAST, None):
        return fast.token_logps(batch)
    logits = model(
        input_ids=batch.input_ids, position_ids=batch.position_ids, logits_to_keep=batch.places, use_cache=False
    ).logits[0]
    return -torch.nn.functional.cross_entropy(logits.float(), batch.targets, reduction="none")


def sequence_logps(model: Any, batch: PackedRow) -> tuple[Any, Any]:
    """Return per sequence [s] the summed log-probability of its supervised tokens, and their number."""
    import torch

    logps = token_logps(model, batch)
    none = torch.zeros(len(batch.lengths), device=logps.device)
    return none.index_add(0, batch.owner, logps), none.index_add(0, batch.owner, torch.ones_like(logps))


def _next_token_loss(model: Any, batch: PackedRow, examples: Sequence[Example]) -> tuple[Any, dict[str, Any]]:
    return -token_logps(model, batch).sum(), {}


NEXT_TOKEN = Objective(count=lambda example: example.num_supervised, loss=_next_token_loss)


def dpo(kind: DpoLoss, beta: float, label_smoothing: float, reference: Mapping[str, tuple[float, float]]) -> Objective:
    """Return the direct-preference objective (Rafailov et al. 2023, eq. 7), per pair.

    With d = (log π − log π_ref)(chosen) − (log π − log π_ref)(rejected), the loss is

    - "sigmoid": −(1 − ε) log σ(βd) − ε log σ(−βd), ε the label smoothing (Mitchell 2023, "cDPO");
    - "normalized": the same with each log-probability divided by its answer's tokens (Meng et al. 2024, sec. 2.2);
    - "ipo": (d − 1/(2β))², length-normalized likewise (Azar et al. 2023, eq. 17).

    Args:
        kind: which of them.
        beta: strength of the pull towards the reference; larger stays closer.
        label_smoothing: probability that a pair's label is wrong.
        reference: example → reference log-probabilities (chosen, rejected), summed over the answer's tokens.
    """

    def loss(model: Any, batch: PackedRow, examples: Sequence[Example]) -> tuple[Any, dict[str, Any]]:
        import torch

        logps, lengths = sequence_logps(model, batch)
        known = torch.tensor([value for example in examples for value in reference[example.sample]])
        ratios = logps - known.to(logps)
        chosen, rejected = ratios[0::2], ratios[1::2]
        with torch.no_grad():
            figures = {
                "chosen_reward": beta * chosen.sum(),
                "rejected_reward": beta * rejected.sum(),
                "margin": beta * (chosen - rejected).sum(),
                "accuracy": (chosen > rejected).float().sum(),
            }
        if kind != "sigmoid":
            chosen, rejected = chosen / lengths[0::2], rejected / lengths[1::2]
        if kind == "ipo":
            return ((chosen - rejected - 1 / (2 * beta)) ** 2).sum(), figures
        logit = beta * (chosen - rejected)
        right, wrong = torch.nn.functional.logsigmoid(logit), torch.nn.functional.logsigmoid(-logit)
        return -((1 - label_smoothing) * right + label_smoothing * wrong).sum(), figures

    return Objective(count=lambda example: 1, loss=loss, figures=DPO_FIGURES)


def reference_logps(
    model: Any, rows: Sequence[Sequence[Example]], collate: Callable[[Sequence[Example]], PackedRow]
) -> dict[str, tuple[float, float]]:
    """Return the model's log-probabilities (chosen, rejected) of every pair, one packed row at a time."""
    import torch

    found: dict[str, tuple[float, float]] = {}
    # Not inference mode: a spread base makes its whole weights at the first pass, and needs them in training too.
    with measuring(model), torch.no_grad():
        for row in rows:
            sums = sequence_logps(model, collate(row))[0].tolist()
            found |= {example.sample: (sums[2 * n], sums[2 * n + 1]) for n, example in enumerate(row)}
    return found


@contextmanager
def measuring(model: Any) -> Iterator[None]:
    """Turn dropout off for the block; quantized layers stay as they train.

    In evaluation mode bitsandbytes repacks 4-bit weights on a CPU for coarser fused products, and gradients taken
    after that are wrong.
    """
    before = [(module, module.training) for module in model.modules()]
    for module, _ in before:
        if not type(module).__module__.startswith("bitsandbytes."):
            module.training = False
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
