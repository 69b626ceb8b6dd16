"""Is this machine fit for a run, by a real quantized training step; and what can a recipe's teachers do?"""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tunewright import console
from tunewright.commands.json_documents import DoctorCheck, DoctorDocument
from tunewright.errors import TunewrightError, UserError
from tunewright.models import source
from tunewright.recipe import Recipe
from tunewright.records import Message
from tunewright.retrieval import sentence_model
from tunewright.run_folder import RunFile, RunFolder
from tunewright.settings import TeacherSettings
from tunewright.teacher import Request, open_teacher

_LEAST_FREE_BYTES = 3_000_000_000
_PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "xllamacpp")

_SELF_TEST_S = 600.0  # a first import from a cold disk on a busy machine included
_PATIENCE_S = 30.0  # a user waits for the result
_TOKENS = 64
_SYSTEM = "You answer in one line."
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"answer": {"type": "string"}},
    "required": ["answer"],
    "additionalProperties": False,
}

# Run in a process of its own: a broken bitsandbytes build can take the interpreter down with it.
SELF_TEST = """
import logging, torch
logging.disable(logging.CRITICAL)
import bitsandbytes
device = "cuda" if torch.cuda.is_available() else "cpu"
layer = bitsandbytes.nn.Linear4bit(64, 64, bias=False, compute_dtype=torch.float32, quant_type="nf4").to(device)
low = torch.zeros(64, 4, device=device, requires_grad=True)
optimizer = torch.optim.AdamW([low], lr=1e-3)
x = torch.randn(8, 64, device=device)
before = None
for _ in range(2):
    loss = ((layer(x) + x @ low @ torch.ones(4, 64, device=device) - 1) ** 2).mean()
    loss.backward(); optimizer.step(); optimizer.zero_grad()
    assert torch.isfinite(loss) and (before is None or loss < before)
    before = float(loss)
print(device)
"""

Check = Callable[[], tuple[bool, str]]


def machine_checks(fetch: bool) -> Iterator[DoctorCheck]:
    """Yield the result of each check of this machine.

    Args:
        fetch: fetch the embedded models, and convert the first, when the cache lacks them.
    """
    if fetch:
        source.model_folder()
        sentence_model.embedded_folder()
    for name, check in CHECKS.items():
        passed, text = check()
        yield DoctorCheck(name=name, passed=passed, text=text)


def doctor_document(checks: Iterable[DoctorCheck]) -> DoctorDocument:
    """Return the checks for programs."""
    results = tuple(checks)
    return DoctorDocument(passed=all(check.passed for check in results), checks=results)


def examine(fetch: bool) -> None:
    """Print one line per check; see ``machine_checks``.

    Raises:
        UserError: a check failed.
    """
    failed = []
    for check in machine_checks(fetch):
        console.data(_line(check))
        if not check.passed:
            failed.append(check.name)
    if failed:
        raise UserError(
            f"{len(failed)} check(s) failed: {', '.join(failed)}",
            "",
            "fix the checks named above, then run it again",
        )


def _line(check: DoctorCheck) -> str:
    return f"{'ok  ' if check.passed else 'FAIL'}  {check.name.ljust(16)} {check.text}"


def _python() -> tuple[bool, str]:
    return sys.version_info >= (3, 11), f"{platform.python_version()} on {platform.system()} {platform.machine()}"


def _packages() -> tuple[bool, str]:
    present, missing = [], []
    for name in _PACKAGES:
        try:
            present.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    lacking = f"; missing: {', '.join(missing)} (pip install {' '.join(missing)})" if missing else ""
    text = ", ".join(present) + lacking
    return not missing, text


def _device() -> tuple[bool, str]:
    import torch

    from tunewright.models.loading import compute_dtype, pick_device

    device = pick_device()
    dtype = str(compute_dtype(device)).removeprefix("torch.")
    if device == "cpu":
        return True, f"no GPU: CPU with {torch.get_num_threads()} threads, computing in {dtype}"
    properties = torch.cuda.get_device_properties(0)
    return True, f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, computing in {dtype}"


def _quantized_step() -> tuple[bool, str]:
    command = [sys.executable, "-c", SELF_TEST]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=_SELF_TEST_S, check=False)
    except subprocess.TimeoutExpired:
        return False, f"no result within {_SELF_TEST_S:.0f} s: run it again when the machine is less busy"
    if result.returncode == 0:
        return True, f"NF4 layer and two training steps on {result.stdout.strip()}"
    reason = (result.stderr.strip().splitlines() or [f"ended with {result.returncode}"])[-1]
    return False, f'{reason} (train without it: --set model.quantization="none")'


def _disk() -> tuple[bool, str]:
    folders = {"here": ".", "model cache": str(_existing_cache())}
    free = {name: shutil.disk_usage(path).free for name, path in folders.items()}
    text = ", ".join(f"{name} {num_bytes / 1e9:.0f} GB free" for name, num_bytes in free.items())
    return min(free.values()) >= _LEAST_FREE_BYTES, f"{text} (needed: {_LEAST_FREE_BYTES / 1e9:.0f} GB)"


