"""The files beside an export's weights: config, generation settings, and a tokenizer with a complete template."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from tunewright.models.capped_programs import RefusedError
from tunewright.models.chat_template import TEMPLATE_VARIABLES, apply, end_ids
from tunewright.models.families import family_of
from tunewright.models.source import read_config
from tunewright.models.student import student_tokenizer
from tunewright.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "typical_p", "repetition_penalty")
_VISION_FILES = ("preprocessor_config.json", "processor_config.json")
# An expression ends it, since the engine drops a line break that follows a block.
_MERGE_SYSTEM = (
    "{% if messages | length > 1 and messages[0]['role'] == 'system' %}"
    "{% set messages = [{'role': messages[1]['role'], "
    "'content': messages[0]['content'] + '\\n\\n' + messages[1]['content']}] + messages[2:] %}{% endif %}{{ '' }}"
)


def portable_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the chat template with everything that tunewright adds to it.

    Training gives some templates variables (no chain of thought, a fixed date), and moves a system turn that a
    template refuses into the first user turn. Other programs do neither, so the exported template does it itself.
    """
    template = str(tokenizer.chat_template)
    before = with_variables(template, "{{% if {name} is not defined %}}{{% set {name} = {value} %}}{{% endif %}}")
    return before + (_MERGE_SYSTEM if _refuses_system(tokenizer) else "") + template


def with_variables(template: str, statement: str) -> str:
    """Return the head that sets the variables of training that a template reads, a statement for each."""
    head = ""
    for name, value in TEMPLATE_VARIABLES.items():
        if re.search(rf"\b{name}\b", template):
            literal = json.dumps(value) if isinstance(value, bool) else f"'{value}'"
            head += statement.format(name=name, value=literal)
    return head + "{{ '' }}" if head else ""


def _refuses_system(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether the template raises an error on a system turn."""
    turns = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
    try:
        apply(tokenizer, turns, True, **TEMPLATE_VARIABLES)
    except RefusedError:
        return True
    return False


def write_tokenizer(recipe: Recipe, folder: Path) -> Any:
    """Write the student's tokenizer with its added tokens and the portable template; return it."""
    tokenizer = student_tokenizer(recipe)
    tokenizer.chat_template = portable_template(tokenizer)
    tokenizer.save_pretrained(folder)
    return tokenizer


def write_config(
    source: Path, folder: Path, tokenizer: PreTrainedTokenizerBase, dtype: str, num_tokens: int = 0
) -> None:
    """Write config.json and generation_config.json of a whole model.

    The exam decodes greedily, so the settings do too, and they stop at every token that ends an answer in the exam.
    """
    config = read_config(source)
    for key in ("quantization_config", "_name_or_path", "torch_dtype"):
        config.pop(key, None)
    config["dtype"] = _DTYPES[dtype]
    nested = family_of(config).nested
    text_config = config[nested] if nested else config
    if num_tokens > _vocabulary(source):
        text_config["vocab_size"] = num_tokens
    for part in (value for value in config.values() if isinstance(value, dict)):
        if "dtype" in part or "torch_dtype" in part:
            part.pop("torch_dtype", None)
            part["dtype"] = _DTYPES[dtype]
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", _generation(source, tokenizer))
    for name in _VISION_FILES:
        if (source / name).is_file():
            (folder / name).write_bytes((source / name).read_bytes())


def _vocabulary(source: Path) -> int:
    """Return the number of tokens that the base's config names."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(source, local_files_only=True, trust_remote_code=False)
    return int(config.get_text_config().vocab_size)


def _generation(source: Path, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    from transformers import AutoConfig, GenerationConfig

    if (source / "generation_config.json").is_file():
        settings = GenerationConfig.from_pretrained(source, local_files_only=True)
    else:
        settings = GenerationConfig.from_model_config(AutoConfig.from_pretrained(source, local_files_only=True))
    ends = end_ids(tokenizer, SimpleNamespace(generation_config=settings))
    content = {key: value for key, value in settings.to_diff_dict().items() if key not in _SAMPLING}
    return {**content, "do_sample": False, "eos_token_id": ends, "pad_token_id": tokenizer.pad_token_id}


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
