"""A stage's teacher: replies from the journal, else concurrent calls; both are counted."""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from tunewright import console
from tunewright.errors import ModelError, TeacherError
from tunewright.models import llama_cpp, source
from tunewright.run_folder import Journal
from tunewright.settings import EMBEDDED, LOCAL, TeacherSettings
from tunewright.teacher.client import ChatClient
from tunewright.teacher.identity import check_teacher, earlier_identities, read_api_key, teacher_identity
from tunewright.teacher.journal import CallJournal, Spending, budget_section
from tunewright.teacher.protocol import Client, Dialect, MoreRoomError, Reply, Request, UnusableReplyError

_CONTEXT_TOKENS = 4096


@contextmanager
def serve_embedded(gguf: Path) -> Iterator[str]:
    """Start the embedded teacher on a free local port; yield its address (http://host:port).

    It has one slot, so that an answer depends on its request alone.

    Raises:
        TeacherError: it does not start; the cause is the end of llama.cpp's output.
    """
    with ExitStack() as stack:
        try:
            address = stack.enter_context(llama_cpp.serve(gguf, _CONTEXT_TOKENS))
        except ModelError as error:
            raise TeacherError(
                "the embedded teacher does not start",
                error.cause,
                "check it with: tunewright doctor; or name another teacher: --set teacher.url=http://HOST:PORT/v1",
            ) from error
        yield address


_LEAST_FAILURES = 5  # before a majority of failed calls stops a stage
_GRACE_S = 2.0  # wait for the calls under way when a stage stops


