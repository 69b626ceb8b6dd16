"""The command serve: start the engine, check it with canaries, and only then listen on the port."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from tunewright import console, operating_system
from tunewright.errors import ModelError, StageError, UserError, command, shell
from tunewright.export.receipt import RECEIPT
from tunewright.export.target import ExportRequest
from tunewright.models.chat_template import end_ids
from tunewright.models.loading import is_full
from tunewright.models.source import locate, read_config
from tunewright.models.student import student_tokenizer
from tunewright.pipeline import require
from tunewright.recipe import Recipe, load_recipe
from tunewright.records import Answer, Question
from tunewright.run_folder import RunFile, RunFolder
from tunewright.serving import vllm
from tunewright.serving.app import run_server
from tunewright.serving.canary import Canary, choose_canaries, require_tuned
from tunewright.serving.engine import Engine
from tunewright.serving.listen import TOKEN, start_listening, take_port, token_for, url_of
from tunewright.serving.llama_cpp import finished_gguf, llama_engine, write_gguf
from tunewright.serving.served_model import ServedModel
from tunewright.serving.transformers_engine import transformers_engine

_END_S = 2.5  # from the signal to the end


def serve(run: RunFolder, host: str, port: int, engine: str, dtype: str) -> None:
    """Serve the tuned model until it is stopped; the address goes to stdout once the canaries prove the model.

    Args:
        run: a run folder with an evaluation.
        host: the address to listen on; any but the loopback needs a token in the environment.
        port: 0 takes a free one.
        engine: "vllm", "llama.cpp", "transformers", or "auto": the first of them that can serve this run.
        dtype: of the GGUF, where llama.cpp serves it.

    Raises:
        UserError: no token, a port in use, or base and tuned that answer the exam alike.
        StageError: the engine does not start, or does not answer as the tuned model did.
    """
    token = token_for(host)
    require(run, RunFile.RECIPE, RunFile.ADAPTER)
    recipe = load_recipe(run.file(RunFile.RECIPE))
    with _terminable(), take_port(host, port) as listener:
        tokenizer = student_tokenizer(recipe)
        canaries = _canaries(run, recipe, tokenizer)
        with start_engine(run, recipe, engine, dtype, tokenizer) as started:
            model = ServedModel(started, tokenizer, recipe.system_prompt, recipe.training.reasoning == "strip")
            exact = "" if started.name == "transformers" else "--engine transformers rounds nothing; "
            hint = f"{exact}was the adapter changed after the evaluation? then run the recipe on this folder again"
            answers = model.canary_answers(canaries, recipe.evaluation.max_new_tokens)
            console.line(require_tuned(canaries, answers, hint))
            start_listening(listener)
            console.line(f"serving {run.path} with {started.name}; Ctrl-C stops it", "bold")
            console.line(
                f"model: tuned; system prompt where a chat has none: {recipe.system_prompt or '(none)'}", "dim"
            )
            console.line(f"requests need the token of {TOKEN}" if token else "open to this machine only", "dim")
            console.data(url_of(listener))
            run_server(model, token, host, listener)
    console.line("stopped")


@contextmanager
def _terminable() -> Iterator[None]:
    """Make a SIGTERM end the block as Ctrl-C does, so that child processes end too.

    A library that computes may hold the main thread for longer than whoever stops the server waits: then this process
    ends as it is. Its children end with it.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    def end_in_time() -> None:  # the system writes a signal's number into the pipe, whatever the main thread does
        while number := os.read(reader, 1):
            if number[0] in (signal.SIGTERM, signal.SIGINT):
                time.sleep(_END_S)
                os._exit(0)
        os.close(reader)

    reader, writer = os.pipe()
    operating_system.set_non_blocking(writer)
    before, pipe_before = signal.signal(signal.SIGTERM, stop), signal.set_wakeup_fd(writer)
    threading.Thread(target=end_in_time, daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(pipe_before)
        signal.signal(signal.SIGTERM, before)
        os.close(writer)


def _canaries(run: RunFolder, recipe: Recipe, tokenizer: Any) -> list[Canary]:
    require(run, RunFile.EXAM, RunFile.ANSWERS)
    questions = run.read_records(RunFile.EXAM, Question)
    answers = run.read_records(RunFile.ANSWERS, Answer)
    return choose_canaries(questions, answers, recipe.system_prompt, tokenizer, run.path)


@contextmanager
def start_engine(run: RunFolder, recipe: Recipe, choice: str, dtype: str, tokenizer: Any) -> Iterator[Engine]:
    """Run the chosen engine while the block lasts; for "auto" the first of vLLM, llama.cpp, transformers that starts.

    Raises:
        UserError: vLLM is chosen and cannot serve this run.
        StageError: vLLM is chosen and does not start.
        ModelError: llama.cpp is chosen and does not support the model.
    """
    with ExitStack() as stack:
        lacking = vllm.why_not(recipe) if choice in ("auto", "vllm") else ""
        started = None
        if choice in ("auto", "vllm") and not lacking:
            try:
                server = vllm.vllm_engine(recipe, run.file(RunFile.ADAPTER), end_ids(tokenizer, None))
                started = stack.enter_context(server)
            except StageError as error:
                if choice == "vllm":
                    raise
                console.warning(f"{error.headline} ({error.cause})")
                lacking = error.headline
        if choice == "vllm" and not started:
            raise UserError("vLLM cannot serve this run", lacking, "leave --engine out, and another engine serves it")
        yield started or stack.enter_context(_other_engine(run, recipe, choice, dtype, lacking))


def _other_engine(
    run: RunFolder, recipe: Recipe, choice: str, dtype: str, lacking: str
) -> AbstractContextManager[Engine]:
    """Return llama.cpp where it serves this run, else transformers; ``lacking`` is why vLLM does not serve it."""
    adapter = run.file(RunFile.ADAPTER)
    if choice == "transformers":
        return transformers_engine(recipe, adapter)
    console.line(f"llama.cpp serves{f': {lacking}' if lacking else ''}", "dim")
    folder = adapter if is_full(adapter) else locate(recipe.model.base, recipe.folder)
    try:
        gguf = tuned_gguf(run, recipe, dtype)
        return llama_engine(gguf, read_config(folder), dtype == "f32", rebuild_hint(run, gguf, dtype))
    except ModelError as error:
        cause = f"{error.headline} {error.cause}".strip()
        if choice == "llama.cpp":
            hint = "leave --engine out, and transformers serves it"
            raise ModelError("llama.cpp cannot serve this model", cause, hint) from error
        console.line(f"transformers serves: llama.cpp cannot ({cause})", "dim")
        return transformers_engine(recipe, adapter)


def tuned_gguf(run: RunFolder, recipe: Recipe, dtype: str) -> Path:
    """Return the tuned model's GGUF file; an older one is reused if adapter, base and type are the same.

    Args:
        run: a run folder with an adapter.
        recipe: the run's.
        dtype: of the matrices: "q8_0", "f16" or "f32".

    Raises:
        ModelError: a family that llama.cpp does not support.
        ExportError: the run's export of this type is damaged.
        DiskFullError: no space; an older file is kept.
    """
    request = ExportRequest(run.file(RunFile.ADAPTER), recipe, dtype=dtype)
    folder = run.file(RunFile.SERVING) / dtype
    if file := finished_gguf(run.file(RunFile.EXPORTS) / f"gguf-{dtype}", folder, request):
        return file
    with run.lock():
        return write_gguf(folder, request)


def rebuild_hint(run: RunFolder, gguf: Path, dtype: str) -> str:
    """Return the command that replaces a GGUF file that does not load."""
    if (gguf.parent / RECEIPT).is_file():
        return f"export it again: {command('export', run.path, '--to', 'gguf', '--dtype', dtype)}"
    return f"delete it and start again: {shell('rm', '-r', gguf.parent)}"
