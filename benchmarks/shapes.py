"""Models of well-known shapes with random weights, made in memory; and the workloads that trainers are timed on."""

from __future__ import annotations

import math
import random
from typing import Any

# hidden, intermediate, layers, heads, key heads, vocabulary, tied
SHAPES = {
    "tiny": (64, 128, 2, 4, 2, 49152, True),  # to try a benchmark out
    "0.135B": (576, 1536, 30, 9, 3, 49152, True),
    "0.5B": (896, 4864, 24, 14, 2, 151936, True),
    "3B": (3072, 8192, 28, 24, 8, 128256, True),
    "7B": (4096, 11008, 32, 32, 32, 32000, False),
    "8B": (4096, 14336, 32, 32, 8, 128256, False),
}


# Shapes of other kinds: transformers' model type and what its config says.
_MOE = {
    "hidden_size": 2048, "intermediate_size": 6144, "moe_intermediate_size": 768, "num_attention_heads": 32,
    "num_key_value_heads": 4, "head_dim": 128, "num_experts": 128, "num_experts_per_tok": 8, "norm_topk_prob": True,
    "vocab_size": 151936, "max_position_embeddings": 16384, "tie_word_embeddings": False,
}  # fmt: skip
_PHI_4_MINI = {
    "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32, "num_attention_heads": 24,
    "num_key_value_heads": 8, "vocab_size": 200064, "tie_word_embeddings": True, "max_position_embeddings": 16384,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "sliding_window": None,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.75},
}  # fmt: skip
_GEMMA = {"vocab_size": 262208, "head_dim": 256, "query_pre_attn_scalar": 256, "tie_word_embeddings": True}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma-3-1B": ("gemma3_text", _GEMMA | {
        "hidden_size": 1152, "intermediate_size": 6912, "num_hidden_layers": 26, "num_attention_heads": 4,
        "num_key_value_heads": 1, "sliding_window": 512,
    }),
    "gemma-3-4B": ("gemma3_text", _GEMMA | {
        "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34, "num_attention_heads": 8,
        "num_key_value_heads": 4, "sliding_window": 1024,
    }),
    "gemma-2-2B": ("gemma2", _GEMMA | {
        "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26, "num_attention_heads": 8,
        "num_key_value_heads": 4, "sliding_window": 4096, "vocab_size": 256000,
    }),
    "phi-4-mini": ("phi3", _PHI_4_MINI),
    "qwen3-moe-12": ("qwen3_moe", _MOE | {"num_hidden_layers": 12}),
    "qwen3-30B-A3B": ("qwen3_moe", _MOE | {"num_hidden_layers": 48}),
    "granite-moe-3B": ("granitemoe", {
        "hidden_size": 1536, "intermediate_size": 512, "num_hidden_layers": 32, "num_attention_heads": 24,
        "num_key_value_heads": 8, "num_local_experts": 40, "num_experts_per_tok": 8, "vocab_size": 49155,
        "tie_word_embeddings": True, "attention_multiplier": 0.015625, "embedding_multiplier": 12.0,
        "logits_scaling": 6.0, "residual_multiplier": 0.22,
    }),
}  # fmt: skip


def config_of(name: str) -> Any:
    from transformers import AutoConfig, LlamaConfig

    if name in KINDS:
        kind, values = KINDS[name]
        return AutoConfig.for_model(kind, **values)
    hidden, intermediate, layers, heads, key_heads, vocabulary, tied = SHAPES[name]
    return LlamaConfig(
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        vocab_size=vocabulary,
        tie_word_embeddings=tied,
        max_position_embeddings=16384,
        rope_theta=500000.0,
        rms_norm_eps=1e-5,
    )


def _packed(linear: Any, dtype: Any, device: str) -> Any:
    """Return a linear layer in NF4 with double quantization."""
    import bitsandbytes

    packed = bitsandbytes.nn.Linear4bit(
        linear.in_features, linear.out_features, bias=False, compute_dtype=dtype,
        compress_statistics=True, quant_type="nf4", device="meta",
    )  # fmt: skip
    packed.weight = bitsandbytes.nn.Params4bit(
        linear.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=True
    ).to(device)
    return packed