class Teacher:
    """Answers batches of requests; starts and connects nothing before the first call that it must make.

    Attributes:
        num_calls: calls with a reply.
        num_from_journal: requests answered from the journal.
        num_failed: calls without a usable reply, retries included.
        num_prompt_tokens: prompt tokens of the calls.
        num_tokens: tokens written by the calls.
        cost: US dollars of the calls.
        seconds: sum of the calls' durations, which overlap.
        failures: number of failed calls by cause.
        num_unmeasured: calls for which the server reports no tokens that can be true; they count at the highest cost.
    """

    def __init__(
        self,
        journal: CallJournal,
        models: Sequence[str],
        stage: str,
        concurrency: int,
        spending: Spending,
        connect: Callable[[Callable[[str], None]], Client],
    ) -> None:
        self._journal = journal
        self._models = models  # the teacher's identity, then the others under which it may have answered
        self._stage = stage
        self._concurrency = concurrency
        self._spending = spending
        self._connect = connect
        self._client: Client | None = None
        self._bar: console.ProgressBar | None = None
        self.num_calls = self.num_from_journal = self.num_failed = 0
        self.num_prompt_tokens = self.num_tokens = self.num_unmeasured = 0
        self._hints: dict[str, str] = {}
        self.cost = self.seconds = 0.0
        self.failures: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._ended = False  # no more calls

    def ask_all(self, requests: Sequence[Request], label: str) -> list[Reply | None]:
        """Return the replies in the order of the requests; None where a call failed (counted).

        Raises:
            TeacherError: the teacher cannot be used, or most calls fail; the replies so far are journaled.
            UserError: the recipe's key, URL or model is wrong.
        """
        keys = [request.key(self._models[0]) for request in requests]
        journaled = [self._journaled(key, request) for key, request in zip(keys, requests, strict=True)]
        missing = {key: r for key, r, old in zip(keys, requests, journaled, strict=True) if old is None}
        self.num_from_journal += len(requests) - len(missing)
        if missing:
            with console.progress(label, len(requests)) as self._bar:
                self._bar.advance(len(requests) - len(missing))
                self._call(missing, self._bar)
        return [old or self._journal.get(key) for key, old in zip(keys, journaled, strict=True)]

    def _journaled(self, key: str, request: Request) -> Reply | None:
        """Return the journaled reply under the teacher's identity, else under one of its others."""
        reply = self._journal.get(key)
        others = (name for name in self._models[1:] if reply is None and name in self._journal.models)
        return reply or next(filter(None, (self._journal.get(request.key(name)) for name in others)), None)

    def _show(self, text: str) -> None:
        """Display beside the progress bar why the client waits."""
        if self._bar is not None:
            self._bar.note(text)

    def _call(self, missing: dict[str, Request], bar: console.ProgressBar) -> None:
        """Make the calls on daemon threads, so that neither Ctrl-C nor a fatal error waits for a slow reply."""
        if self._client is None:
            self._client = self._connect(self._show)
        todo, done = queue.SimpleQueue[tuple[str, Request]](), queue.SimpleQueue[BaseException | None]()
        for item in missing.items():
            todo.put(item)
        workers = [
            threading.Thread(target=self._work, args=(self._client, todo, done), daemon=True)
            for _ in range(min(self._concurrency, len(missing)))
        ]
        for worker in workers:
            worker.start()
        try:
            for _ in missing:
                error = done.get()
                if error is not None:
                    raise error
                bar.advance(1, f"{self.num_failed} failed" if self.num_failed else "")
        except BaseException:
            self._client.stop()
            self._end(workers)
            raise
        if self.num_failed and not self.num_calls + self.num_from_journal:
            raise self._most_fail()

    def _work(
        self,
        client: Client,
        todo: queue.SimpleQueue[tuple[str, Request]],
        done: queue.SimpleQueue[BaseException | None],
    ) -> None:
        """Answer requests until none is left or the stage stops; each reply is on disk before the next call."""
        while not self._ended:
            try:
                key, request = todo.get_nowait()
            except queue.Empty:
                return
            try:
                try:
                    self._answer(client, key, request)
                except UnusableReplyError as error:
                    self._count_failure(str(error), error.hint)
                done.put(None)
            except BaseException as error:  # raised by the thread that waits for the batch
                self._ended = True
                done.put(error)

    def _answer(self, client: Client, key: str, request: Request) -> None:
        """Make a call, journal its reply and count it; after the stage has ended, write nothing.

        Where the reasoning took the tokens of the answer, the call is repeated once with more room.
        """
        reply, paid, room = self._paid_call(client, request)
        if reply.reasons and reply.finish == "length" and client.room > room:
            again, more, _ = self._paid_call(client, request)
            tokens = (reply.num_prompt_tokens + again.num_prompt_tokens, reply.num_tokens + again.num_tokens)
            reply, paid = replace(again, num_prompt_tokens=tokens[0], num_tokens=tokens[1]), paid + more
        if reply.reasons and not reply.text.strip():
            raise UnusableReplyError(
                f"the reply ends in its reasoning, after {reply.num_tokens:,} tokens, without an answer",
                "let it answer at once: --set teacher.reasoning=false; or take a teacher that does not reason",
            )
        if not self._journal.put(key, self._stage, self._models[0], reply, paid, client.dialects):
            return
        with self._lock:
            self.num_calls += 1
            self.num_prompt_tokens += reply.num_prompt_tokens
            self.num_tokens += reply.num_tokens
            self.num_unmeasured += not reply.num_tokens
            self.cost += paid
            self.seconds += reply.seconds

    def _paid_call(self, client: Client, request: Request) -> tuple[Reply, float, int]:
        """Make a call within the budget; return its reply, its cost in US dollars, and its room for reasoning."""
        while True:
            sent = replace(request, room=client.room)
            # A failed call, or one without token counts, may have been billed: both count as the worst case.
            reserved = paid = self._spending.reserve(sent)
            try:
                reply = client.complete(sent)
                if reply.num_prompt_tokens or reply.num_tokens:
                    paid = self._spending.cost(reply.num_prompt_tokens, reply.num_tokens)
                return reply, paid, sent.room
            except MoreRoomError:
                paid = 0.0
            finally:
                self._spending.settle(reserved, paid)

    def notes(self) -> dict[str, float | int | str]:
        """Return figures for a stage's summary that are rarely there: how servers are asked, and why calls failed."""
        notes: dict[str, float | int | str] = {}
        dialects = self._client.dialects if self._client else {}
        ways = dict.fromkeys(dialect.in_words for dialect in dialects.values())
        if ways:
            notes["teacher_is_asked"] = "; or ".join(ways)
        if self.num_unmeasured:
            notes["calls_without_token_counts"] = self.num_unmeasured
        if self.failures:
            cause, count = self.failures.most_common(1)[0]
            notes["most_frequent_failure"] = f"({count}) {cause}"
        return notes

    def _count_failure(self, cause: str, hint: str = "") -> None:
        """Count a failed call; raise when five or more failed, and more than succeeded."""
        with self._lock:
            if self._ended:
                return
            self.num_failed += 1
            self.failures[cause] += 1
            self._hints[cause] = hint
            if self.num_failed >= _LEAST_FAILURES and self.num_failed > self.num_calls + self.num_from_journal:
                raise self._most_fail()

    def _most_fail(self) -> TeacherError:
        cause, count = self.failures.most_common(1)[0]
        return TeacherError(
            f"{self.num_failed} of {self.num_failed + self.num_calls} calls to the teacher failed",
            f"most often ({count}): {cause}",
            self._hints[cause] or "check the server, then run the same command again: all answers so far are kept",
        )

    def _end(self, workers: Sequence[threading.Thread]) -> None:
        """Start no more calls; wait a moment for those under way, so that paid replies are journaled."""
        self._ended = True
        deadline = time.monotonic() + _GRACE_S
        for worker in workers:
            worker.join(max(0.0, deadline - time.monotonic()))

    def close(self) -> None:
        """Write nothing more."""
        self._ended = True
        self._journal.close()


