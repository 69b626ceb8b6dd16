"""Tiny models of each family as llama.cpp can run them, and their files."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from support.families import TINY, logits_of
from tunewright.export.comparison import TEXTS
from tunewright.models.student import student_base, student_tokenizer
from tunewright.recipe import Recipe, dump_recipe
from tunewright.records import Message
from tunewright.run_folder import RunFolder
from tunewright.settings import DocumentSettings, ModelSettings, TrainingSettings

# Sizes that divide into the blocks of 32 that quantization needs, and the layers' order that llama.cpp knows.
_CHANGES: dict[str, dict[str, Any]] = {
    "gemma2": {"head_dim": 16, "query_pre_attn_scalar": 16},
    "gemma3_text": {"layer_types": None, "num_hidden_layers": 7},
    "gemma3": {"layer_types": None, "num_hidden_layers": 7},
}


def make_exportable(name: str, folder: Path, **changes: Any) -> Path:
    """Write the tiny model of that family, its tokenizer's merges completed as SentencePiece's are."""
    tiny = TINY[name]
    replace(tiny, config={**tiny.config, **_CHANGES.get(name, {}), **changes}).write(folder)
    complete_merges(folder / "tokenizer.json")
    return folder


def complete_merges(file: Path) -> None:
    """Give a SentencePiece-like tokenizer all merges that make a piece, in the pieces' order.

    A trained tokenizer has only the pairs that training met; those converted from SentencePiece have them all.
    """
    state = json.loads(file.read_text(encoding="utf-8"))
    if not state["model"]["byte_fallback"]:
        return
    pieces = {text: number for text, number in state["model"]["vocab"].items() if not text.startswith("<")}
    state["model"]["merges"] = [
        [text[:cut], text[cut:]]
        for text in sorted(pieces, key=pieces.__getitem__)
        for cut in range(1, len(text))
        if text[:cut] in pieces and text[cut:] in pieces
    ]
    file.write_text(json.dumps(state, ensure_ascii=False), encoding="utf-8")


def prompts_of(seed: int, number: int = 12, longest: int = 15) -> list[list[int]]:
    """Return random tokens of the tiny vocabularies' ordinary part."""
    import numpy as np

    draw = np.random.default_rng(seed)
    return [draw.integers(10, 390, draw.integers(2, longest + 1)).tolist() for _ in range(number)]


def log_probs_of(folder: Path, prompts: list[list[int]], adapter: Path | None = None) -> list[Any]:
    """Return transformers' log probabilities of the token after each prompt, in fp32, with the adapter merged."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    if adapter:
        model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    return [torch.log_softmax(logits_of(model, ids)[-1].float(), -1).numpy() for ids in prompts]


def divergences(expected: list[Any], got: list[Any]) -> list[float]:
    """Return the Kullback-Leibler divergence in nats of each distribution from the expected one."""
    import numpy as np

    return [float((np.exp(p) * (p - q)).sum()) for p, q in zip(expected, got, strict=True)]


def random_conversations(spaced: bool = False) -> list[list[Message]]:
    """Return the same 200 conversations each time: 1 to 4 questions, half with a system turn, words of several scripts.

    Args:
        spaced: put white space around each text, as careless clients do.
    """
    draw = random.Random(3)
    words = " ".join(TEXTS).split(" ") + ["{{ .System }}", "<b>&amp;</b>", '"""', "\\n", "user", "[INST]", "%d"]

    def text() -> str:
        some = draw.choices([word for word in words if word], k=draw.randint(1, 12))
        joined = draw.choice([" ", "\n", "  "]).join(some).strip()
        return f" {joined}\n" if spaced else joined

    conversations = []
    for _ in range(200):
        turns = [Message(role="system", content=text())] if draw.random() < 0.5 else []
        for _ in range(draw.randint(1, 4)):
            turns += [Message(role="user", content=text()), Message(role="assistant", content=text())]
        conversations.append(turns[:-1])
    return conversations


def digest_of(prompts: list[str]) -> str:
    """Return a digest of rendered prompts."""
    return sha256(json.dumps(prompts).encode()).hexdigest()[:16]


def adapted_run(folder: Path, base: Path, quantization: str = "none", **training: Any) -> RunFolder:
    """Write a run folder with an adapter of random weights: no exam, no verdict."""
    import torch

    from tunewright.models.loading import attach_adapter, save_adapter

    recipe = Recipe(
        documents=DocumentSettings(paths=("documents",)),
        model=ModelSettings(base=str(base), quantization=quantization, compute="fp32"),
        training=TrainingSettings(rank=4, alpha=8, **training),
    )
    run = RunFolder.create(folder)
    run.write("recipe.toml", dump_recipe(recipe))
    model = attach_adapter(student_base(recipe, "cpu", student_tokenizer(recipe)), recipe.training, 0)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.1)
    save_adapter(model, run.file("adapter"), recipe.model.base)
    return run
