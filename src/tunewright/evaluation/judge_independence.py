"""Whether a judge may judge: not the model that wrote the training data, nor one of the student's family."""

from __future__ import annotations

import re

from tunewright import console
from tunewright.errors import RecipeError
from tunewright.recipe import Recipe
from tunewright.settings import EMBEDDED
from tunewright.teacher.identity import teacher_identity

# Judges favor answers of their own kind (Panickssery et al. 2024, arXiv 2404.13076). Told by names alone.
_FAMILIES = {
    "claude": "Claude",
    "command": "Command",
    "deepseek": "DeepSeek",
    "gemini": "Gemini",
    "gemma": "Gemma",
    "gpt": "GPT",
    "llama": "Llama",
    "ministral": "Mistral",
    "mistral": "Mistral",
    "mixtral": "Mistral",
    "olmo": "OLMo",
    "phi": "Phi",
    "qwen": "Qwen",
    "qwq": "Qwen",
    "smollm": "SmolLM",
    "tulu": "Llama",
    "vicuna": "Llama",
    "zephyr": "Mistral",
}


def family_of_name(name: str) -> str:
    """Return the family that a model's name tells, or nothing: the last part of a path or hub name decides."""
    if name == EMBEDDED:
        return "SmolLM"
    last = name.rstrip("/").rpartition("/")[2].lower()
    return next((family for word, family in _FAMILIES.items() if re.search(rf"(?<![a-z]){word}", last)), "")


def faults(recipe: Recipe) -> list[str]:
    """Return why the judge is not independent of what it judges; nothing when it is, as far as names tell."""
    judge, teacher, found = recipe.judge.as_teacher, recipe.teacher, []
    same_name = bool(teacher.model) and judge.model.lower() == teacher.model.lower()
    if same_name or teacher_identity(judge, recipe.folder) == teacher_identity(teacher, recipe.folder):
        found.append(f"{judge.model} also wrote the training data")
    family = family_of_name(judge.model)
    if family and family == family_of_name(recipe.model.base):
        found.append(f"{judge.model} is of the student's family ({family})")
    return found


def check_independent(recipe: Recipe) -> tuple[str, ...]:
    """Return the faults of a judge that was forced, with a warning; nothing where it is independent.

    Raises:
        RecipeError: it is not independent, and not forced.
    """
    found = faults(recipe)
    if not found:
        return ()
    told = "; ".join(found)
    if not recipe.judge.forced:
        raise RecipeError(
            f"{recipe.judge.model} cannot judge this exam",
            f"{told}: models favor what is like their own",
            "name another in judge.model; to take it all the same, which the report then says: judge.forced = true",
        )
    console.warning(f"the judge is not independent: {told}")
    return tuple(found)
