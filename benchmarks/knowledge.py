"""What teaches facts: fine-tuning on answers or distillation from passages, with one wording of each fact or several.

Run: python benchmarks/knowledge.py [-o benchmarks/results/knowledge.json] [--base embedded] [--passages 200]
     python benchmarks/knowledge.py --speed [-o benchmarks/results/knowledge_speed.json]

The corpus is invented (invented_facts.py), so that the base knows nothing of it. Four methods take the same number of
optimizer steps of the same size. Each method first chooses its learning rate on questions of the training's own kind
(a training wording that its samples lack, of a seed that is not counted). The exam has one question for each fact, in a wording that no
training saw; rules score the value in the answer. Recovery is (tuned - base) / (oracle - base), with Fieller's interval
over passages. At four points of each training the exam and the retention suite are answered, so that methods can be
compared at equal gain. The record is written after each result.
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
from invented_facts import ANSWER_OPENINGS, TRAINING_WORDINGS, Passage, answer, passages

from tunewright.evaluation.retention import answer_items, item_tokens, measure_retention, retention_answer
from tunewright.models.chat_template import chat, encode, encode_prompt, end_ids, load_tokenizer
from tunewright.models.generation import AnswerJob, answer_or_halve
from tunewright.models.loading import attach_adapter, compute_dtype, load_base, pick_device
from tunewright.models.source import locate
from tunewright.records import RetentionItem, Sample
from tunewright.retention.suite import load_suite
from tunewright.retrieval.index import Index
from tunewright.settings import SYSTEM_PROMPT, Arm, TrainingSettings
from tunewright.statistics.ratios import ratio_of_means
from tunewright.text.values import gives_value
from tunewright.training.checkpoint import trainable
from tunewright.training.compute_path import PlainPath
from tunewright.training.kernels.distillation import Mixture
from tunewright.training.loop import LoopSettings, optimizer_step
from tunewright.training.objectives import NEXT_TOKEN, Objective, distillation
from tunewright.training.optimizers import OPTIMIZERS
from tunewright.training.packing import Example, step_examples
from tunewright.training.step_plan import Capacity
from tunewright.training.teacher_prompts import with_teachers

RETRIEVED = 2  # passages in the prompt of the rag arm
POINTS = 2  # of a training, at which the exam is answered
RATES = (1e-3, 2e-3, 4e-3)
METHODS = {
    "SFT": (False, False),
    "SFT with views": (False, True),
    "distillation": (True, False),
    "distillation with views": (True, True),
}


@dataclass(frozen=True)
class Setup:
    """What all trainings share.

    Attributes:
        folder: of the base.
        pieces: the corpus.
        exam: (question, value, passage's index) of each fact.
        items: of the retention suite that score given texts; formats need long answers, and are left out.
    """

    folder: Path
    tokenizer: Any
    device: str
    pieces: Sequence[Passage]
    exam: Sequence[tuple[str, str, int]]
    items: Sequence[RetentionItem]
    steps: int
    batch_size: int
    rank: int


def samples_of(pieces: Sequence[Passage], views: bool) -> tuple[list[Sample], dict[str, list[str]]]:
    """Return the samples of all facts, and each one's passage. The last training wording chooses learning rates."""
    samples, shown = [], {}
    for number, passage in enumerate(pieces):
        for place, fact in enumerate(passage.facts):
            for view in range(TRAINING_WORDINGS - 1 if views else 1):
                messages = chat(SYSTEM_PROMPT, fact.questions[view], answer=answer(fact, view))
                sample = Sample(id=f"{number:04d}-{place}-{view}", task="answer-first", messages=messages)
                samples.append(sample)
                shown[sample.id] = [f"{passage.title}\n{passage.text}"]
    return samples, shown


def examples_of(setup: Setup, teaches: bool, views: bool) -> list[Example]:
    """Return the examples of a method."""
    samples, shown = samples_of(setup.pieces, views)
    plain = [Example(sample.id, (encode(setup.tokenizer, sample.messages),)) for sample in samples]
    if not teaches:
        return plain
    taught, rejections = with_teachers(plain, samples, shown, setup.tokenizer, 2048)
    if rejections:
        raise SystemExit(f"{len(rejections)} samples cannot be distilled: {rejections[0].reason}")
    return taught


def answers(model: Any, setup: Setup, prompts: Sequence[Any], tokens: int = 40, rows: int = 1300) -> list[str]:
    """Return a greedy answer to each prompt."""
    ends, texts = end_ids(setup.tokenizer, model), {}
    jobs = [AnswerJob(encode_prompt(setup.tokenizer, prompt), ()) for prompt in prompts]
    order = sorted(range(len(jobs)), key=lambda number: -len(jobs[number].prompt_ids))
    with torch.autocast(setup.device.partition(":")[0], torch.bfloat16, enabled=setup.device != "cpu"):
        for start in range(0, len(order), rows):
            part = order[start : start + rows]
            outputs = answer_or_halve(model, [jobs[n] for n in part], tokens, ends, setup.tokenizer.pad_token_id)
            texts |= {
                n: setup.tokenizer.decode(output.token_ids, skip_special_tokens=True)
                for n, output in zip(part, outputs, strict=True)
            }
    return [texts[number] for number in range(len(jobs))]


def exam_scores(
    model: Any, setup: Setup, shown: Callable[[str, int], list[str]] = lambda question, number: []
) -> tuple[list[float], list[str]]:
    """Return a score of 0 or 1 for each exam question, and the answers."""
    model.eval()
    prompts = [chat(SYSTEM_PROMPT, question, shown(question, number)) for question, _, number in setup.exam]
    texts = answers(model, setup, prompts)
    rows = zip(setup.exam, texts, strict=True)
    return [float(gives_value(text, (value,), question)) for (question, value, _), text in rows], texts


def retention(model: Any, setup: Setup, arm: str) -> list[Any]:
    """Return the answers to the retention items."""
    model.eval()
    ends, given = end_ids(setup.tokenizer, model), []
    entries = [item_tokens(item, setup.tokenizer) for item in setup.items]
    with torch.autocast(setup.device.partition(":")[0], torch.bfloat16, enabled=setup.device != "cpu"):
        for kind in ("choice", "passage"):
            own = sorted((e for e in entries if e.item.kind == kind), key=lambda entry: -entry.length)
            for start in range(0, len(own), 100):
                part = own[start : start + 100]
                outputs = answer_items(setup.tokenizer, part, model, ends)
                given += [retention_answer(e.item, arm, out) for e, out in zip(part, outputs, strict=True)]
    return given


def new_path(setup: Setup, seed: int) -> Any:
    """Return the base with a fresh adapter, on the fast path where there is a GPU."""
    dtype = compute_dtype(setup.device, "auto")
    base = load_base(setup.folder, "none", setup.device, dtype)
    settings = TrainingSettings(rank=setup.rank, alpha=2 * setup.rank)
    model = attach_adapter(base, settings, seed)
    if setup.device == "cpu":
        return PlainPath(model)
    from tunewright.training.kernels.decoder import FastPath

    path = FastPath(model)
    path.configure(10**6, True)
    return path


def train(
    setup: Setup,
    objective: Objective,
    examples: Sequence[Example],
    rate: float,
    seed: int,
    steps: int,
    at_point: Callable[[Any, int], None],
) -> dict[str, Any]:
    """Train; return losses and speed. ``at_point`` is called with the model at equal parts of the steps."""
    path = new_path(setup, seed)
    dtype = compute_dtype(setup.device, "auto")
    settings = LoopSettings(
        seed=seed, learning_rate=rate, epochs=1, batch_size=setup.batch_size, warmup_share=0.05, max_grad_norm=1.0,
        checkpoint_steps=steps, device=setup.device, compute=None if dtype == torch.float32 else dtype,
    )  # fmt: skip
    optimizer = OPTIMIZERS["adamw"](trainable(path.model).values())
    capacity, losses, seconds, tokens = Capacity(16384 if setup.device != "cpu" else 2048), [], 0.0, 0
    for step in range(steps):
        path.model.train()
        batch = [examples[n] for n in step_examples(len(examples), setup.batch_size, seed, step)]
        began = time.perf_counter()
        row, capacity = optimizer_step(path, optimizer, objective, batch, step, steps, settings, capacity)
        seconds += time.perf_counter() - began  # the step's loss was read: the GPU is done
        tokens += row["num_tokens"]
        losses.append(round(row["loss"], 4))
        if step + 1 in {steps * point // POINTS for point in range(1, POINTS + 1)}:
            at_point(path.model, step + 1)
    return {
        "losses": losses[:: max(1, steps // 40)],
        "train_s": round(seconds, 1),
        "tokens_per_s": round(tokens / seconds),
    }


def held_score(setup: Setup, name: str, rate: float) -> float:
    """Return the score on the last training wording after all steps at a learning rate."""
    teaches, views = METHODS[name]
    objective = distillation(Mixture()) if teaches else NEXT_TOKEN
    facts = [(fact.questions[-1], fact.value, n) for n, p in enumerate(setup.pieces) for fact in p.facts]
    held = Setup(**{**setup.__dict__, "exam": facts[::3]})
    means: list[float] = []

    def at_point(model: Any, step: int) -> None:
        if step == setup.steps:
            means.append(statistics.fmean(exam_scores(model, held)[0]))

    train(setup, objective, examples_of(setup, teaches, views), rate, 1000, setup.steps, at_point)
    return means[-1]


def run_method(setup: Setup, name: str, rate: float, seed: int, base: dict[str, Any]) -> dict[str, Any]:
    """Train a method with a seed; return its scores by point, every third question at all but the last."""
    teaches, views = METHODS[name]
    objective = distillation(Mixture()) if teaches else NEXT_TOKEN
    points: list[dict[str, Any]] = []
    third = Setup(**{**setup.__dict__, "exam": setup.exam[::3]})

    def at_point(model: Any, step: int) -> None:
        last = step == setup.steps
        scores, texts = exam_scores(model, setup if last else third)
        kept = measure_retention([*base["retention"], *retention(model, setup, Arm.TUNED)])
        points.append(
            {
                "step": step,
                "score": statistics.fmean(scores),
                "drift": kept.cross_entropy.interval.mean,
                "drift_interval": [kept.cross_entropy.interval.low, kept.cross_entropy.interval.high],
                "ability": kept.accuracy.interval.mean,
                "ability_interval": [kept.accuracy.interval.low, kept.accuracy.interval.high],
                **({"scores": scores, "examples": texts[:3]} if last else {}),
            }
        )

    figures = train(setup, objective, examples_of(setup, teaches, views), rate, seed, setup.steps, at_point)
    return {"seed": seed, "points": points, **figures}


def interval(above: Sequence[float], below: Sequence[float], clusters: Sequence[int]) -> dict[str, float | None]:
    return ratio_of_means(above, below, clusters).model_dump()


def summary(setup: Setup, base: dict[str, Any], methods: dict[str, Any]) -> dict[str, Any]:
    """Return each method's recovery over its seeds, and the differences of recoveries, with intervals."""
    clusters = [number for *_, number in setup.exam]
    brings = [o - b for o, b in zip(base["oracle"], base["base"], strict=True)]
    means = {
        name: [
            statistics.fmean(values) for values in zip(*(r["points"][-1]["scores"] for r in own["runs"]), strict=True)
        ]
        for name, own in methods.items()
        if own["runs"]
    }

    def over(first: Sequence[float], second: Sequence[float]) -> dict[str, float | None]:
        return interval([a - b for a, b in zip(first, second, strict=True)], brings, clusters)

    compared = [("distillation", "SFT"), ("distillation with views", "SFT with views"), ("SFT with views", "SFT")]
    return {
        "recovery": {name: over(scores, base["base"]) for name, scores in means.items()},
        "recovery of rag": over(base["rag"], base["base"]),
        "differences of recovery": {
            f"{a} - {b}": over(means[a], means[b]) for a, b in compared if a in means and b in means
        },
        "unlearned": {
            name: sum(b >= 0.5 and s < 0.5 for b, s in zip(base["base"], scores, strict=True))
            for name, scores in means.items()
        },
        "known before": sum(base["base"]),
    }


def prepared(options: argparse.Namespace) -> Setup:
    """Return what all trainings share."""
    folder, pieces = locate(options.base), passages(options.passages)
    exam = [(fact.exam_question, fact.value, n) for n, p in enumerate(pieces) for fact in p.facts]
    items = [item for item in load_suite() if item.kind != "format"]
    items = items if options.items == 0 else items[:: max(1, len(items) // options.items)]
    tokenizer = load_tokenizer(folder)
    return Setup(
        folder, tokenizer, pick_device(), pieces, exam, items, options.steps, options.batch_size, options.rank
    )  # fmt: skip


def task(options: argparse.Namespace, name: str, rate: float, seed: int, base: dict[str, Any] | None) -> Any:
    """Run a training in a process of its own, once: its result is kept in options.work.

    Without ``base``, the learning rate is tried, and the result is its score.
    """
    kept = options.work / f"{name} {rate:g} {seed if base else 'rate'}.json"
    if not kept.exists():
        torch.set_num_threads(2)
        setup = prepared(options)
        done = run_method(setup, name, rate, seed, base) if base else held_score(setup, name, rate)
        kept.write_text(json.dumps(done), encoding="utf-8")
    return json.loads(kept.read_text(encoding="utf-8"))


def without_training(setup: Setup, note: Callable[[str], None]) -> dict[str, Any]:
    """Return the scores of base, rag and oracle on each question, and the base's retention answers."""
    model = load_base(setup.folder, "none", setup.device, compute_dtype(setup.device, "auto"))
    texts = [f"{passage.title}\n{passage.text}" for passage in setup.pieces]
    index = Index(texts)
    base: dict[str, Any] = {"retention": retention(model, setup, Arm.BASE)}
    shown = {
        "base": lambda question, number: [],
        "rag": lambda question, number: [texts[place] for place, _ in index.search(question, RETRIEVED)],
        "oracle": lambda question, number: [texts[number]],
    }
    for arm, choose in shown.items():
        base[arm], written = exam_scores(model, setup, choose)
        note(f"{arm}: {statistics.fmean(base[arm]):.3f} {written[:2]}")
    return base


def measure(options: argparse.Namespace, write: Callable[[dict[str, Any]], None]) -> None:
    """Run everything, several trainings at once; write the record after each result."""
    setup, notes, began = prepared(options), [], time.perf_counter()
    options.work.mkdir(parents=True, exist_ok=True)

    def note(text: str) -> None:
        notes.append(f"{time.perf_counter() - began:.0f} s: {text}")
        print(notes[-1], flush=True)

    base = without_training(setup, note)
    if setup.device != "cpu":
        torch.cuda.empty_cache()
    record: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "device": torch.cuda.get_device_name() if setup.device != "cpu" else platform.processor() or "CPU",
        "base": options.base,
        "passages": len(setup.pieces),
        "questions": len(setup.exam),
        "corpus": "invented facts; rules write samples and questions; the exam's wordings are in no sample",
        "steps": setup.steps,
        "batch_size": setup.batch_size,
        "rank": setup.rank,
        "trainings at once": options.jobs,
        "views": f"{TRAINING_WORDINGS - 1} wordings of each question, with {len(ANSWER_OPENINGS) - 1} of its answer",
        "arms": {arm: statistics.fmean(base[arm]) for arm in ("base", "rag", "oracle")},
        "retention_items": len(setup.items),
        "methods": {},
        "notes": notes,
    }
    write(record)
    with ProcessPoolExecutor(options.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        tried = {
            (name, rate): pool.submit(task, options, name, rate, 0, None)
            for name in reversed(METHODS)  # the slowest first
            for rate in (() if options.rate else RATES)
        }
        for name in METHODS:
            means = {rate: tried[name, rate].result() for rate in RATES} if tried else {options.rate: 0.0}
            best = max(means, key=lambda rate: means[rate])
            num_samples = len(samples_of(setup.pieces, METHODS[name][1])[0])
            record["methods"][name] = {"rate": best, "tried": means, "num_samples": num_samples, "runs": []}
            note(f"{name}: learning rate {best:g} of {means}")
        waiting = {
            pool.submit(task, options, name, record["methods"][name]["rate"], seed, base): name
            for seed in range(options.seeds)
            for name in reversed(METHODS)
        }
        for ended in as_completed(waiting):
            name, run = waiting[ended], ended.result()
            runs = record["methods"][name]["runs"]
            runs.append(run)
            runs.sort(key=lambda done: done["seed"])
            score, speed_of = run["points"][-1]["score"], run["tokens_per_s"]
            note(f"{name}, seed {run['seed']}: {score:.3f} in {run['train_s']} s, {speed_of} tok/s")
            record["summary"] = summary(setup, base, record["methods"])
            write(record)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/knowledge.json"))
    parser.add_argument("--base", default="embedded")
    parser.add_argument("--passages", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once")
    parser.add_argument("--work", type=Path, default=Path("build/knowledge"), help="finished trainings are kept here")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=0.0, help="of all methods; 0 lets each choose")
    parser.add_argument("--items", type=int, default=0, help="about how many retention items; 0: all but formats")
    parser.add_argument("--speed", action="store_true", help="time distillation beside SFT at the shape of 8B")
    parser.add_argument("--shape", default="8B", help="of --speed; see shapes.py")
    options = parser.parse_args()

    def write(record: dict[str, Any]) -> None:
        kept = json.loads(json.dumps(record), parse_float=lambda text: round(float(text), 4))
        for method in kept.get("methods", {}).values():
            for run in method["runs"]:
                run["points"][-1].pop("scores", None)  # of single questions: they can be computed again
        text = json.dumps(kept, indent=1)
        options.output.write_text(text + "\n", encoding="utf-8")

    if options.speed:
        write(speed(options.shape, options.batch_size))
    else:
        measure(options, write)


def speed(shape: str, size: int) -> dict[str, Any]:
    """Time SFT and distillation on the same chats: 256 tokens each, half of them answer; passages of 256 tokens."""
    from shapes import examples
    from timed import prepare

    from tunewright.models.chat_template import IGNORED, Encoded

    device = pick_device()
    path, optimizer, settings, capacity, why, predicted = prepare(
        shape, device, {}, {"batch_size": size, "max_tokens": 512}
    )
    plain = examples("chat256", 4 * size)
    taught = [
        Example(
            example.sample,
            example.sequences,
            Encoded(list(range(100, 356)) + one.input_ids, [IGNORED] * 256 + one.labels, True),
        )
        for example in plain
        for one in example.sequences
    ]
    record: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "device": torch.cuda.get_device_name() if device != "cpu" else "CPU",
        "shape": shape,
        "workload": f"{size} chats of 256 tokens a step, 128 of them answer; the teacher reads 256 more",
        "plan": why,
    }
    for name, objective, data in (("SFT", NEXT_TOKEN, plain), ("distillation", distillation(Mixture()), taught)):
        if device != "cpu":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        seconds, tokens = [], 0
        for step in range(8):
            batch = data[step % 4 * size : (step % 4 + 1) * size]
            began = time.perf_counter()
            row, _ = optimizer_step(path, optimizer, objective, batch, step, 10**6, settings, capacity)
            seconds.append(time.perf_counter() - began)
            tokens = row["num_tokens"]
        measured = torch.cuda.max_memory_reserved() if device != "cpu" else 0
        rates = [tokens / took for took in seconds[3:]]
        record[name] = {
            "tokens_per_s": round(statistics.median(rates)),
            "predicted_bytes": predicted,
            "measured_bytes": measured,
        }
        print(name, record[name], flush=True)
    record["share of SFT's tokens per second"] = record["distillation"]["tokens_per_s"] / record["SFT"]["tokens_per_s"]
    return record


if __name__ == "__main__":
    main()
