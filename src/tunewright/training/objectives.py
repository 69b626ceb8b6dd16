"""Training objectives: what a step minimizes. Each is a sum over a packed row, and what that sum is divided by."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tunewright.training.packing import Example, PackedRow

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from tunewright.training.compute_path import ComputePath
    from tunewright.training.kernels.distillation import Mixture

DpoLoss = Literal["sigmoid", "normalized", "ipo"]
DISTILLATION_FIGURES = ("divergence", "cross_entropy")
DPO_FIGURES = ("chosen_reward", "rejected_reward", "margin", "accuracy")


@dataclass(frozen=True)
class Objective:
    """A loss that does not depend on how a step is cut into rows.

    Attributes:
        count: an example's part of the divisor; a step divides the summed loss by the sum over all its examples,
            so that eight rows of one example give the gradient of one row of eight.
        loss: (path, row, the row's examples) → (summed loss in nats, summed figures to log); tensors of shape [].
        figures: the names of those figures.
    """

    count: Callable[[Example], int]
    loss: Callable[[ComputePath, PackedRow, Sequence[Example]], tuple[Tensor, dict[str, Tensor]]]
    figures: tuple[str, ...] = ()


def sequence_logps(path: ComputePath, row: PackedRow) -> tuple[Tensor, Tensor]:
    """Return the summed log-probability (nats) of each sequence's supervised tokens, and their number: [s] each."""
    import torch

    logps = path.token_logps(row)
    none = torch.zeros(len(row.lengths), device=logps.device)
    return none.index_add(0, row.owner, logps), none.index_add(0, row.owner, torch.ones_like(logps))


def _next_token_loss(
    path: ComputePath, row: PackedRow, examples: Sequence[Example]
) -> tuple[Tensor, dict[str, Tensor]]:
    return -path.token_logps(row).sum(), {}


NEXT_TOKEN = Objective(count=lambda example: example.num_supervised, loss=_next_token_loss)


def distillation(mixture: Mixture) -> Objective:
    """Return prompt distillation: the adapter without the passage imitates the base with it, token by token.

    Both read the same answer. The teacher is the same model with its adapter off and passages in its prompt, so that
    one model is in memory; the student is the model with its adapter on. The loss of an answer's token is the forward
    KL divergence from the teacher's to the student's distribution over the whole vocabulary (Kujanpää, Marttinen,
    Valpola & Ilin 2024, arXiv 2412.14964, sec. 3), mixed with cross-entropy as ``mixture`` says. Nothing of the
    teacher is stored beyond the row. An example without a teacher (a refusal, raw text) has cross-entropy.
    """

    def loss(path: ComputePath, row: PackedRow, examples: Sequence[Example]) -> tuple[Tensor, dict[str, Tensor]]:
        import torch

        if not row.teacher:
            entropy = -path.token_logps(row).sum()
            return entropy, {"divergence": torch.zeros_like(entropy), "cross_entropy": entropy.detach()}
        with without_dropout(path.model), torch.no_grad(), path.model.disable_adapter():
            teacher = torch.cat([path.predictions(part) for part in row.teacher])
        losses, divergences, entropies = path.distilled(row, teacher, mixture)
        return losses.sum(), {"divergence": divergences.sum(), "cross_entropy": entropies.sum()}

    return Objective(count=lambda example: example.num_supervised, loss=loss, figures=DISTILLATION_FIGURES)


def dpo(kind: DpoLoss, beta: float, label_smoothing: float, reference: Mapping[str, tuple[float, float]]) -> Objective:
    """Return the direct-preference objective (Rafailov et al. 2023, eq. 7), per pair.

    With d = (log π − log π_ref)(chosen) − (log π − log π_ref)(rejected), the loss is

    - "sigmoid": −(1 − ε) log σ(βd) − ε log σ(−βd), ε the label smoothing (Mitchell 2023, "cDPO");
    - "normalized": the same with each log-probability divided by its answer's tokens (Meng et al. 2024, sec. 2.2);
    - "ipo": (d − 1/(2β))², length-normalized likewise (Azar et al. 2023, eq. 17).

    Args:
        kind: the loss.
        beta: strength of the pull towards the reference; larger stays closer.
        label_smoothing: probability that a pair's label is wrong.
        reference: example → the reference's log-probabilities (chosen, rejected), summed over the answer's tokens.
    """

    def loss(path: ComputePath, row: PackedRow, examples: Sequence[Example]) -> tuple[Tensor, dict[str, Tensor]]:
        import torch

        logps, lengths = sequence_logps(path, row)  # chosen and rejected in turns
        reference_values = torch.tensor([value for example in examples for value in reference[example.sample]])
        ratios = logps - reference_values.to(logps)
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
    path: ComputePath, rows: Sequence[Sequence[Example]], collate: Callable[[Sequence[Example]], PackedRow]
) -> dict[str, tuple[float, float]]:
    """Return each pair's log-probabilities (chosen, rejected) in nats, computed one packed row at a time."""
    import torch

    logps: dict[str, tuple[float, float]] = {}
    # Not inference mode: a spread base makes its whole weights at the first pass, and needs them in training too.
    with without_dropout(path.model), torch.no_grad():
        for row in rows:
            sums = sequence_logps(path, collate(row))[0].tolist()
            logps |= {example.sample: (sums[2 * n], sums[2 * n + 1]) for n, example in enumerate(row)}
    return logps


@contextmanager
def without_dropout(model: PreTrainedModel) -> Iterator[None]:
    """Turn dropout off within the block; quantized layers stay in training mode.

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
