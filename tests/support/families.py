"""A tiny random model of each family, with the template that its family writes: python tests/families.py FOLDER."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from support.tiny import make_tokenizer
from tunewright.records import Message

SYSTEM = Message(role="system", content="You answer questions.")
WINDOW = 16  # tokens of the sliding windows: all conversations in the tests cross it

# The templates that trl does not ship, as their models' cards give them.
LLAMA_2 = (
    "{% if messages[0]['role'] == 'system' %}{% set turns = messages[1:] %}"
    "{% set system = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}"
    "{% else %}{% set turns = messages %}{% set system = '' %}{% endif %}{% for m in turns %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% set content = (system if loop.first else '') + m['content'] %}"
    "{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
MISTRAL = (  # of the versions 0.1 and 0.2
    "{{ bos_token }}{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}"
)
MISTRAL_3 = (  # version 0.3 writes the system text only where the last turn is the user's
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set turns = messages[1:] %}"
    "{% else %}{% set turns = messages %}{% endif %}{{ bos_token }}{% for m in turns %}{% if m['role'] == 'user' %}"
    "{% if loop.last and system is defined %}{{ '[INST] ' + system + '\n\n' + m['content'] + '[/INST]' }}"
    "{% else %}{{ '[INST] ' + m['content'] + '[/INST]' }}{% endif %}"
    "{% else %}{{ ' ' + m['content'] | trim + eos_token }}{% endif %}{% endfor %}"
)
ZEPHYR = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n"
    "{{ '<|user|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n"
    "{{ '<|system|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}\n"
    "{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
SMOLLM_2 = (
    "{% for m in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
    "{% endif %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PHI_4 = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '<|im_sep|>' + m['content'] + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}"
)


def of_trl(name: str) -> str:
    """Return a template as trl ships it."""
    spec = find_spec("trl")
    assert spec
    assert spec.submodule_search_locations
    return (Path(spec.submodule_search_locations[0]) / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Words:
    """How a family tokenizes: its template, and the special tokens with their parts to play.

    ``end`` is the token that ends an assistant turn, which for some is not the tokenizer's end of sequence.
    """

    template: str | None
    special: tuple[str, ...]
    bos: str | None
    eos: str
    pad: str | None
    end: str
    style: str = "bytes"

    def write(self, folder: Path) -> None:
        make_tokenizer(folder, self.template, self.special, self.bos, self.eos, self.pad, self.style)


def _sentences(template: str, *more: str, pad: str | None = None, end: str = "</s>", eos: str = "</s>") -> Words:
    return Words(template, ("<unk>", "<s>", eos, *more), "<s>", eos, pad, end, "prepended")


def _llama_3(name: str) -> Words:
    special = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    return Words(of_trl(name), special, special[0], "<|eot_id|>", None, "<|eot_id|>")


def _gemma(name: str) -> Words:
    special = ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>")
    return Words(of_trl(name), special, "<bos>", "<eos>", "<pad>", "<end_of_turn>", "replaced")


def _chatml(template: str, bos: str | None = None, *more: str) -> Words:
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *more)
    return Words(template, special, bos, "<|im_end|>", "<|endoftext|>", "<|im_end|>")


WORDS: Mapping[str, Words] = {
    "llama2": _sentences(LLAMA_2),
    "llama3": _llama_3("llama3"),
    "llama3.1": _llama_3("llama3_1"),
    "llama3.2": _llama_3("llama3_2"),
    "mistral": _sentences(MISTRAL),
    "mistral0.3": _sentences(MISTRAL_3, "[INST]", "[/INST]"),
    "zephyr": _sentences(ZEPHYR, pad="</s>"),
    "qwen2": _chatml(of_trl("qwen2_5")),
    "qwen3": _chatml(of_trl("qwen3")),
    "qwen3-2507": _chatml(of_trl("qwen3_instruct_2507")),
    "smollm2": _chatml(SMOLLM_2, "<|im_start|>"),
    "gemma2": _gemma("gemma"),
    "gemma3": _gemma("gemma3"),
    "phi3": _sentences(
        of_trl("phi3"), "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", eos="<|endoftext|>", end="<|end|>"
    ),
    "phi3.5": _sentences(
        of_trl("phi3_5"), "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", eos="<|endoftext|>", end="<|end|>"
    ),
    "phi4": _chatml(PHI_4, "<|endoftext|>", "<|im_sep|>"),
}


@dataclass(frozen=True)
class Tiny:
    """A family's tiny model: its ``model_type``, the name of its words, and what its config says beside the sizes.

    ``nested``: these are the values of its language model within the config of a multimodal one.
    """

    kind: str
    words: str
    config: Mapping[str, Any]
    windowed: bool = False
    nested: bool = False
    other: Mapping[str, Any] = field(default_factory=dict)

    def write(self, folder: Path, seed: int = 0) -> Path:
        """Write the model in fp32 with random weights, and its tokenizer."""
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        folder.mkdir(parents=True, exist_ok=True)
        words = WORDS[self.words]
        words.write(folder)
        ids = {
            f"{role}_token_id": words.special.index(getattr(words, role))
            for role in ("bos", "eos", "pad")
            if getattr(words, role)
        }
        values = {**_SIZES, "pad_token_id": None, "bos_token_id": None, **ids, **self.config}
        values = {"text_config": values, **self.other} if self.nested else values
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(self.kind, **values), dtype=torch.float32)
        model.save_pretrained(folder)
        return folder


_SIZES = {
    "vocab_size": 400,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 2048,
    "initializer_range": 0.1,  # large enough for attention to matter in what a random model says
    "tie_word_embeddings": False,
}
_MIXED = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "sliding_window": WINDOW}
_TIED_LLAMA = {"tie_word_embeddings": True, "initializer_range": 0.2}  # a smaller one would only echo
_LLAMA_3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_TOWER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}

TINY: dict[str, Tiny] = {
    "llama2": Tiny("llama", "llama2", {"num_key_value_heads": 4}),
    "llama3": Tiny("llama", "llama3.2", {**_TIED_LLAMA, "rope_parameters": _LLAMA_3_ROPE}),
    "smollm2": Tiny("llama", "smollm2", _TIED_LLAMA),
    "mistral": Tiny("mistral", "mistral", {"sliding_window": WINDOW}, windowed=True),
    "zephyr": Tiny("mistral", "zephyr", {"sliding_window": None}),
    "qwen2": Tiny("qwen2", "qwen2", {"tie_word_embeddings": True}),
    "qwen3": Tiny("qwen3", "qwen3", {}),
    "gemma2": Tiny(
        "gemma2",
        "gemma2",
        # The published caps of 50 and 30 would not bend the small scores of a tiny model.
        {
            "tie_word_embeddings": True,
            "query_pre_attn_scalar": 16,
            "attn_logit_softcapping": 1.0,
            "final_logit_softcapping": 5.0,
            **_MIXED,
        },
        windowed=True,
    ),
    "gemma3_text": Tiny(
        "gemma3_text",
        "gemma3",
        {"tie_word_embeddings": True, "query_pre_attn_scalar": 16, **_MIXED},
        windowed=True,
    ),
    "gemma3": Tiny(
        "gemma3",
        "gemma3",
        {"tie_word_embeddings": True, "query_pre_attn_scalar": 16, **_MIXED},
        windowed=True,
        nested=True,
        other={"vision_config": _TOWER, "mm_tokens_per_image": 1, "tie_word_embeddings": True},
    ),
    "phi3": Tiny("phi3", "phi3", {"num_key_value_heads": 4, "sliding_window": WINDOW}, windowed=True),
    "phi4": Tiny("phi3", "phi4", {"sliding_window": None}),
}

# Kinds beside them, for training: their tokenizers and exports are those of the kinds above.
MORE: dict[str, Tiny] = {
    "phi4-mini": Tiny(
        "phi3",
        "phi4",
        {
            "tie_word_embeddings": True,
            "head_dim": 24,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.75},
            "sliding_window": None,
        },
    ),
    "smollm3": Tiny("smollm3", "smollm2", {"no_rope_layers": [1, 0, 1], "use_sliding_window": False}),
    "granite": Tiny(
        "granite",
        "qwen2",
        {
            "tie_word_embeddings": True,
            "embedding_multiplier": 3.0,
            "attention_multiplier": 0.1,
            "residual_multiplier": 0.4,
            "logits_scaling": 2.0,
        },
    ),
    "olmo2": Tiny("olmo2", "qwen2", {}),
    "qwen3-moe": Tiny(
        "qwen3_moe",
        "qwen3",
        {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    ),
    "mixtral": Tiny("mixtral", "mistral", {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": WINDOW}),
    "granite-moe": Tiny(
        "granitemoe",
        "qwen2",
        {
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "embedding_multiplier": 3.0,
            "attention_multiplier": 0.1,
            "residual_multiplier": 0.4,
            "logits_scaling": 2.0,
        },
    ),
}


def make_family(name: str, folder: Path) -> Path:
    """Write the tiny model of that name; return its folder."""
    return (TINY | MORE)[name].write(folder)


def base_of(folder: Path, num_tokens: int = 0) -> Any:
    """Load a base in fp32 as training does."""
    import torch

    from tunewright.models.loading import load_base

    return load_base(folder, "none", "cpu", torch.float32, num_tokens)


def adapted(base: Any, new_tokens: tuple[int, ...] = (), **changes: Any) -> Any:
    """Put a small fresh adapter on it."""
    from tunewright.models.loading import attach_adapter
    from tunewright.settings import TrainingSettings

    return attach_adapter(base, TrainingSettings(**({"rank": 4, "alpha": 8} | changes)), 0, new_tokens)


def logits_of(model: Any, ids: Sequence[int]) -> Any:
    """Return the logits [token, vocabulary] of an ordinary call: no cache, no mask, no positions."""
    import torch

    with torch.inference_mode():
        return model.eval()(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0]


def turns(*contents: str, system: bool = False) -> tuple[Message, ...]:
    """Return a conversation in which user and assistant take turns."""
    spoken = [Message(role=("user", "assistant")[n % 2], content=content) for n, content in enumerate(contents)]
    return (SYSTEM, *spoken) if system else tuple(spoken)


def make_families(folder: Path) -> None:
    """Write one model of each family below a folder and print where."""
    for each in TINY:
        print(make_family(each, folder / each))
