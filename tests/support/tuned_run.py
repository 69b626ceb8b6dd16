"""A run folder with a tiny student, a random adapter that changes its answers, sources, samples and an answered exam."""

from __future__ import annotations

from pathlib import Path

from tunewright.evaluation.answering import all_answers
from tunewright.models.loading import attach_adapter, load_base, save_adapter
from tunewright.models.model_pool import ModelWeights
from tunewright.recipe import dump_recipe, parse_recipe
from tunewright.records import Chunk, Document, Message, Question, Sample, Span, SplitEntry
from tunewright.run_folder import RunFile, RunFolder

TEXTS = {
    "Nurses": "The survey followed 426 nurses in three hospitals. Night shifts doubled the risk of headache.",
    "Rice": "Two rice genes were silenced in the greenhouse. The plants without them grew taller in salty water.",
    "Owls": "Owls were counted in forty villages. Fewer owls were heard where street lamps were lit all night.",
}
SYSTEM_PROMPT = "You answer questions about a collection of documents."


def make_speaking_model(folder: Path) -> Path:
    """Write a tiny random model whose answers are made of whole words: rows of odd tokens are zero, and never win."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from support.tiny import make_model

    make_model(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        rows = model.get_input_embeddings().weight
        rows *= 10
        for number in range(len(rows)):
            text = tokenizer.decode([number])
            if number != tokenizer.eos_token_id and not (text.startswith(" ") and text.strip().isalpha()):
                rows[number] *= 0.1
    model.save_pretrained(folder)
    return folder


def make_tuned_run(folder: Path, student: Path, change: float = 0.3, max_new_tokens: int = 12) -> RunFolder:
    """Write the run; ``change`` scales the adapter's random weights, 0 leaves every answer the base's."""
    recipe = parse_recipe(
        {
            "system_prompt": SYSTEM_PROMPT,
            "model": {"base": str(student), "quantization": "none", "compute": "fp32"},
            "training": {"rank": 4},
            "evaluation": {"max_new_tokens": max_new_tokens, "arms": ["base", "tuned"]},
        },
        folder,
    )
    run = RunFolder.create(folder)
    run.write("recipe.toml", dump_recipe(recipe))
    _write_sources(run)
    _write_adapter(run, recipe, student, change)
    questions = [
        Question(
            id=f"{number:016x}",
            ring="learned",
            document="d0",
            question=f"Which group {word} ?",
            gold="Nurses.",
            answerable=True,
        )
        for number, word in enumerate(("had it", "was treated", "followed", "found", "answer", "lower risk"))
    ]
    run.write_records("exam.jsonl", questions)
    weights = {"base": ModelWeights.of(recipe), "tuned": ModelWeights.of(recipe, run.file("adapter"))}
    run.write_records("answers.jsonl", all_answers(run.journal(RunFile.ANSWERS_JOURNAL), recipe, questions, weights)[0])
    return run


def _write_sources(run: RunFolder) -> None:
    documents, chunks, samples = [], [], []
    for number, (title, text) in enumerate(TEXTS.items()):
        document = Document(id=f"d{number}", title=title, source=f"{title}.md", text=text)
        chunk = Chunk(
            id=f"c{number}",
            document=document.id,
            title=title,
            section=(),
            start=0,
            end=len(text),
            text=text,
            num_tokens=30,
        )
        quote = text.split(". ")[1]
        start = text.index(quote)
        evidence = Span(document=document.id, start=start, end=start + len(quote), quote=quote)
        turns = (Message(role="user", content=f"What about {title.lower()}?"), Message(role="assistant", content=quote))
        documents.append(document)
        chunks.append(chunk)
        samples.append(
            Sample(
                id=f"s{number}",
                task="answer-first",
                messages=turns,
                document=document.id,
                chunk=chunk.id,
                evidence=evidence,
            )
        )
    run.write_records("documents.jsonl", documents)
    run.write_records("chunks.jsonl", chunks)
    run.write_records("samples.jsonl", samples)
    run.write_records("train.jsonl", samples)
    run.write_records("split.jsonl", [SplitEntry(document=d.id, side="train", group=d.id) for d in documents])


def _write_adapter(run: RunFolder, recipe, student: Path, change: float) -> None:
    import torch

    model = attach_adapter(load_base(student, "none", "cpu", torch.float32), recipe.training, 1)
    torch.manual_seed(5)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.copy_(torch.randn_like(weight) * change)
    save_adapter(model, run.file("adapter"), str(student))
