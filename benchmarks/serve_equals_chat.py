"""Served answers against chat's: how many of 200 greedy answers are the same, and how near the tie was where they part.

Run: GOMP_SPINCOUNT=1000 python benchmarks/serve_equals_chat.py RUN [-o benchmarks/results/serve_equals_chat.json] [--ways transformers f32 f16 q8_0]

RUN is a finished run folder on the embedded model: tunewright demo --dir RUN. Chat's answers come from its own path
(base in NF4, adapter on top, transformers), the served ones through ``tunewright serve`` and HTTP. Where two answers
part, the gap is what chat's logits put between the two next tokens. A CPU with bf16 units lets chat compute in bf16, where
logits near 20 lie 0.125 apart and ties are common; a copy of RUN with compute = "fp32" in its recipe.toml shows what is left
without them (-o benchmarks/results/serve_equals_chat_fp32.json).
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import urllib3

SERVE = "import sys; from tunewright.cli import main; main(sys.argv[1:])"


def questions(run: Any, number: int) -> list[str]:
    """Return different questions: the exam's, the samples', and three for each document's title."""
    from tunewright.records import Document, Question, Sample

    texts = [question.question for question in run.read_records("exam.jsonl", Question)]
    texts += [sample.question for sample in run.read_records("samples.jsonl", Sample)]
    for form in ("What was found in: {}?", "Who was studied in: {}?", "Where was this done: {}?"):
        texts += [form.format(document.title) for document in run.read_records("documents.jsonl", Document)]
    return list(dict.fromkeys(texts))[:number]


class Chat:
    """Chat's greedy answers, with the logits behind them."""

    def __init__(self, run: Any, limit: int) -> None:
        from tunewright.chat.models import ChatModels
        from tunewright.models.chat_template import end_ids
        from tunewright.recipe import load_recipe

        self.models = ChatModels(load_recipe(run.file("recipe.toml")), run.file("adapter"))
        self.model, self.limit = self.models.load("tuned"), limit
        self.ends = end_ids(self.models.tokenizer, self.model)

    def answer(self, question: str) -> tuple[str, list[int], list[int]]:
        """Return (text, prompt tokens, answer tokens)."""
        from tunewright.models.generation import decode_stream, greedy

        tokenizer = self.models.tokenizer
        prompt = self.models.prompt_ids("tuned", question, ())
        ids = list(greedy(self.model, prompt, self.limit, self.ends, tokenizer.pad_token_id))
        return "".join(decode_stream(tokenizer, ids)), prompt, ids

    def parting(self, prompt: list[int], ids: list[int], served: str) -> dict[str, Any]:
        """Return where a served answer parts from chat's tokens, and chat's logits there."""
        import torch

        tokenizer = self.models.tokenizer
        same = next((n for n in range(len(ids)) if not served.startswith(tokenizer.decode(ids[: n + 1]))), len(ids))
        rest = served[len(tokenizer.decode(ids[:same])) :]
        other = tokenizer(rest, add_special_tokens=False)["input_ids"][0] if rest else self.ends[0]
        own = ids[same] if same < len(ids) else self.ends[0]
        with torch.inference_mode():
            logits = self.model(input_ids=torch.tensor([prompt + ids[:same]])).logits[0, -1].float()
        ordered = logits.sort(descending=True).values
        return {
            "token": same,
            "chat": tokenizer.decode([own]),
            "served": tokenizer.decode([other]),
            "gap": round(float(logits[own] - logits[other]), 4),
            "gap_to_second": round(float(ordered[0] - ordered[1]), 4),
        }


@contextmanager
def server(run: Path, way: str) -> Iterator[str]:
    """Start a server of this run, by transformers or by llama.cpp with a GGUF of this type; yield its address."""
    engine = [way] if way == "transformers" else ["llama.cpp", "--dtype", way]
    command = [sys.executable, "-c", SERVE, "serve", str(run), "--port", "0", "--engine", *engine]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        if not address:
            raise SystemExit(f"the server of {way} does not start")
        try:
            yield address
        finally:
            process.terminate()


def ask(address: str, question: str, limit: int) -> str:
    body = {"messages": [{"role": "user", "content": question}], "max_tokens": limit}
    reply = urllib3.request("POST", f"{address}/chat/completions", json=body, timeout=600.0)
    return str(reply.json()["choices"][0]["message"]["content"])


def summary(parted: list[dict[str, Any]], num_questions: int) -> dict[str, Any]:
    gaps = sorted(abs(entry["gap"]) for entry in parted)
    return {
        "equal": num_questions - len(parted),
        "median_gap": round(statistics.median(gaps), 4) if gaps else None,
        "largest_gap": gaps[-1] if gaps else None,
        "parted": parted,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/serve_equals_chat.json"))
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--ways", nargs="+", default=["transformers", "f32", "f16", "q8_0"])
    options = parser.parse_args()
    from tunewright.run_folder import RunFolder

    run = RunFolder.open(options.run)
    texts = questions(run, options.questions)
    parted: dict[str, list[dict[str, Any]]] = {way: [] for way in options.ways}
    tokens = 0
    with ExitStack() as stack:
        addresses = {way: stack.enter_context(server(options.run, way)) for way in options.ways}
        chat = Chat(run, options.new_tokens)
        for done, question in enumerate(texts, 1):
            text, prompt, ids = chat.answer(question)
            tokens += len(ids)
            for way, address in addresses.items():
                served = ask(address, question, options.new_tokens)
                if served != text:
                    parted[way].append({"question": question, **chat.parting(prompt, ids, served)})
            result = {
                "date": datetime.date.today().isoformat(),
                "questions": done,
                "new_tokens": options.new_tokens,
                "tokens": tokens,
                "chat_dtype": str(next(chat.model.parameters()).dtype).removeprefix("torch."),
                **{way: summary(entries, done) for way, entries in parted.items()},
            }
            # Written after each question: a run that is stopped has counted as far as it came.
            options.output.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            print(done, {way: done - len(entries) for way, entries in parted.items()}, flush=True)


if __name__ == "__main__":
    main()
