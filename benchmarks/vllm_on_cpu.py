"""The real vLLM behind tunewright, on a CPU: the same greedy answers as the exam's, a local teacher, a server, and its end.

Run: python benchmarks/vllm_on_cpu.py RUN [-o benchmarks/results/vllm_on_cpu.json] [--questions 200] [--calls 20] [--exam-only]

``vllm`` on the PATH has to be a build of its CPU backend; a script of that name may add ``--gpu-memory-utilization``, the
share of the memory that such a build takes. RUN is a finished run folder on the embedded model whose exam base, or base
and tuned, answered: vllm_on_cpu.json is of one with quantization = "none" and compute = "fp32", vllm_on_cpu_nf4.json of one
with the defaults (--exam-only --questions 100). tunewright starts vLLM only beside a CUDA device, so this script lets
PyTorch claim one while vLLM is chosen; nothing is computed on it. RUN is also served by ``tunewright serve --engine vllm``,
and vLLM's processes are killed there. The seconds of start and end are wall time on a shared machine of two cores.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import urllib3
from serve_equals_chat import Chat, summary

AT_ONCE = 8
WITH_CUDA = "import torch; torch.cuda.is_available = lambda: True; "
SERVE = WITH_CUDA + "import sys; from tunewright.cli import main; main(sys.argv[1:])"


@contextmanager
def claimed_gpu(bf16: bool) -> Iterator[None]:
    with (
        patch("torch.cuda.is_available", return_value=True),
        patch("torch.cuda.is_bf16_supported", return_value=bf16),
    ):
        yield


def vllm_processes() -> list[int]:
    """Return the processes of any vLLM on this machine."""
    listed = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if "VLLM::" in line or "vllm serve" in line]


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of vLLM's."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in vllm_processes()]
    return time.process_time() + sum(int(f[11]) + int(f[12]) for f in fields) / os.sysconf("SC_CLK_TCK")


def seconds_until_gone(within_s: float = 60.0) -> float | None:
    """Return after how many seconds no process of vLLM is left; None where one still is."""
    began = time.monotonic()
    while time.monotonic() - began < within_s:
        if not vllm_processes():
            return round(time.monotonic() - began, 1)
        time.sleep(0.1)
    return None


class Exam:
    """A run's exam: prompts in tokens, and the evaluation's answers by arm."""

    def __init__(self, folder: Path, most: int) -> None:
        from tunewright.models.chat_template import encode_prompt, exam_prompt
        from tunewright.models.student import student_tokenizer
        from tunewright.recipe import load_recipe
        from tunewright.records import Answer, Question
        from tunewright.run_folder import RunFolder

        self.run = RunFolder.open(folder)
        self.recipe = load_recipe(self.run.file("recipe.toml"))
        self.tokenizer = student_tokenizer(self.recipe)
        self.questions = self.run.read_records("exam.jsonl", Question)[:most]
        self.prompts = [
            encode_prompt(self.tokenizer, exam_prompt(self.recipe.system_prompt, q)) for q in self.questions
        ]
        answers = {(a.arm, a.question): a for a in self.run.read_records("answers.jsonl", Answer)}
        arms = [arm for arm in ("base", "tuned") if any(arm == own for own, _ in answers)]
        self.answers = {arm: [answers[arm, q.id] for q in self.questions] for arm in arms}


def served_answers(exam: Exam, engine: Any, arm: str) -> list[tuple[str, int]]:
    """Return vLLM's texts and their numbers of tokens, the end not counted, asked for as ``tunewright serve`` asks."""
    from tunewright.serving.requests import ChatRequest

    request = ChatRequest(messages=[{"role": "user", "content": "-"}], max_tokens=exam.recipe.evaluation.max_new_tokens)

    def answer(prompt: list[int]) -> tuple[str, int]:
        pieces = list(engine.answer(prompt, request))
        last = pieces[-1]
        return "".join(piece.text for piece in pieces), (last.num_tokens or 0) - (last.finish == "stop")

    # The engine asks for the tuned model; here it asks for either.
    with patch("tunewright.serving.engine.Arm", SimpleNamespace(TUNED=arm)), ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(answer, exam.prompts))


