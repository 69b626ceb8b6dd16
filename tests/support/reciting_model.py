"""A tiny model that answers every prompt with one given text: the next token follows from the last alone."""

from __future__ import annotations

from pathlib import Path


def make_reciting_model(folder: Path, text: str, tokens: tuple[str, ...] = ()) -> Path:
    """Write the model; its answer to any prompt is the text, then the end of the turn.

    Attention and MLP add nothing, so that a token's logits are those of its own embedding, and the head is built to
    choose the token after it.

    Args:
        folder: for the model.
        text: made of different tokens, none of which ends a prompt.
        tokens: parts of the text that are one token each.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from support.tiny import make_model

    make_model(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(list(tokens))
    tokenizer.save_pretrained(folder)
    config = AutoConfig.from_pretrained(folder, vocab_size=len(tokenizer), tie_word_embeddings=False)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    newline = tokenizer("\n")["input_ids"]
    said = [*newline, *tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    assert len(set(said)) == len(said), "the text repeats a token"
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "o_proj" in name or "down_proj" in name:
                weight.zero_()
        embeddings = torch.randn(len(tokenizer), 64, generator=torch.Generator().manual_seed(1))
        model.get_input_embeddings().weight.copy_(embeddings)
        head = model.get_output_embeddings().weight
        head.zero_()
        for last, following in zip(said, said[1:], strict=False):
            head[following] = embeddings[last]
    model.save_pretrained(folder)
    return folder
