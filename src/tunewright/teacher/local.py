"""The local teacher: vLLM where it is installed, else a model in this process that batches calls continuously."""

from __future__ import annotations

import gc
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from tunewright import console
from tunewright.errors import ModelError, StageError, TeacherError, TunewrightError, cause_of, is_lack_of_memory
from tunewright.models.continuous_batching import GenerationRow, RollingBatch
from tunewright.settings import TeacherSettings
from tunewright.teacher.client import ChatClient
from tunewright.teacher.protocol import REASONING_TOKENS, Client, Dialect, Reply, Request, UnusableReplyError
from tunewright.text.reasoning import answer_after_reasoning


def open_local(
    settings: TeacherSettings, stack: ExitStack, show: Callable[[str], None], dialects: Mapping[str, Dialect]
) -> Client:
    """Open the recipe's local model: in a server of vLLM where that is installed and starts, else in this process.

    Raises:
        ModelError: the model is missing, gated, damaged or of an unsupported family.
    """
    from tunewright.models.vllm_server import vllm_missing

    if vllm_missing() or settings.quantization == "int8":  # vLLM has no LLM.int8
        return _in_process(settings, stack)
    try:
        return _in_vllm(settings, stack, show, dialects)
    except StageError as error:
        console.warning(f"{error.headline} ({error.cause}): the teacher is computed by transformers, which is slower")
        return _in_process(settings, stack)


def _in_process(settings: TeacherSettings, stack: ExitStack) -> LocalClient:
    client = LocalClient.load(settings)
    stack.callback(client.close)
    return client


def _in_vllm(
    settings: TeacherSettings, stack: ExitStack, show: Callable[[str], None], dialects: Mapping[str, Dialect]
) -> ChatClient:
    """Return a client of the model in a server of vLLM, which ends with the stage: its memory is free for training."""
    from tunewright.models.chat_template import TEMPLATE_VARIABLES
    from tunewright.models.source import locate
    from tunewright.models.vllm_server import base_arguments, vllm_server

    arguments = base_arguments(locate(settings.model, trained=True), settings.model, settings.quantization)
    address, key = stack.enter_context(vllm_server(arguments, "uninstall vLLM, or name a server in teacher.url"))
    console.line(f"  the teacher {settings.model} answers through vLLM")
    client = ChatClient(
        (f"{address}/v1",),
        settings.model,
        settings.timeout_s,
        key,
        # As the model in this process is asked: without reasoning first, and a raw text without any token before it.
        {"chat_template_kwargs": TEMPLATE_VARIABLES, "add_special_tokens": False},
        connections=settings.concurrency,
        patience_s=settings.patience_s,
        show=show,
        dialects=dialects,
    )
    stack.callback(client.close)
    return client


@dataclass
class _Call:
    """A request in progress; the calling thread waits for ``ended``."""

    request: Request
    started: float = 0.0
    reply: Reply | None = None
    error: Exception | None = None
    ended: threading.Event = field(default_factory=threading.Event)

    def end(self, reply: Reply | None, error: Exception | None = None) -> None:
        self.reply, self.error = reply, error
        self.ended.set()