def exam_equality(folder: Path, most: int) -> dict[str, Any]:
    """Compare vLLM's answers of base and tuned to a run's exam with those of the evaluation."""
    from tunewright.models.chat_template import end_ids
    from tunewright.models.loading import compute_dtype
    from tunewright.serving.vllm import vllm_engine

    exam = Exam(folder, most)
    dtype = compute_dtype("cpu", exam.recipe.model.compute)
    ends = end_ids(exam.tokenizer, None)
    began = time.monotonic()
    with (
        claimed_gpu(str(dtype) == "torch.bfloat16"),
        vllm_engine(exam.recipe, exam.run.file("adapter"), ends) as engine,
    ):
        start_s = time.monotonic() - began
        context = engine.context
        served = {arm: served_answers(exam, engine, arm) for arm in exam.answers}
    result: dict[str, Any] = {
        "quantization": exam.recipe.model.quantization,
        "dtype": str(dtype).removeprefix("torch."),
        "rank": exam.recipe.training.rank,
        "start_s": round(start_s, 1),
        "context": context,
        "end_s": seconds_until_gone(),
        "questions": len(exam.questions),
    }
    chat = Chat(exam.run, exam.recipe.evaluation.max_new_tokens)
    for arm, replies in served.items():
        parted, counted = [], 0
        for question, prompt, expected, (text, num_tokens) in zip(
            exam.questions, exam.prompts, exam.answers[arm], replies, strict=True
        ):
            counted += num_tokens == expected.num_tokens
            if text.strip() != expected.text.strip():
                ids = exam.tokenizer(expected.text, add_special_tokens=False)["input_ids"]
                with chat.model.disable_adapter() if arm == "base" else nullcontext():
                    parted.append({"question": question.question, **chat.parting(prompt, ids, text)})
        result[arm] = {"token_counts_equal": counted, **summary(parted, len(replies))}
    return result


def requests(exam: Exam, number: int) -> list[Any]:
    """Return calls as synthesis makes them: chats, chats with a schema, and raw texts."""
    from tunewright.records import Message
    from tunewright.teacher.protocol import Request

    schema = {
        "type": "object",
        "properties": {"answer": {"type": "string"}},
        "required": ["answer"],
        "additionalProperties": False,
    }
    made = []
    for index, question in enumerate(exam.questions[:number]):
        turns = (Message(role="user", content=question.question),)
        if index % 4 == 3:
            made.append(Request((), 24, 0.0, index, raw=f"Question: {question.question}\nAnswer:"))
        else:
            made.append(Request(turns, 48, 0.0, index, schema=schema if index % 4 == 2 else None))
    return made


def local_teacher(exam: Exam, number: int, folder: Path) -> dict[str, Any]:
    """Ask the local teacher through vLLM and in this process; count the same replies and the replies that fit a schema."""
    import torch

    from tunewright.models.source import locate
    from tunewright.run_folder import RunFolder
    from tunewright.settings import TeacherSettings
    from tunewright.teacher import open_teacher

    asked = requests(exam, number)
    settings = TeacherSettings(url="local", model=str(locate("embedded")), temperature=0.0, concurrency=AT_ONCE)
    replies, cpu_s = {}, {}
    fp32 = patch("tunewright.models.vllm_server.compute_dtype", lambda *_: torch.float32)
    fp32_here = patch("tunewright.models.loading.compute_dtype", lambda *_: torch.float32)
    for way in ("vllm", "process"):
        path = os.environ["PATH"] if way == "vllm" else "/usr/bin:/bin"
        journal = RunFolder.create(folder / way).journal("teacher.jsonl")
        with fp32, fp32_here, patch.dict(os.environ, PATH=path), open_teacher(journal, settings, "synth") as teacher:
            if way == "vllm":
                with claimed_gpu(True):
                    teacher.ask_all(asked[:1], "start")
            before = cpu_seconds()
            replies[way] = teacher.ask_all(asked, "questions")
            cpu_s[way] = cpu_seconds() - before
    same: dict[str, list[int]] = {"chat": [], "schema": [], "raw": []}
    fits, cut = {way: 0 for way in replies}, {way: 0 for way in replies}
    for request, through, within in zip(asked, replies["vllm"], replies["process"], strict=True):
        form = "raw" if request.raw else "schema" if request.schema else "chat"
        same[form].append(int(through.text.strip() == within.text.strip()))
        for way, reply in (("vllm", through), ("process", within)):
            fits[way] += form == "schema" and is_answer(reply.text)
            cut[way] += form == "schema" and reply.finish == "length"
    return {
        **{f"{form}_equal": f"{sum(equal)} of {len(equal)}" for form, equal in same.items()},
        "replies_that_fit_the_schema": {way: f"{count} of {len(same['schema'])}" for way, count in fits.items()},
        "cut_before_the_schema_was_complete": cut,
        "cpu_s": {way: round(seconds, 1) for way, seconds in cpu_s.items()},
    }


