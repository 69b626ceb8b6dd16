"""Tiny random models and their tokenizer, made on the spot: real code paths, no download."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEXT = (
    "The study followed 426 patients in three hospitals. Which group had the lower risk? The treated group had it. "
    "You answer questions about a collection of documents. The documents do not give the answer to this question. "
    "system user assistant Passages Question What was found in the survey of nurses and rice genes?"
)


_SENTENCE = "who followed the study of 426 patients in three hospitals and why ? it was treated group ."
REWARD_WORDS = _SENTENCE.split()


def make_tokenizer(
    folder: Path,
    template: str | None = CHATML,
    special: Sequence[str] = ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    bos: str | None = "<|im_start|>",
    eos: str = "<|im_end|>",
    pad: str | None = "<|im_end|>",
    style: str = "bytes",
) -> None:
    """Write a BPE tokenizer; by default its padding token is its end token: the classic trap.

    ``style``: "bytes" as GPT-2 does it; "prepended" and "replaced" as SentencePiece writes spaces, with and without
    one before the text.
    """
    from transformers import PreTrainedTokenizerFast

    tokenizer = _byte_level(special) if style == "bytes" else _sentencepiece(special, style == "prepended")
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos, eos_token=eos, pad_token=pad)
    fast.chat_template = template
    fast.save_pretrained(folder)


def _byte_level(special: Sequence[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    return tokenizer


def _sentencepiece(special: Sequence[str], prepend: bool) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers

    tokenizer = Tokenizer(models.BPE(byte_fallback=True))
    space = normalizers.Replace(" ", "\u2581")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), space]) if prepend else space
    unspace = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*unspace, decoders.Strip(" ", 1, 0)] if prepend else unspace)
    in_bytes = [f"<0x{number:02X}>" for number in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[*special, *in_bytes],
        initial_alphabet=["\u2581"],
        max_token_length=8,
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT.split(" "), trainer)
    state = json.loads(tokenizer.to_str())
    # The trainer takes them for special tokens, which text would turn into.
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] not in in_bytes]
    return Tokenizer.from_str(json.dumps(state))


def make_model(folder: Path, seed: int = 0, template: str | None = CHATML) -> Path:
    """Write a two-layer Llama with random fp32 weights, grouped-query attention and a tied head."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    make_tokenizer(folder, template)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=400,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def make_reward_model(folder: Path, kind: str = "bert", num_labels: int = 1, positions: int = 64) -> Path:
    """Write a random sequence classifier, "bert" or "deberta", and its word tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        DebertaV2Config,
        DebertaV2ForSequenceClassification,
        PreTrainedTokenizerFast,
    )

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer = Tokenizer(
        models.WordLevel({word: n for n, word in enumerate([*special, *REWARD_WORDS])}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    fast.save_pretrained(folder)
    shape: dict[str, Any] = {
        "vocab_size": len(REWARD_WORDS) + 4,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": positions,
        "num_labels": num_labels,
        "initializer_range": 0.5,
    }
    torch.manual_seed(3)
    if kind == "bert":
        model = BertForSequenceClassification(BertConfig(**shape))
    else:
        relative = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False}
        model = DebertaV2ForSequenceClassification(DebertaV2Config(**shape, **relative, type_vocab_size=0))
    model.save_pretrained(folder)
    return folder


def supervised_runs(labels: list[int]) -> list[list[int]]:
    """Return the stretches of labels that a loss is taken on."""
    from itertools import groupby

    return [list(run) for learned, run in groupby(labels, key=lambda label: label != -100) if learned]
