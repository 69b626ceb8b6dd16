"""Tiny random sentence-embedding models, in the layout of sentence-transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from support.tiny import TEXT

_WORDS = "group nine had twelve members of the old collection short glacier"


def make_sentence_model(
    folder: Path,
    max_tokens: int = 64,
    pooling: str = "pooling_mode_mean_tokens",
    prompts: Mapping[str, str] | None = None,
) -> Path:
    """Write a BERT of two layers whose vectors depend on every token; return its folder."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = sorted({*TEXT.lower().replace("?", " ").replace(".", " ").split(), *_WORDS.split()})
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=64, initializer_range=0.5,
    )  # fmt: skip
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({pooling: True}))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": max_tokens}))
    if prompts:
        (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": dict(prompts)}))
    return folder