def _existing_cache() -> str:
    folder = source.cache_folder()
    while not folder.exists():
        folder = folder.parent
    return str(folder)


def _model_cache() -> tuple[bool, str]:
    names = (source.NAME, sentence_model.NAME)
    missing = [name for name in names if not (source.cache_folder() / name / "config.json").is_file()]
    state = "the embedded models are there"
    if missing:
        state = f"no {' and no '.join(missing)} yet; tunewright doctor --fetch gets what is missing"
    return True, f"{source.cache_folder()}: {state}"


def examine_teacher(recipe: Recipe) -> None:
    """Print one line per server and form of call: whether it works, and how the server has to be asked.

    Raises:
        UserError: a call failed.
    """
    num_failed, server = 0, ""
    for check in teacher_checks(recipe):
        if check.server != server:
            server = check.server
            console.data(server)
        console.data(_line(check))
        num_failed += not check.passed
    if num_failed:
        raise UserError(f"{num_failed} call(s) failed", "", "fix what the lines above name, then run it again")


def teacher_checks(recipe: Recipe) -> Iterator[DoctorCheck]:
    """Yield the result of each form of call, by server."""
    for section, settings, forms in _connections(recipe):
        for url in settings.urls:
            server = f"{section} {settings.model or url} at {url}".replace(f"{url} at {url}", url)
            single = settings.model_copy(update={"url": url, "patience_s": min(settings.patience_s, _PATIENCE_S)})
            with tempfile.TemporaryDirectory() as folder:  # its journal remembers how the server is asked
                run = RunFolder.create(Path(folder) / "run")
                for form in forms:
                    passed, text = _call(run, single, section, form, _request(form, settings, recipe.seed))
                    yield DoctorCheck(name=form, passed=passed, text=text, server=server)


def _connections(recipe: Recipe) -> Iterator[tuple[str, TeacherSettings, list[str]]]:
    """Yield the recipe's teacher and judge, each with the forms of call that its stages make."""
    forms = ["chat"]
    if {"free-qa", "extraction"} & set(recipe.synthesis.tasks) or "judge" in recipe.curation.checks:
        forms.append("JSON schema")
    if recipe.synthesis.general_samples:
        forms.append("raw text")
    yield "teacher", recipe.writer, forms
    if recipe.judge.url:
        yield "judge", recipe.judge.as_teacher, ["JSON schema"]


def _request(form: str, settings: TeacherSettings, seed: int) -> Request:
    if form == "raw text":
        return Request((), _TOKENS, settings.temperature, seed, raw="The capital of France is", stop=("\n",))
    schema = _SCHEMA if form == "JSON schema" else None
    prompt = 'Reply with JSON only: {"answer": "ready"}' if schema else "Reply with one word: ready"
    messages = (Message(role="system", content=_SYSTEM), Message(role="user", content=prompt))
    return Request(messages, _TOKENS, settings.temperature, seed, schema)


def _call(run: RunFolder, settings: TeacherSettings, section: str, form: str, request: Request) -> tuple[bool, str]:
    """Make one call; return whether its reply is of use, and a line on it."""
    try:
        with open_teacher(run.journal(RunFile.TEACHER_JOURNAL), settings, section) as teacher:
            reply = teacher.ask_all([request], form)[0]
            notes = {name: value for name, value in teacher.notes().items() if name != "most_frequent_failure"}
    except TunewrightError as error:
        return False, "; ".join(filter(None, (error.headline, error.cause, error.hint)))
    if reply is None:
        return False, "no reply"
    parts = [f"{reply.seconds:.1f} s, {reply.num_tokens} tokens: {' '.join(reply.text.split())[:60]!r}"]
    parts += [f"{name.replace('_', ' ')}: {value}" for name, value in notes.items()]
    fault = _fault(form, reply.text, reply.finish)
    return not fault, "; ".join(filter(None, (fault, *parts)))


def _fault(form: str, text: str, finish: str) -> str:
    """Return why a reply is of no use, or ""."""
    if form == "raw text":  # it may be cut: there is no end to what it continues
        return "" if text.strip() else "an empty reply"
    if finish != "stop":
        return f"the reply is not whole ({finish})"
    if form == "chat":
        return "" if text.strip() else "an empty reply"
    try:
        content, _ = json.JSONDecoder().raw_decode(text, max(0, text.find("{")))
    except (ValueError, RecursionError):
        return "no JSON in the reply"
    return "" if isinstance(content, dict) else "no JSON object in the reply"


CHECKS: dict[str, Check] = {
    "python": _python,
    "packages": _packages,
    "device": _device,
    "quantized step": _quantized_step,
    "disk": _disk,
    "model cache": _model_cache,
}