class LocalClient:
    """Completes requests with a model in memory. A raw text is completed as it is, without any token before it.

    A request's JSON schema is not enforced here: the prompt has to ask for the form, and the stage checks the reply.

    Args:
        model: a causal language model in evaluation mode.
        tokenizer: the model's tokenizer, with a chat template.
        end_ids: tokens that end an answer.
        most_rows: prompts answered at once; halved when memory runs out.

    Attributes:
        room: tokens for reasoning beyond a request's own, once an answer has begun with reasoning.
        dialects: empty; there is no server.
    """

    def __init__(self, model: Any, tokenizer: Any, end_ids: list[int], most_rows: int) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._context = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 1 << 30
        self._batch = RollingBatch(model, tokenizer, end_ids)
        self._most_rows = most_rows
        self.room = 0
        self.dialects: dict[str, Dialect] = {}
        self._under_way: dict[int, _Call] = {}  # by id() of its row
        self._waiting: deque[_Call] = deque()
        self._stopped = False
        self._turn = threading.Condition()  # guards the three above
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @classmethod
    def load(cls, settings: TeacherSettings) -> LocalClient:
        """Load the recipe's model onto this machine's GPU, else onto the CPU.

        Raises:
            ModelError: it is missing, gated, damaged or of an unsupported family.
        """
        from tunewright.models.chat_template import end_ids, load_tokenizer
        from tunewright.models.loading import for_inference, load_base, pick_device
        from tunewright.models.source import locate

        console.line(f"  loading the teacher {settings.model}")
        folder = locate(settings.model)
        tokenizer = load_tokenizer(folder)
        model = for_inference(load_base(folder, settings.quantization, pick_device()))
        return cls(model, tokenizer, end_ids(tokenizer, model), settings.concurrency)

    def complete(self, request: Request) -> Reply:
        """Return the reply when the request's row in the batch is finished.

        Raises:
            UnusableReplyError: the prompt does not fit the context or the chat template, or the stage stops.
            TeacherError: the model fails.
        """
        call = _Call(request)
        with self._turn:
            if self._stopped:
                raise UnusableReplyError("stopped")
            self._waiting.append(call)
            self._turn.notify()
        call.ended.wait()
        if call.reply is None:
            raise call.error or UnusableReplyError("stopped")
        return call.reply

    def stop(self) -> None:
        """Answer nothing more; waiting calls raise."""
        with self._turn:
            self._stopped = True
            self._turn.notify()

    def close(self) -> None:
        """Stop, and free the model's memory."""
        self.stop()
        self._thread.join()
        self._batch.clear()
        del self._model, self._batch
        gc.collect()
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _serve(self) -> None:
        """Step the batch until stopped; an error ends all calls."""
        import torch

        error: Exception = UnusableReplyError("stopped")
        try:
            with torch.inference_mode():
                while self._wait_for_calls():
                    try:
                        self._step()
                    except Exception as lack:
                        if not is_lack_of_memory(lack):
                            raise
                        self._halve(lack)
        except TunewrightError as failure:
            error = failure
        except Exception as failure:
            error = TeacherError(
                f"the local teacher failed: {type(failure).__name__}",
                str(failure)[:300],
                "all answers so far are kept; check the model with: tunewright doctor",
            )
        with self._turn:
            self._stopped = True
            left = [*self._under_way.values(), *self._waiting]
            self._waiting.clear()
        for call in left:
            call.end(None, error)

    def _wait_for_calls(self) -> bool:
        """Wait for a call; return False when the stage stops."""
        with self._turn:
            while not (self._stopped or self._waiting or self._under_way):
                self._turn.wait()
            return not self._stopped

    def _step(self) -> None:
        """Add waiting prompts while there is room, write a token in every row, and return the finished replies."""
        rows = []
        with self._turn:
            room = self._most_rows - len(self._under_way)
            calls = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
        for call in calls:
            try:
                row = self._row(call.request)
            except UnusableReplyError as error:
                call.end(None, error)
                continue
            call.started = time.monotonic()
            self._under_way[id(row)] = call
            rows.append(row)
        if rows:
            self._batch.join(rows)
        for row in self._batch.step() if self._batch.rows else ():
            call = self._under_way.pop(id(row))
            seconds = time.monotonic() - call.started
            text, reasons = (row.text, False) if call.request.raw else answer_after_reasoning(row.text)
            if reasons:
                self.room = REASONING_TOKENS
            finish = row.finish or "other"
            call.end(Reply(text, finish, len(row.prompt_ids), row.num_tokens, seconds, reasons))

    def _row(self, request: Request) -> GenerationRow:
        from tunewright.models.chat_template import encode_prompt

        try:
            if request.raw:
                ids = list(self._tokenizer(request.raw, add_special_tokens=False)["input_ids"])
            else:
                ids = encode_prompt(self._tokenizer, request.messages)
        except ModelError as error:
            raise UnusableReplyError(f"the model's chat template refuses the prompt: {error.cause}") from error
        room = self._context - len(ids)
        if not ids or room < 1:
            raise UnusableReplyError(f"a prompt of {len(ids)} tokens does not fit a context of {self._context}")
        most = min(request.max_tokens + request.room, room)
        return GenerationRow(ids, most, request.temperature, request.seed, request.stop)

    def _halve(self, lack: Exception) -> None:
        """Restart the rows under way with half as many at once; the answers stay the same."""
        import torch

        if len(self._under_way) <= 1:
            raise TeacherError(
                "the local teacher does not fit into memory",
                cause_of(lack),
                "quantize it (--set teacher.quantization=nf4), or take a smaller model",
            ) from lack
        self._most_rows = len(self._under_way) // 2
        with self._turn:
            self._waiting.extendleft(reversed(self._under_way.values()))
        self._under_way.clear()
        self._batch.clear()
        torch.cuda.empty_cache()
