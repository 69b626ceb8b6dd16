"""Tokens per second and memory of the local teacher: many calls under way at once against one at a time.

Run: python benchmarks/local_teacher.py [-o benchmarks/results/local_teacher.json] [--shape 8B] [--calls 192]

A model of random weights in NF4 behind the same client that synthesis uses; prompts of 300 to 500 tokens, answers of 16 to
256 (random weights do not stop by themselves, so each call's own limit ends it: rows leave and join at any step).
"""

from __future__ import annotations

import argparse
import datetime
import json
import random
import threading
import time
from pathlib import Path


def calls(number: int) -> list:
    from tunewright.records import Message
    from tunewright.teacher.protocol import Request

    drawn = random.Random(0)
    made = []
    for seed in range(number):
        text = " ".join(f"w{drawn.randrange(3, 30000)}" for _ in range(drawn.randrange(300, 500)))
        made.append(Request((Message(role="user", content=text),), drawn.randrange(16, 257), 0.0, seed))
    return made


def words_tokenizer():
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<pad>": 0, "<eos>": 1, "<unk>": 2} | {f"w{number}": number for number in range(3, 30000)}
    words = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
    made.chat_template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    return made


def measure(model, tokenizer, requests: list, at_once: int) -> tuple[float, int]:
    """Return (written tokens per second, written tokens)."""
    from tunewright.teacher.local import LocalClient

    client = LocalClient(model, tokenizer, [], at_once)
    todo, written, lock = list(requests), [], threading.Lock()

    def work() -> None:
        while True:
            with lock:
                if not todo:
                    return
                request = todo.pop()
            written.append(client.complete(request).num_tokens)

    threads = [threading.Thread(target=work) for _ in range(at_once)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    client.stop()
    return sum(written) / seconds, sum(written)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/local_teacher.json"))
    parser.add_argument("--shape", default="8B")
    parser.add_argument("--calls", type=int, default=192)
    parser.add_argument("--gib", type=float, default=14.5, help="what the card's memory is cut to")
    options = parser.parse_args()
    import torch
    from shapes import make_base

    from tunewright.models.loading import quiet_libraries

    quiet_libraries()
    gpu = torch.cuda.is_available()
    if gpu:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(options.gib * 2**30 / total)
    model = make_base(options.shape, "cuda:0" if gpu else "cpu", torch.bfloat16 if gpu else torch.float32, quantize=gpu)
    tokenizer, results = words_tokenizer(), []
    measure(model.eval(), tokenizer, calls(2), 1)
    for at_once, number in ((1, 4), (16, 64), (64, options.calls)):
        rate, written = measure(model, tokenizer, calls(number), at_once)
        results.append({"at_once": at_once, "calls": number, "written_tokens": written, "tok_s": round(rate, 1)})
        print(json.dumps(results[-1]), flush=True)
    row = {
        "date": datetime.date.today().isoformat(),
        "device": torch.cuda.get_device_name() if gpu else f"CPU, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "shape": options.shape,
        "quantization": "nf4-double" if gpu else "none",
        "card_cut_to_gib": options.gib if gpu else None,
        "peak_reserved_gib": round(torch.cuda.max_memory_reserved() / 2**30, 2) if gpu else None,
        "rows": results,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(row, indent=1) + "\n")


if __name__ == "__main__":
    main()