@contextmanager
def open_teacher(journal: Journal, settings: TeacherSettings, stage: str) -> Iterator[Teacher]:
    """Open the recipe's teacher for a stage.

    Args:
        journal: the run's replies so far (``RunFile.TEACHER_JOURNAL``), which also hold what was spent.
        settings: the recipe's [teacher], or its [judge] as one.
        stage: the stage's name in the journal; it decides which budget pays (:func:`budget_section`).

    Raises:
        RecipeError: the URL, the model or the key's variable is missing or wrong, or the key may not go there.
    """
    check_teacher(settings, budget_section(stage))
    models = (teacher_identity(settings), *earlier_identities(settings))
    calls = CallJournal(journal)
    spending = Spending(settings, budget_section(stage))
    spending.spent = calls.spent(spending.section, frozenset(models), spending.cost)
    concurrency = 1 if settings.url == EMBEDDED else settings.concurrency
    with ExitStack() as stack:

        def connect(show: Callable[[str], None]) -> Client:
            return _connect(settings, stack, show, calls.dialects)

        teacher = Teacher(calls, models, stage, concurrency, spending, connect)
        stack.callback(teacher.close)
        yield teacher


def _connect(
    settings: TeacherSettings, stack: ExitStack, show: Callable[[str], None], dialects: Mapping[str, Dialect]
) -> Client:
    """Start or connect the teacher that the settings name; the stack closes it."""
    if settings.url == LOCAL:
        from tunewright.teacher.local import open_local

        return open_local(settings, stack, show, dialects)
    urls, key, extra, threads = settings.urls, "", {}, settings.concurrency
    if settings.url == EMBEDDED:
        urls, threads = (stack.enter_context(serve_embedded(source.gguf_path())) + "/v1",), 1
        extra = {"cache_prompt": False}  # else an answer depends on earlier calls
    else:
        key = read_api_key(settings)
    client = ChatClient(
        urls,
        settings.model,
        settings.timeout_s,
        key,
        extra,
        connections=threads,
        patience_s=settings.patience_s,
        show=show,
        dialects=dialects,
        reasoning=settings.reasoning,
    )
    stack.callback(client.close)
    return client
