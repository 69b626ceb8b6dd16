"""Answers per second: our batches with a shared prefix against ``model.generate``, one question at a time.

Run: python benchmarks/generation.py [-o benchmarks/results/generation.json] [--questions N] [--shape SHAPE]

48 questions behind one system prompt and three few-shot examples (about 300 tokens), 64 new tokens each, greedy. On a
CPU the embedded model's shape in 32 bit; on a GPU the shape of --shape in NF4. Every answer runs to its full length.
"""

from __future__ import annotations

import argparse
import datetime
import json
import random
import time
from pathlib import Path


def prompts(number: int, shared: int) -> list[list[int]]:
    drawn = random.Random(0)
    prefix = [drawn.randrange(5, 30000) for _ in range(shared)]
    return [prefix + [drawn.randrange(5, 30000) for _ in range(drawn.randrange(20, 60))] for _ in range(number)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/generation.json"))
    parser.add_argument("--questions", type=int, default=48)
    parser.add_argument("--shape", default="8B")
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--alone", type=int, default=6, help="questions that are timed one at a time")
    options = parser.parse_args()
    import torch
    from shapes import make_base

    from tunewright.evaluation.generation import BATCH_SIZE
    from tunewright.models.generation import AnswerJob, answer_batch, batches
    from tunewright.models.loading import quiet_libraries

    quiet_libraries()
    gpu = torch.cuda.is_available()
    device, shape = ("cuda:0", options.shape) if gpu else ("cpu", "0.135B")
    dtype = torch.bfloat16 if gpu else torch.float32
    model = make_base(shape, device, dtype, quantize=gpu).eval()
    prompt_ids = prompts(options.questions, 300)
    jobs = [AnswerJob(prompt, ()) for prompt in prompt_ids]
    answer_batch(model, jobs[:2], 4, [], 0)  # loads what is loaded once

    def now() -> float:
        if gpu:
            torch.cuda.synchronize()
        return time.perf_counter()

    began = now()
    outputs = {}
    for batch in batches(jobs, BATCH_SIZE[device.partition(":")[0]]):
        answers = answer_batch(model, [jobs[n] for n in batch], options.new_tokens, [], 0)
        outputs |= dict(zip(batch, answers, strict=True))
    ours = options.questions / (now() - began)
    model.config.use_cache = True
    model.generation_config.eos_token_id = None
    began, same = now(), 0
    for number in range(options.alone):
        ids = torch.tensor([prompt_ids[number]], device=device)
        with torch.inference_mode():
            out = model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=options.new_tokens, do_sample=False, pad_token_id=0
            )  # fmt: skip
        same += out[0, len(prompt_ids[number]) :].tolist() == outputs[number].token_ids
    alone = options.alone / (now() - began)
    row = {
        "date": datetime.date.today().isoformat(),
        "device": torch.cuda.get_device_name() if gpu else f"CPU, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "shape": shape,
        "questions": options.questions,
        "new_tokens": options.new_tokens,
        "answers_per_s": round(ours, 3),
        "generate_answers_per_s": round(alone, 3),
        "times_as_fast": round(ours / alone, 2),
        "same_answers": f"{same} of {options.alone}",
    }
    print(json.dumps(row))
    rows = json.loads(options.output.read_text()) if options.output.exists() else []
    kept = [other for other in rows if (other["device"], other["shape"]) != (row["device"], row["shape"])]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps([*kept, row], indent=1) + "\n")


if __name__ == "__main__":
    main()
