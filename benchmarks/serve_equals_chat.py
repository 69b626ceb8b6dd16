"""Served answers against chat's: how many of 200 greedy answers are the same, and how near the tie was where they part.

Run: python benchmarks/serve_equals_chat.py RUN [-o benchmarks/results/serve_equals_chat.json] [--dtypes f32 f16 q8_0]

RUN is a finished run folder on the embedded model: tunewright demo --dir RUN. Chat's answers come from its own path
(base in NF4, adapter on top, transformers), the served ones through ``tunewright serve`` and HTTP. Where two answers
part, the gap is what chat's logits put between the two next tokens; the other gaps are those of all its tokens.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import urllib3

SERVE = "import sys; from tunewright.cli import main; main(sys.argv[1:])"


def questions(run: Any, number: int) -> list[str]:
    """Return different questions: the exam's, the samples', and one for each document's title."""
    from tunewright.records import Document, Question, Sample

    asked = [question.question for question in run.read_records("exam.jsonl", Question)]
    asked += [sample.question for sample in run.read_records("samples.jsonl", Sample)]
    asked += [f"What was found in: {document.title}?" for document in run.read_records("documents.jsonl", Document)]
    asked += [f"Who was studied in: {document.title}?" for document in run.read_records("documents.jsonl", Document)]
    return list(dict.fromkeys(asked))[:number]


class Chat:
    """Chat's greedy answers, with the logits behind them."""

    def __init__(self, run: Any, limit: int) -> None:
        from tunewright.chatting.voices import Voices
        from tunewright.models.template import end_ids
        from tunewright.recipe import load_recipe

        self.voices = Voices(run, load_recipe(run.file("recipe.toml")))
        self.model, self.limit = self.voices.load("tuned"), limit
        self.ends = end_ids(self.voices.tokenizer, self.model)

    def answer(self, question: str) -> tuple[str, list[int], list[int]]:
        """Return (text, prompt tokens, answer tokens)."""
        from tunewright.models.streaming import greedy, whole_characters

        tokenizer = self.voices.tokenizer
        prompt = self.voices.prompt_ids("tuned", question, ())
        ids = list(greedy(self.model, prompt, self.limit, self.ends, tokenizer.pad_token_id))
        return "".join(whole_characters(tokenizer, ids)), prompt, ids

    def parting(self, prompt: list[int], ids: list[int], served: str) -> dict[str, Any]:
        """Return where a served answer parts from chat's tokens, and chat's logits there."""
        import torch

        tokenizer = self.voices.tokenizer
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


def served(run: Path, dtype: str, asked: list[str], limit: int) -> tuple[list[str], float]:
    """Return the answers of a server of this run, and its seconds for them."""
    command = [sys.executable, "-c", SERVE, "serve", str(run), "--port", "0", "--dtype", dtype]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ}) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        start = time.monotonic()
        answers = []
        for question in asked:
            body = {"messages": [{"role": "user", "content": question}], "max_tokens": limit}
            reply = urllib3.request("POST", f"{address}/chat/completions", json=body, timeout=600.0)
            answers.append(reply.json()["choices"][0]["message"]["content"])
        seconds = time.monotonic() - start
        process.terminate()
    return answers, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/serve_equals_chat.json"))
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--dtypes", nargs="+", default=["f32", "f16", "q8_0"])
    options = parser.parse_args()
    from tunewright.rundir import RunFolder

    run = RunFolder.open(options.run)
    asked = questions(run, options.questions)
    chat = Chat(run, options.new_tokens)
    start = time.monotonic()
    own = [chat.answer(question) for question in asked]
    seconds = time.monotonic() - start
    result: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "questions": len(asked),
        "new_tokens": options.new_tokens,
        "tokens": sum(len(ids) for _, _, ids in own),
        "chat_seconds": round(seconds, 1),
        "chat_dtype": str(next(chat.model.parameters()).dtype),
    }
    for dtype in options.dtypes:
        answers, took = served(options.run, dtype, asked, options.new_tokens)
        parted = [
            {"question": question, **chat.parting(prompt, ids, answer)}
            for question, answer, (text, prompt, ids) in zip(asked, answers, own, strict=True)
            if answer != text
        ]
        gaps = [abs(entry["gap"]) for entry in parted]
        result[dtype] = {
            "equal": len(asked) - len(parted),
            "seconds": round(took, 1),
            "largest_gap": max(gaps, default=None),
            "median_gap": round(statistics.median(gaps), 4) if gaps else None,
            "parted": parted,
        }
        print(dtype, {name: value for name, value in result[dtype].items() if name != "parted"}, flush=True)
        options.output.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
