"""Serving a run's tuned model: the engine, the canary, and only then the port."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from types import FrameType
from typing import Any

from tunewright import console
from tunewright.errors import ModelError, StageError, UserError
from tunewright.models.chat_template import encode_prompt, end_ids
from tunewright.models.loading import is_full
from tunewright.models.source import locate, read_config
from tunewright.models.student import student_tokenizer
from tunewright.pipeline import require
from tunewright.recipe import Recipe, load_recipe
from tunewright.run_folder import RunFile, RunFolder
from tunewright.serving import vllm
from tunewright.serving.canary import Canary, canaries, judge
from tunewright.serving.engine import Engine, Piece
from tunewright.serving.listen import TOKEN, open_door, take_port, token_for, url_of
from tunewright.serving.llama_cpp import llama_engine, renewal, tuned_gguf
from tunewright.serving.requests import ChatRequest, RequestError
from tunewright.serving.transformers import examined_engine

_GRACE_S = 3  # for answers under way when the server is stopped


@dataclass(frozen=True)
class Student:
    """What turns a chat into the tokens that training would have made of it."""

    tokenizer: Any
    system_prompt: str

    def prompt_ids(self, request: ChatRequest) -> list[int]:
        """Return the prompt's tokens.

        Raises:
            RequestError: the model's template refuses the turns.
        """
        from jinja2.exceptions import TemplateError

        try:
            return encode_prompt(self.tokenizer, request.conversation(self.system_prompt))
        except TemplateError as error:
            raise RequestError(400, "invalid_request", f"the model's template refuses the turns: {error}") from error

    @cached_property
    def strips_first_space(self) -> bool:
        """Whether its decoder drops the space before a text, as SentencePiece's does."""
        pieces = self.tokenizer.get_vocab()
        worded = next(
            (number for piece, number in pieces.items() if piece[:1] == "\u2581" and piece[1:].isalpha()), None
        )
        return worded is not None and not self.tokenizer.decode([worded]).startswith(" ")


def serve(run: RunFolder, host: str, port: int, engine: str, dtype: str) -> None:
    """Serve the tuned model until it is stopped; the address goes to stdout once a canary has proven the model.

    Args:
        run: a run folder whose exam was sat.
        host: the address to listen on; other than the loopback it needs a token in the environment.
        port: 0 takes a free one.
        engine: "vllm", "llama.cpp", "transformers", or "auto": the first of them that can serve this run.
        dtype: of the GGUF, where llama.cpp serves it.

    Raises:
        UserError: no token, a port in use, nothing that tells tuned from base.
        StageError: the engine does not start, or does not answer as the tuned model did.
    """
    token = token_for(host)
    require(run, RunFile.RECIPE, RunFile.ADAPTER)
    recipe = load_recipe(run.file(RunFile.RECIPE))
    with _terminable(), take_port(host, port) as door:
        student = Student(student_tokenizer(recipe), recipe.system_prompt)
        asked = canaries(run, recipe, student.tokenizer)
        with start_engine(run, recipe, engine, dtype, student) as started:
            again = "was the adapter changed after the exam? then run the recipe on this folder again"
            exact = "" if started.name == "transformers" else "--engine transformers rounds nothing; "
            console.line(judge(asked, _served(started, asked, recipe, student), exact + again))
            open_door(door)
            console.line(f"serving {run.path} with {started.name}; Ctrl-C stops it", "bold")
            console.line(
                f"model: tuned; system prompt where a chat has none: {recipe.system_prompt or '(none)'}", "dim"
            )
            console.line(f"requests need the token of {TOKEN}" if token else "open to this machine only", "dim")
            console.data(url_of(door))
            _listen(started, student, token, host, door)
    console.line("stopped")


@contextmanager
def _terminable() -> Iterator[None]:
    """Within the block, a SIGTERM ends as Ctrl-C does, so that children are ended too."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def start_engine(
    run: RunFolder, recipe: Recipe, wanted: str, dtype: str, student: Student
) -> AbstractContextManager[Engine]:
    """Start what is wanted; of "auto" vLLM where it serves this run, else llama.cpp, else the examined model itself.

    Raises:
        UserError: vLLM is wanted and cannot serve this run.
        ModelError: llama.cpp is wanted and does not know the model.
    """
    lacking = vllm.why_not(recipe) if wanted in ("auto", "vllm") else ""
    if wanted in ("auto", "vllm") and not lacking:
        return vllm.vllm_engine(recipe, run.file(RunFile.ADAPTER), end_ids(student.tokenizer, None))
    if wanted == "vllm":
        raise UserError("vLLM cannot serve this run", lacking, "leave --engine out, and another engine serves it")
    if wanted == "transformers":
        return examined_engine(recipe, run.file(RunFile.ADAPTER))
    console.line(f"llama.cpp serves{f': {lacking}' if lacking else ''}", "dim")
    folder = (
        run.file(RunFile.ADAPTER) if is_full(run.file(RunFile.ADAPTER)) else locate(recipe.model.base, recipe.folder)
    )
    try:
        gguf = tuned_gguf(run, recipe, dtype)
        return llama_engine(gguf, read_config(folder), dtype == "f32", renewal(run, gguf, dtype))
    except ModelError as error:
        cause = f"{error.headline} {error.cause}".strip()
        if wanted == "llama.cpp":
            hint = "leave --engine out, and transformers serves it"
            raise ModelError("llama.cpp cannot serve this model", cause, hint) from error
        console.line(f"transformers serves: llama.cpp cannot ({cause})", "dim")
        return examined_engine(recipe, run.file(RunFile.ADAPTER))


def _answer(engine: Engine, student: Student, prompt_ids: list[int], request: ChatRequest) -> Iterator[Piece]:
    """Yield an answer as ``chat`` would print it."""
    pieces = engine.answer(prompt_ids, request)
    first = next(pieces)
    if engine.keeps_first_space and first.text.startswith(" ") and student.strips_first_space:
        first = Piece(first.text[1:], first.finish, first.num_tokens)
    yield first
    yield from pieces


def _served(engine: Engine, asked: list[Canary], recipe: Recipe, student: Student) -> Iterator[str]:
    """Yield what the engine answers to the canaries."""
    limit = recipe.evaluation.max_new_tokens
    request = ChatRequest.model_validate({"messages": [{"role": "user", "content": ""}], "max_tokens": limit})
    for canary in asked:
        try:
            yield "".join(piece.text for piece in _answer(engine, student, canary.prompt_ids, request)).strip()
        except RequestError as error:
            raise StageError(f"{engine.name} does not answer", error.message, "try: tunewright doctor") from error


def _listen(engine: Engine, student: Student, token: str, host: str, door: Any) -> None:
    """Answer requests until a signal."""
    import uvicorn

    from tunewright.serving.app import application

    def answer(request: ChatRequest) -> tuple[int, Iterator[Piece]]:
        prompt_ids = student.prompt_ids(request)
        return len(prompt_ids), _answer(engine, student, prompt_ids, request)

    config = uvicorn.Config(
        application(engine, answer, token, host),
        log_level="critical",  # the application tells its own defects; answers cut by the end of the server are none
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    try:
        uvicorn.Server(config).run(sockets=[door])
    except KeyboardInterrupt:  # uvicorn has shut down by now, and hands the signal on
        console.line()
