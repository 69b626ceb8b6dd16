"""How training computes a model: the plain path through transformers and peft, or the fast path of kernels/."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

from tunewright import console
from tunewright.errors import RecipeError
from tunewright.models.families import ACTIVATIONS, FAMILIES, shape_of
from tunewright.models.source import config_at_hand, locate, read_config
from tunewright.recipe import Recipe
from tunewright.training.plain_path import PlainPath

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from tunewright.training.kernels.decoder import FastPath
    from tunewright.training.kernels.distillation import Mixture
    from tunewright.training.packing import PackedRow

_DROPOUTS = ("attention_dropout", "resid_pdrop", "embd_pdrop", "router_jitter_noise")  # keys of a config


class ComputePath(Protocol):
    """What training needs of a model, whichever way it is computed.

    Attributes:
        model: the base with its adapter; holds the parameters that are trained.
        name: of the path, for people.
        is_fast: whether it is the fast path, whose memory is planned in finer levels.
    """

    model: PreTrainedModel
    name: ClassVar[str]
    is_fast: ClassVar[bool]

    def token_logps(self, row: PackedRow) -> Tensor:
        """Return the log-probability in nats of each supervised token: [n], float32, differentiable."""
        ...

    def predictions(self, row: PackedRow) -> Tensor:
        """Return what the model predicts for each supervised token, in the form that ``distilled`` takes.

        That is [n, h] before the head where the head is a plain product, else the logits, [n, vocabulary].
        """
        ...

    def distilled(self, row: PackedRow, teacher: Tensor, mixture: Mixture) -> tuple[Tensor, Tensor, Tensor]:
        """Return each supervised token's loss, divergence and cross-entropy in nats: [n] each, float32.

        Args:
            row: n supervised tokens; ``row.taught`` marks those that the teacher predicts.
            teacher: the teacher's ``predictions`` of the marked tokens.
            mixture: what the loss is made of; it alone is differentiable.
        """
        ...

    def configure(self, kept: int, cached: bool) -> None:
        """Set what stays in memory between the forward and the backward pass; see ``memory_plan.Choice``."""
        ...


def plain_path_reason(recipe: Recipe) -> str:
    """Return why training will take the plain path, as far as the recipe shows; empty for the fast path."""
    training, model = recipe.training, recipe.model
    if training.kernels == "off":
        return "training.kernels is off"
    if training.method not in ("lora", "rslora"):
        return f"the fast path trains plain LoRA, not {training.method}"
    if training.dropout:
        return "LoRA dropout draws a mask for each layer (training.dropout = 0 takes the fast path)"
    if model.quantization == "int8":
        return "products with an int8 base are not plain products of an unpacked weight"
    if model.sharded:
        return "the base is spread over several GPUs"
    config = read_config(config_at_hand(model.base, recipe.folder) or locate(model.base, recipe.folder))
    kind = str(config.get("model_type", ""))
    layers = FAMILIES[kind].layers if kind in FAMILIES else None
    if layers is None:
        return f"models of the kind {kind!r} have layers of their own"
    shape = shape_of(config)
    if layers.activation_of(shape) not in ACTIVATIONS:
        return f"the MLP uses {layers.activation_of(shape)}, not {' or '.join(ACTIVATIONS)}"
    if shape.get("use_bidirectional_attention"):
        return "attention looks at later tokens too"
    return next((f"{key} is not 0" for key in _DROPOUTS if shape.get(key)), "")


def choose_path(recipe: Recipe, model: PreTrainedModel, device: str) -> ComputePath:
    """Return the fast path through the model where there is one; else the plain path, and print why.

    Raises:
        RecipeError: model.fp8 is on, and the model or the device cannot do it.
    """
    reason = plain_path_reason(recipe)
    if not reason:
        from tunewright.training.kernels.build import unsupported_reason
        from tunewright.training.kernels.decoder import FastPath

        reason = unsupported_reason(model)
        if not reason:
            path = FastPath(model)
            if recipe.model.fp8:
                _use_eight_bits(path, device)
            return path
    if recipe.model.fp8:
        raise RecipeError("model.fp8 needs the fast path", reason, "set model.fp8 = false")
    console.line(f"the plain path is taken, which is slower: {reason}")
    return PlainPath(model)


def _use_eight_bits(path: FastPath, device: str) -> None:
    from tunewright.training.kernels.linear import supports_eight_bits

    if not supports_eight_bits(device):
        raise RecipeError(
            "model.fp8 needs a GPU with 8-bit floating point",
            "these are Hopper and later ones, such as H100 and H200",
            "set model.fp8 = false",
        )
    path.use_eight_bits()