def is_answer(text: str) -> bool:
    try:
        content = json.loads(text)
    except ValueError:
        return False
    return isinstance(content, dict) and set(content) == {"answer"} and isinstance(content["answer"], str)


@contextmanager
def server(run: Path, log: Path) -> Iterator[tuple[str, subprocess.Popen[str], float]]:
    """Start ``tunewright serve --engine vllm``; yield its address, its process, and the seconds until it listened."""
    words = [sys.executable, "-c", SERVE, "serve", str(run), "--port", "0", "--engine", "vllm"]
    began = time.monotonic()
    with log.open("w") as errors, subprocess.Popen(words, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        if not address:
            raise SystemExit(f"the server does not start: {log.read_text()[-2000:]}")
        try:
            yield address, process, time.monotonic() - began
        finally:
            process.kill()


def serving(run: Path, folder: Path) -> dict[str, Any]:
    """Serve a run; end it by Ctrl-C, by SIGKILL, and kill vLLM's engine under it."""
    result: dict[str, Any] = {}
    body = {"messages": [{"role": "user", "content": "How heavy is the town bell of Marlow?"}], "max_tokens": 24}
    for end in ("SIGINT", "SIGKILL", "engine killed"):
        log = folder / "serve.log"
        with server(run, log) as (address, process, start_s):
            canaries = next(line for line in log.read_text().splitlines() if "exam questions, it answers" in line)
            reply = urllib3.request("POST", f"{address}/chat/completions", json=body, timeout=600.0).json()
            entry = {
                "start_s": round(start_s, 1),
                "canaries": canaries.strip(),
                "reply": reply["choices"][0]["message"]["content"],
                "usage": reply["usage"],
                "vllm_processes": len(vllm_processes()),
            }
            if end == "engine killed":
                names = subprocess.run(["pgrep", "-f", "^VLLM::EngineCore"], capture_output=True, text=True).stdout
                for pid in names.split():
                    os.kill(int(pid), signal.SIGKILL)
                time.sleep(1.0)
                after = urllib3.request("POST", f"{address}/chat/completions", json=body, timeout=600.0, retries=False)
                health = urllib3.request("GET", f"{address.removesuffix('/v1')}/health", timeout=60.0, retries=False)
                entry |= {"status_after": after.status, "reply_after": after.json(), "health_after": health.status}
            process.send_signal(signal.SIGKILL if end == "SIGKILL" else signal.SIGINT)
            entry["exit_code"] = process.wait(60)
            entry["vllm_gone_after_s"] = seconds_until_gone()
            result[end] = entry
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/vllm_on_cpu.json"))
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--calls", type=int, default=20)
    parser.add_argument("--exam-only", action="store_true")
    options = parser.parse_args()
    version = subprocess.run(["vllm", "--version"], capture_output=True, text=True, check=True).stdout.split()[-1]
    result: dict[str, Any] = {"date": datetime.date.today().isoformat(), "vllm": version}
    with tempfile.TemporaryDirectory() as name:
        result["exam"] = exam_equality(options.run, options.questions)
        write(result, options.output)
        if not options.exam_only:
            result["teacher"] = local_teacher(Exam(options.run, options.calls), options.calls, Path(name))
            write(result, options.output)
            result["serve"] = serving(options.run, Path(name))
            write(result, options.output)


def write(result: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
