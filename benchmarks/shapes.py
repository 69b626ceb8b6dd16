"""Models of well-known shapes with random weights, made in memory; and the workloads that trainers are timed on."""

from __future__ import annotations

import math
import random
from typing import Any

# hidden, intermediate, layers, heads, key heads, vocabulary, tied
SHAPES = {
    "tiny": (64, 128, 2, 4, 2, 32768, True),  # to try a benchmark out
    "0.135B": (576, 1536, 30, 9, 3, 49152, True),
    "0.5B": (896, 4864, 24, 14, 2, 151936, True),
    "3B": (3072, 8192, 28, 24, 8, 128256, True),
    "7B": (4096, 11008, 32, 32, 32, 32000, False),
    "8B": (4096, 14336, 32, 32, 8, 128256, False),
}


def config_of(name: str) -> Any:
    from transformers import LlamaConfig

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


def make_base(name: str, device: str, dtype: Any, seed: int = 0, quantize: bool = True) -> Any:
    """Return a frozen model of a shape; its blocks' linear layers in NF4 with double quantization."""
    import bitsandbytes
    import torch
    from transformers import LlamaForCausalLM

    torch.manual_seed(seed)
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
                        packed = bitsandbytes.nn.Linear4bit(
                            linear.in_features, linear.out_features, bias=False, compute_dtype=dtype,
                            compress_statistics=True, quant_type="nf4", device="meta",
                        )  # fmt: skip
                        packed.weight = bitsandbytes.nn.Params4bit(
                            linear.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=True
                        ).to(device)
                        setattr(parent, key, packed)
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
