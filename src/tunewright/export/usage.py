"""The kinds of artifact that are pushed: how the hub files each, and code to use it that runs as it stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

_QUANTIZED = {
    "nf4-double": 'load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, '
    "bnb_4bit_compute_dtype=torch.bfloat16",
    "nf4": 'load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16',
    "int8": "load_in_8bit=True",
}
_ASK = """\
messages = [
{system}    {{"role": "user", "content": "..."}},
]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
output = model.generate(**inputs.to(model.device), max_new_tokens={max_new_tokens}, do_sample=False)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
"""


@dataclass(frozen=True)
class Usage:
    """What the code depends on: names on the hub, how the base was loaded for the exam, what was asked.

    ``rank`` is the one to start vLLM with for an adapter, 0 where vLLM does not load it.
    ``resized``: the adapter brings tokens that the base lacks. ``files``: names of the pushed GGUF files.
    """

    repo: str
    base: str
    quantization: str
    system_prompt: str
    max_new_tokens: int
    rank: int = 0
    resized: bool = False
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Example:
    """One way of use: what it is for, its code and the language of it."""

    title: str
    code: str
    language: str


@dataclass(frozen=True)
class Kind:
    """A kind of artifact.

    ``library`` and ``relation`` (to the base) are the hub's words; ``what`` stands before the base's name;
    ``examples`` gives the ways of use.
    """

    library: str
    relation: str
    what: str
    examples: Callable[[Usage], list[Example]]


def _ask(usage: Usage) -> str:
    text = ascii(usage.system_prompt)  # a Python literal, whatever the prompt holds
    system = f'    {{"role": "system", "content": {text}}},\n' if usage.system_prompt else ""
    return _ASK.format(system=system, max_new_tokens=usage.max_new_tokens)


def _load(name: str, quantization: str) -> str:
    """Return the call that loads weights as the exam had them."""
    settings = _QUANTIZED.get(quantization)
    options = [ascii(name), 'dtype="auto"', 'device_map="auto"']
    options += [f"quantization_config=BitsAndBytesConfig({settings})"] if settings else []
    return "AutoModelForCausalLM.from_pretrained(\n" + "".join(f"    {option},\n" for option in options) + ")\n"


def _imports(usage: Usage, *lines: str) -> str:
    quantized = usage.quantization in _QUANTIZED
    names = ["AutoModelForCausalLM", "AutoTokenizer", *(["BitsAndBytesConfig"] if quantized else [])]
    torch = ["import torch"] if "torch." in _QUANTIZED.get(usage.quantization, "") else []
    return "\n".join([*torch, *lines, f"from transformers import {', '.join(names)}"]) + "\n\n"


def _adapter(usage: Usage) -> list[Example]:
    code = _imports(usage, "from peft import PeftModel")
    code += f"tokenizer = AutoTokenizer.from_pretrained({ascii(usage.repo)})\n"
    code += f"base = {_load(usage.base, usage.quantization)}"
    if usage.resized:
        code += "base.resize_token_embeddings(len(tokenizer), mean_resizing=False)\n"
    code += f"model = PeftModel.from_pretrained(base, {ascii(usage.repo)})\n\n{_ask(usage)}"
    found = [Example("transformers and peft", code, "python")]
    if usage.rank:
        flags = f"--enable-lora --max-lora-rank {usage.rank} --lora-modules tuned={usage.repo}"
        command = f"vllm serve {usage.base} {flags}\n"
        found.append(Example('vLLM (ask for the model "tuned")', command, "sh"))
    return found


def _whole(usage: Usage) -> list[Example]:
    code = _imports(usage) + f"tokenizer = AutoTokenizer.from_pretrained({ascii(usage.repo)})\n"
    code += f"model = {_load(usage.repo, usage.quantization)}\n{_ask(usage)}"
    return [Example("transformers", code, "python"), Example("vLLM", f"vllm serve {usage.repo}\n", "sh")]


def _gguf(usage: Usage) -> list[Example]:
    file = usage.files[0] if usage.files else "MODEL.gguf"
    server = f"hf download {usage.repo} {file} --local-dir .\nllama-server -m {file} --jinja\n"
    return [Example("llama.cpp", server, "sh")]


KINDS: Mapping[str, Kind] = {
    "adapter": Kind("peft", "adapter", "an adapter for", _adapter),
    "full": Kind("transformers", "finetune", "all weights, trained further, of", _whole),
    "merged": Kind("transformers", "finetune", "an adapter merged into", _whole),
    "gguf": Kind("gguf", "quantized", "an adapter merged into, and converted to GGUF,", _gguf),
}