def _make_other(name: str, device: str, dtype: Any, quantize: bool) -> Any:
    """Return a frozen model of another kind than Llama."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_default_dtype(dtype)
    config = config_of(name)
    config._attn_implementation = "sdpa"
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config)
    torch.set_default_dtype(torch.float32)
    for parent in list(model.model.layers.modules()) if quantize else []:
        for key, linear in list(parent.named_children()):
            if type(linear) is torch.nn.Linear:
                setattr(parent, key, _packed(linear, dtype, device))
    if quantize:
        from tunewright.models.experts import quantize_experts

        quantize_experts(model, "nf4-double", device)
        model.is_loaded_in_4bit = True
    model.config.use_cache = False
    return model.requires_grad_(False)


def make_base(name: str, device: str, dtype: Any, seed: int = 0, quantize: bool = True) -> Any:
    """Return a frozen model of a shape; its blocks' linear layers in NF4 with double quantization."""
    import torch
    from transformers import LlamaForCausalLM

    torch.manual_seed(seed)
    if name in KINDS:
        return _make_other(name, device, dtype, quantize)
    torch.set_default_dtype(dtype)
    with torch.device("meta"):
        model = LlamaForCausalLM(config_of(name))
    layers = model.model.layers
    model.model.layers = torch.nn.ModuleList()
    model.to_empty(device=device)
    with torch.device(device):
        model.model.rotary_emb = type(model.model.rotary_emb)(model.config)
    for layer in layers:  # one at a time: the model in 16 bits need not fit as a whole
        layer.to_empty(device=device)
        for module in layer.modules():
            for parent in [module] if quantize else []:
                for key, linear in list(parent.named_children()):
                    if isinstance(linear, torch.nn.Linear):
                        linear.weight.data.normal_(0, 0.02)
                        setattr(parent, key, _packed(linear, dtype, device))
        model.model.layers.append(layer)
    for name_, parameter in model.named_parameters():
        if "norm" in name_:
            parameter.data.fill_(1.0)
        elif parameter.is_floating_point():
            parameter.data.normal_(0, 0.02)
    model.tie_weights()
    torch.set_default_dtype(torch.float32)
    model.config.use_cache = False
    if quantize:
        model.is_loaded_in_4bit = True
    return model.requires_grad_(False)


def sequences(workload: str, number: int, seed: int = 1) -> list[tuple[list[int], int]]:
    """Return token sequences of a workload, each with the length of its masked prompt.

    "packed2k": 2,048 tokens each, all trained on; "chat": log-normal with median 220, 40-75 % of each a prompt;
    "512" and "chat256": that many tokens each, half of the latter a prompt.
    """
    drawn = random.Random(seed)
    result = []
    for _ in range(number):
        if workload == "packed2k":
            length, prompt = 2048, 0
        elif workload == "512":
            length, prompt = 512, 0
        elif workload == "chat256":
            length, prompt = 256, 128
        else:
            length = max(48, min(1024, int(drawn.lognormvariate(math.log(220), 0.5))))
            prompt = int(length * drawn.uniform(0.4, 0.75))
        result.append(([drawn.randrange(5, 32000) for _ in range(length)], prompt))
    return result


def pairs(number: int, seed: int = 2) -> list[tuple[list[int], list[int], list[int]]]:
    """Return (prompt, chosen, rejected) of token ids: chats as above, the rejected answer of another length."""
    drawn = random.Random(seed)
    result = []
    for ids, prompt in sequences("chat", number, seed):
        other = max(16, int((len(ids) - prompt) * drawn.uniform(0.6, 1.4)))
        result.append((ids[:prompt], ids[prompt:], [drawn.randrange(5, 32000) for _ in range(other)]))
    return result


def paired_examples(number: int, seed: int = 2) -> list[Any]:
    """Return pairs as examples of the training loop."""
    from tunewright.models.chat_template import IGNORED, Encoded
    from tunewright.training.packing import Example

    return [
        Example(
            f"{index:05d}",
            tuple(Encoded(prompt + end, [IGNORED] * len(prompt) + end, True) for end in (chosen, rejected)),
        )
        for index, (prompt, chosen, rejected) in enumerate(pairs(number, seed))
    ]


def examples(workload: str, number: int, seed: int = 1) -> list[Any]:
    """Return the workload's sequences as examples of the training loop."""
    from tunewright.models.chat_template import IGNORED, Encoded
    from tunewright.training.packing import Example

    return [
        Example(f"{index:05d}", (Encoded(ids, [IGNORED] * prompt + ids[prompt:], True),))
        for index, (ids, prompt) in enumerate(sequences(workload, number, seed))
    ]
