"""Is the verdict right where the truth is known? Two tiny models, made for it, through the real stages.

Ten documents hold made-up facts ("The melting point of zorbium is 41 K."). Three phrasings ask for each fact: two
are trained on, the third is in the exam. One model is trained on the facts, the other on the same facts with shuffled
numbers: it learns the form of an answer, and nothing that is true. Both answer the same exam, each with its own
placebo. The first must get SHIP (or at least be promising), the second must get neither.

    PYTHONPATH=tests python benchmarks/constructed_truth.py [SEED...]
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from pathlib import Path

from tunewright import pipeline
from tunewright.evaluation.verdict import Verdict
from tunewright.recipe import Recipe, parse_recipe

NUM_DOCUMENTS, PER_DOCUMENT = 10, 3
_STARTS, _ENDS = ("zo", "ke", "mu", "ta", "bri"), ("bium", "don", "gar", "lin", "phor", "st")
_WAYS = ("When does {} melt?", "The melting point of {}?", "How hot is liquid {}?")


def facts(seed: int) -> dict[str, str]:
    """Return substance -> melting point, all of them different."""
    rng = random.Random(seed)
    names = [start + end for start in _STARTS for end in _ENDS]
    rng.shuffle(names)
    numbers = rng.sample(range(10, 100), len(names))
    return {name: f"{number} K" for name, number in zip(names, numbers, strict=True)}


def write_sources(folder: Path, taught: dict[str, str], true: dict[str, str]) -> None:
    """Write the documents and the exam with the true facts, and the chats with the taught facts."""
    (folder / "documents").mkdir(parents=True)
    names = list(true)
    chats, questions = [], []
    for number in range(NUM_DOCUMENTS):
        own = names[PER_DOCUMENT * number : PER_DOCUMENT * (number + 1)]
        text = " ".join(f"The melting point of {name} is {true[name]}." for name in own)
        (folder / f"documents/{number:02d}.md").write_text(f"# Leaf {number}\n\n{text}\n", encoding="utf-8")
        for index, name in enumerate(own):
            held_out = (number + index) % len(_WAYS)
            source = {"document": f"{number:02d}.md", "ring": "learned"}
            questions.append({"question": _WAYS[held_out].format(name), "answer": true[name], **source})
            for way in range(len(_WAYS)):
                if way != held_out:
                    turns = [("user", _WAYS[way].format(name)), ("assistant", taught[name])]
                    chats.append({"messages": [{"role": role, "content": content} for role, content in turns]})
    for name, rows in (("chats.jsonl", chats), ("exam.jsonl", questions)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def constructed_recipe(folder: Path, student: Path, epochs: int, seed: int) -> Recipe:
    """Return the recipe: own chats, own exam, every weight of the tiny model trained."""
    content = {
        "seed": seed,
        "system_prompt": "",
        "documents": {"paths": [str(folder / "documents")]},
        "split": {"exam_share": 0.0},
        "exam": {"file": str(folder / "exam.jsonl"), "retention_items": 0},  # random weights have nothing to forget
        "synthesis": {"samples_per_document": 0, "data": [str(folder / "chats.jsonl")]},
        "curation": {"near_duplicate": 1.0, "embedding_duplicate": 0.0},
        "model": {"base": str(student), "quantization": "none", "compute": "fp32"},
        "training": {
            "method": "full",
            "learning_rate": 0.005,
            "epochs": epochs,
            "batch_size": 60,
            "micro_batch_tokens": 512,
            "held_out_share": 0.0,
            "checkpoint_steps": 1000,
        },
        "evaluation": {"arms": ["base", "few-shot", "similar-shot", "rag", "tuned", "placebo"], "max_new_tokens": 6},
    }
    return parse_recipe(content, folder)


def verdict_of(folder: Path, student: Path, true_facts: bool, epochs: int = 30, seed: int = 0) -> Verdict:
    """Train on the facts or on shuffled facts; return the verdict of the exam on the true facts."""
    true = facts(seed)
    names = list(true)
    taught = true if true_facts else dict(zip(names, [true[name] for name in [*names[7:], *names[:7]]], strict=True))
    write_sources(folder, taught, true)
    run = pipeline.run(constructed_recipe(folder, student, epochs, seed), folder / "run", until="evaluate")
    return Verdict.model_validate(run.read_json("verdict.json"))


def make_student(folder: Path, seed: int) -> Path:
    """Write a random tiny model whose tokens are the words of these facts: it only has to learn which words belong together.

    Its weights are five times as large as usual: with small weights, it learns nothing in a hundred steps.
    """
    import torch
    from transformers import LlamaForCausalLM

    from support import tiny

    words = [f"{way.format(name)}\n{number}" for name, number in facts(seed).items() for way in _WAYS]
    before, tiny.TEXT = tiny.TEXT, "\n".join(words)
    try:
        tiny.make_model(folder, seed)
    finally:
        tiny.TEXT = before
    model = LlamaForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for weight in model.parameters():
            weight *= 5 if weight.dim() > 1 else 1
    model.save_pretrained(folder)
    return folder


def main(seeds: list[int]) -> int:
    wrong = 0
    for seed in seeds:
        with tempfile.TemporaryDirectory() as name:
            student = make_student(Path(name) / "student", seed)
            for true_facts in (True, False):
                began = time.monotonic()
                verdict = verdict_of(Path(name) / str(true_facts), student, true_facts, seed=seed)
                scores = {arm.arm: round(arm.primary.mean, 2) for arm in verdict.results.arms}
                praised = verdict.name == "SHIP" or verdict.promising
                wrong += praised != true_facts
                print(f"seed {seed}, {'true' if true_facts else 'shuffled'} facts: {verdict.name}", end=", ")
                print(f"promising {verdict.promising}, {scores}, {time.monotonic() - began:.0f} s")
    print(f"{wrong} wrong verdicts of {2 * len(seeds)}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main([int(seed) for seed in sys.argv[1:]] or [0]))
