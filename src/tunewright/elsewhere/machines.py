"""Which rented GPU a recipe needs: the smallest on which the planned memory fits."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tunewright.errors import ModelError, RecipeError
from tunewright.models import hub
from tunewright.models.budget import SPARE, Choice, Memory, choose, predict_memory
from tunewright.models.memory import Shape
from tunewright.models.source import locate, read_config
from tunewright.recipe import Recipe
from tunewright.settings import EMBEDDED, LOCAL, ModelSettings
from tunewright.training.path import expected_path

# GB as sold, by the names that SkyPilot knows them by; of two alike, the cheaper first.
GPUS = {"T4": 16, "L4": 24, "A10G": 24, "A100": 40, "A100-80GB": 80, "H100": 80, "H200": 141}
_NO_BF16 = {"T4"}
_FP8 = {"H100", "H200"}
_GIVEN = 0.95e9  # bytes of a GB as sold that programs get: the rest is the driver's and the error correction's
_COUNTS = (1, 2, 4, 8)  # GPUs of one machine that a sharded base may be spread over
_NAMED = re.compile(r"([A-Za-z0-9._-]+)(?::([1-9][0-9]{0,2}))?")


@dataclass(frozen=True)
class Machine:
    """A machine to ask for.

    Attributes:
        gpu: its kind.
        count: how many of them.
        why: the reason, for people.
        named: whether the user named it.
    """

    gpu: str
    count: int
    why: str
    named: bool = False


def machine_of(recipe: Recipe, named: str) -> Machine:
    """Return the machine that the user named, or the smallest that the plan fits.

    Raises:
        RecipeError: the name is none, or no machine is large enough.
        ModelError: the base's shape cannot be known from here.
    """
    if not named:
        return _smallest(recipe)
    match = _NAMED.fullmatch(named)
    if match is None:
        raise RecipeError(
            f"--gpu {named} is not NAME or NAME:COUNT", "", "for example: --gpu A100-80GB, or --gpu H100:2"
        )
    return Machine(match[1], int(match[2] or 1), "as named with --gpu", named=True)


def _smallest(recipe: Recipe) -> Machine:
    base = _described(recipe.model.base, recipe)
    shape = Shape.of(read_config(base))
    # The path is told from the folder, so that a base on the hub is not fetched for it.
    fast = not expected_path(_with_base(recipe, str(base), recipe.model.quantization))
    helper = _helper_bytes(recipe)
    least = 0.0
    for count in _COUNTS if recipe.model.sharded else (1,):
        for name, size in GPUS.items():
            if recipe.model.compute == "bf16" and name in _NO_BF16 or recipe.model.fp8 and name not in _FP8:
                continue
            free = size * _GIVEN
            memory = predict_memory(recipe, shape, choose(recipe, shape, free, fast, gpu=True), fast)
            taken = max(_per_gpu(memory, count), helper)
            least = min(least or taken, taken)
            if taken <= free * (1 - SPARE):
                beside = f", a local teacher or judge {helper / 2**30:.1f}" if helper else ""
                told = f"training is predicted to take {_per_gpu(memory, count) / 2**30:.1f} GiB{beside}"
                return Machine(name, count, f"{told}, of {free / 2**30:.1f} on each")
    raise RecipeError(
        f"no machine of {', '.join(GPUS)} is large enough",
        f"{least / 2**30:.1f} GiB are predicted at least",
        "quantize the base (model.quantization), spread it (model.sharded), or name a machine: --gpu NAME:COUNT",
    )


def _per_gpu(memory: Memory, count: int) -> float:
    """Return the bytes on each of several GPUs that share the weights."""
    return memory.total - (memory.base + memory.trained) * (1 - 1 / count)


def _helper_bytes(recipe: Recipe) -> float:
    """Return what a local teacher or judge takes, the larger of them: as a student that is not trained on."""
    helpers = [(recipe.teacher.model, recipe.teacher.quantization)] if recipe.teacher.url == LOCAL else []
    helpers += [(recipe.judge.model, recipe.judge.as_teacher.quantization)] if recipe.judge.url == LOCAL else []
    sizes = [0.0]
    for name, quantization in helpers:
        shape = Shape.of(read_config(_described(name, recipe)))
        memory = predict_memory(_with_base(recipe, name, quantization), shape, Choice(512, 0), fast=False)
        sizes.append(memory.total - memory.trained)
    return max(sizes)


def _with_base(recipe: Recipe, base: str, quantization: str) -> Recipe:
    model = ModelSettings.model_validate({**recipe.model.model_dump(), "base": base, "quantization": quantization})
    return recipe.model_copy(update={"model": model})


def _described(base: str, recipe: Recipe) -> Path:
    """Return a folder with the model's config.json; of a model on the hub, only that file is fetched."""
    if base == EMBEDDED or recipe.resolve(base).is_dir() or base.count("/") != 1 or base.startswith((".", "/", "~")):
        return locate(base, recipe.folder)
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(base, "config.json")).parent
    except Exception as error:  # the hub's library raises errors of four libraries below it
        named = "name the machine yourself: --gpu A100-80GB"
        headline, cause, hint = hub.explain(error, base, writing=False) or (
            f"the shape of {base} is not known here",
            f"its config.json cannot be fetched: {hub.clean(str(error)) or type(error).__name__}",
            "try again",
        )
        raise ModelError(headline, cause, f"{hint}; or {named}") from error
