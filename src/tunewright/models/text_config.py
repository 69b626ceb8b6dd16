"""What the config of a text model of transformers says, and what of it has an effect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.nn import Module

BY_LENGTH = ("dynamic", "longrope")  # kinds of rotation whose angles depend on the length of what is computed


def setting_of(config: Any, key: str, default: Any = None) -> Any:
    """Return a setting if models of this kind have it.

    A config.json may state any other, such as a window in that of a Llama: transformers computes nothing of it.
    """
    return getattr(config, key, default) if hasattr(type(config)(), key) else default


def rotations_of(config: Any) -> list[Mapping[str, Any]]:
    """Return the settings of all rotations: a model has one, or one for each type of layer."""
    rotation = getattr(config, "rope_parameters", None) or {}
    return [part for part in (rotation, *rotation.values()) if isinstance(part, Mapping)]


def fixed_up_to(config: Any) -> float:
    """Return the tokens up to which a sequence's length changes none of its angles; infinite where it never does."""
    limits = [float("inf")]
    for rotation in rotations_of(config):
        if rotation.get("rope_type") == "longrope":
            limits.append(float(rotation["original_max_position_embeddings"]))
        elif rotation.get("rope_type") == "dynamic":
            limits.append(float(config.max_position_embeddings))
    return min(limits)


def forget_lengths(model: Module) -> None:
    """Make the angles of each "dynamic" rotation those of the next call alone.

    transformers keeps those of the longest sequence that it has seen, so that a shorter one depended on the order.
    """
    for part in model.modules():
        if getattr(part, "rope_type", "") == "dynamic":
            part.inv_freq, part.max_seq_len_cached = part.original_inv_freq, part.original_max_seq_len
