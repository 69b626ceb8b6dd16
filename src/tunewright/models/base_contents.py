"""Is a base whole? Its tokenizer writes a chat, its weights are those of its config, and their numbers are numbers."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright.errors import ModelError
from tunewright.models.base_folder import check_folder
from tunewright.models.chat_template import load_tokenizer, render
from tunewright.models.coverage import check_outline
from tunewright.models.experts import check_experts
from tunewright.models.loading import missing_weights, quiet_libraries
from tunewright.models.model_files import reading_model
from tunewright.models.pickled_weights import pickled_files
from tunewright.models.source import folder_at_hand, identity, locate, read_config
from tunewright.models.stored_quantization import is_state_of_quantization, stored_nf4
from tunewright.models.tensors import stored_tensors
from tunewright.recipe import Recipe
from tunewright.records import Message
from tunewright.settings import EMBEDDED, TrainingSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_WHOLE_BYTES = 2**28  # of weights that are read as a whole; of larger models, rows of each tensor
_PROBE = (Message(role="user", content="a"), Message(role="assistant", content="b"))
_AGAIN = "download the model again"


def require_base(recipe: Recipe, fetch: bool = True) -> None:
    """Check that the recipe's base can be trained, before a teacher is paid or a weight is loaded.

    Args:
        recipe: names the base.
        fetch: whether a hub's model is fetched, and pickled weights are converted; else only a folder is checked.

    Raises:
        ModelError: it cannot be: another kind of model, damaged, incomplete, or quantized in a way that has no
            gradients.
    """
    base = recipe.model.base
    if base == EMBEDDED:
        return
    folder = locate(base, recipe.folder, trained=True) if fetch else folder_at_hand(base, recipe.folder)
    if folder is None:
        return
    check_experts(recipe, read_config(folder))
    name = base if folder_at_hand(base, recipe.folder) is None else ""
    _check(folder, name, identity(str(folder)), recipe.model.added_tokens)
    training = recipe.training
    _check_parts(folder, identity(str(folder)), recipe.model.quantization, training.method, training.targets)


@lru_cache(maxsize=8)
def _check_parts(folder: Path, version: str, quantization: str, method: str, targets: tuple[str, ...]) -> None:
    """Check that each part would be quantized and adapted; ``version`` as in ``_check``."""
    stored = stored_nf4(read_config(folder))
    training = TrainingSettings().model_copy(update={"method": method, "targets": targets})
    check_outline(folder, "none" if stored else quantization, training)


@lru_cache(maxsize=8)
def _check(folder: Path, name: str, version: str, added_tokens: tuple[str, ...]) -> None:
    """Check a folder; ``version`` is the identity of its files, since a check holds for them alone."""
    check_folder(folder, read_config(folder), name)
    quiet_libraries()
    from transformers import AutoConfig

    with reading_model("config.json", folder):  # by itself: the tokenizer's classes read it too
        AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    tokenizer = load_tokenizer(folder, added_tokens)
    render(tokenizer, _PROBE)
    if not pickled_files(folder):  # they are checked once they are converted
        num_rows = _num_rows(folder)
        _check_numbers(folder)
        if not added_tokens:
            _check_rows(folder, tokenizer, num_rows)


def _num_rows(folder: Path) -> int:
    """Return the rows of the embedding, once every tensor that the config asks for is there in its shape."""
    quiet_libraries()
    from transformers import AutoConfig, AutoModelForCausalLM

    with reading_model("base model", folder):
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if hasattr(config, "quantization_config"):
            del config.quantization_config  # on no device, packed weights are only compared by their names
        try:
            model, report = AutoModelForCausalLM.from_pretrained(
                folder,
                config=config,
                device_map={"": "meta"},
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
        except NotImplementedError:  # a conversion that needs the numbers: loading them will show what is wrong
            return 0
    stored = stored_tensors(folder)
    if stored_nf4(read_config(folder)) and not any(".quant_state." in name for name in stored):
        cause = "config.json states bitsandbytes in 4 bit, and no weight is packed"
        raise ModelError(f"the weights in {folder} are not those of its config.json", cause, _AGAIN)
    packed = {name.rpartition(".quant_state.")[0] for name in stored if ".quant_state." in name}
    wrong = sorted(str(key[0]) for key in report["mismatched_keys"] if not _is_packed(str(key[0]), packed))
    missing = missing_weights(model, report)
    if missing or wrong:
        raise ModelError(
            f"the weights in {folder} are not those of its config.json",
            f"{missing[0]} is missing" if missing else f"{wrong[0]} has another shape",
            _AGAIN,
        )
    return int(model.get_input_embeddings().weight.shape[0])


def _is_packed(name: str, packed: set[str]) -> bool:
    return any(name.endswith(other) or other.endswith(name) for other in packed)


def _check_rows(folder: Path, tokenizer: PreTrainedTokenizerBase, num_rows: int) -> None:
    """Refuse a tokenizer that writes tokens which the embedding has no row for."""
    token, number = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if num_rows and number >= num_rows:
        raise ModelError(
            f"the tokenizer in {folder} is not the model's",
            f"its token {token!r} has the number {number}, and the embedding has {num_rows} rows",
            "copy the tokenizer's files from the model that it was made from",
        )


def _check_numbers(folder: Path) -> None:
    """Refuse weights that are no numbers: all of a small model's, some rows of each tensor of a large one."""
    from safetensors import safe_open

    files = stored_tensors(folder)
    packed = {name.rpartition(".quant_state.")[0] for name in files if ".quant_state." in name}  # no numbers as such
    whole = sum(file.stat().st_size for file in set(files.values())) <= _WHOLE_BYTES
    with reading_model("weights", folder):
        for file in sorted(set(files.values())):
            with safe_open(file, framework="pt") as weights:
                for name in (name for name, other in files.items() if other == file):
                    own = not is_state_of_quantization(name) and name not in packed
                    if own and not _are_finite(weights, name, whole):
                        raise ModelError(
                            f"the weights in {folder} are damaged",
                            f"{name} in {file.name} holds values that are no numbers",
                            _AGAIN,
                        )


def _are_finite(weights: Any, name: str, whole: bool) -> bool:
    rows = weights.get_slice(name)
    if rows.get_dtype().startswith("F8"):  # without scales beside it, or in a form of its own
        raise ModelError(
            "the weights are in 8-bit floating point, which is not trained",
            f"{name}, and config.json states no quantization",
            "name a version in 16 bit",
        )
    if rows.get_dtype() not in ("F64", "F32", "F16", "BF16"):
        return True
    shape = rows.get_shape()
    if whole or len(shape) < 2:
        return bool(weights.get_tensor(name).isfinite().all())
    numbers = {0, shape[0] // 2, shape[0] - 1}
    return all(bool(rows[number : number + 1].isfinite().all()) for number in sorted(numbers))
