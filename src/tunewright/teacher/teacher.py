"""A stage's teacher: answers from the journal where it can, else calls, concurrently, and counts both."""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tunewright import console
from tunewright.errors import ModelError, TeacherError
from tunewright.models import llama_cpp, source
from tunewright.run_folder import RunFolder
from tunewright.settings import EMBEDDED, LOCAL, TeacherSettings
from tunewright.teacher.client import ChatClient
from tunewright.teacher.identity import check_teacher, earlier_identities, read_api_key, teacher_identity
from tunewright.teacher.journal import CallJournal, Spending, purse_of
from tunewright.teacher.protocol import Client, Reply, Request, UnusableReplyError

_CONTEXT_TOKENS = 4096


@contextmanager
def serve_embedded(gguf: Path) -> Iterator[str]:
    """Start the teacher on a free port of the loopback; yield its address (http://host:port).

    One slot, so that an answer depends on its request alone.

    Raises:
        TeacherError: it does not start; llama.cpp's last words are the cause.
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


_LEAST_FAILURES = 5  # before "most calls fail" can stop a stage
_GRACE_S = 2.0  # for calls under way when a stage stops


class Teacher:
    """Answers batches of requests; nothing is started or connected before the first call that must be made.

    Attributes:
        num_calls: calls made that brought a reply.
        num_from_journal: requests answered without a call.
        num_failed: calls given up.
        num_prompt_tokens: of the calls made.
        num_tokens: written by the calls made.
        cost: US dollars, of the calls made.
        seconds: sum of the time that the calls made took; they overlap.
        failures: how often each cause made a call fail.
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
        self._models = models  # the teacher's name, and those under which it may have answered before
        self._stage = stage
        self._concurrency = concurrency
        self._spending = spending
        self._connect = connect
        self._client: Client | None = None
        self._bar: console.ProgressBar | None = None
        self.num_calls = self.num_from_journal = self.num_failed = 0
        self.num_prompt_tokens = self.num_tokens = 0
        self.cost = self.seconds = 0.0
        self.failures: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._ended = False  # no more calls

    def ask_all(self, requests: Sequence[Request], label: str) -> list[Reply | None]:
        """Return the replies in the order of the requests; None where a call failed (counted).

        Raises:
            TeacherError: the teacher cannot be used, or most calls fail; what was answered is journaled.
            UserError: the recipe's key, URL or model is wrong.
        """
        keys = [request.key(self._models[0]) for request in requests]
        known = [self._known(key, request) for key, request in zip(keys, requests, strict=True)]
        missing = {key: r for key, r, old in zip(keys, requests, known, strict=True) if old is None}
        self.num_from_journal += len(requests) - len(missing)
        if missing:
            with console.progress(label, len(requests)) as self._bar:
                self._bar.advance(len(requests) - len(missing))
                self._call(missing, self._bar)
        return [old or self._journal.get(key) for key, old in zip(keys, known, strict=True)]

    def _known(self, key: str, request: Request) -> Reply | None:
        """Return the journaled reply, be it under one of the teacher's other names."""
        found = self._journal.get(key)
        others = (name for name in self._models[1:] if found is None and name in self._journal.models)
        return found or next(filter(None, (self._journal.get(request.key(name)) for name in others)), None)

    def _tell(self, text: str) -> None:
        """Show beside the progress bar what the client waits for."""
        if self._bar is not None:
            self._bar.note(text)

    def _call(self, missing: dict[str, Request], bar: console.ProgressBar) -> None:
        """Make the calls on daemon threads, so that neither Ctrl-C nor a fatal error waits for a slow answer."""
        if self._client is None:
            self._client = self._connect(self._tell)
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
            self._wait_a_moment(workers)
            raise
        if self.num_failed and not self.num_calls + self.num_from_journal:
            raise self._most_fail()

    def _work(
        self,
        client: Client,
        todo: queue.SimpleQueue[tuple[str, Request]],
        done: queue.SimpleQueue[BaseException | None],
    ) -> None:
        """Answer requests until none are left or the stage stops; each reply is on disk before the next call."""
        while not self._ended:
            try:
                key, request = todo.get_nowait()
            except queue.Empty:
                return
            try:
                try:
                    self._answer(client, key, request)
                except UnusableReplyError as error:
                    self._count_failure(str(error))
                done.put(None)
            except BaseException as error:  # carried to the thread that waits, which raises it
                self._ended = True
                done.put(error)

    def _answer(self, client: Client, key: str, request: Request) -> None:
        """Make a call the budget has room for, journal its reply and count it; a stage that has ended writes none."""
        # A call that failed may have been answered, and billed; so may one whose reply does not tell its tokens.
        reserved = paid = self._spending.reserve(request)
        try:
            reply = client.complete(request)
            if reply.num_prompt_tokens or reply.num_tokens:
                paid = self._spending.cost(reply.num_prompt_tokens, reply.num_tokens)
        finally:
            self._spending.settle(reserved, paid)
        if not self._journal.put(key, self._stage, self._models[0], reply, paid):
            return
        with self._lock:
            self.num_calls += 1
            self.num_prompt_tokens += reply.num_prompt_tokens
            self.num_tokens += reply.num_tokens
            self.cost += paid
            self.seconds += reply.seconds

    def _count_failure(self, cause: str) -> None:
        """Count a call given up; stop when most fail: five or more, and more than succeed."""
        with self._lock:
            if self._ended:
                return
            self.num_failed += 1
            self.failures[cause] += 1
            if self.num_failed >= _LEAST_FAILURES and self.num_failed > self.num_calls + self.num_from_journal:
                raise self._most_fail()

    def _most_fail(self) -> TeacherError:
        cause, count = self.failures.most_common(1)[0]
        return TeacherError(
            f"{self.num_failed} of {self.num_failed + self.num_calls} calls to the teacher failed",
            f"most often ({count}): {cause}",
            "see that the server works, then run the same command again: every answer so far is kept",
        )

    def _wait_a_moment(self, workers: Sequence[threading.Thread]) -> None:
        """Start no more calls; give those under way a moment to be journaled, for they are paid for."""
        self._ended = True
        deadline = time.monotonic() + _GRACE_S
        for worker in workers:
            worker.join(max(0.0, deadline - time.monotonic()))

    def close(self) -> None:
        """Write nothing more."""
        self._ended = True
        self._journal.close()


@contextmanager
def open_teacher(run: RunFolder, settings: TeacherSettings, name: str) -> Iterator[Teacher]:
    """Open the recipe's teacher for a stage.

    Args:
        run: the run folder whose journal answers what was asked before.
        settings: the recipe's [teacher], or its [judge] as one.
        name: the stage, as the journal notes it.

    Raises:
        RecipeError: the URL, the model or the key's variable is missing or wrong.
    """
    check_teacher(settings)
    models = (teacher_identity(settings), *earlier_identities(settings))
    journal = CallJournal(run)
    spending = Spending(settings, purse_of(name))
    spending.spent = journal.spent(spending.purse, frozenset(models), spending.cost)
    concurrency = 1 if settings.url == EMBEDDED else settings.concurrency
    with ExitStack() as stack:

        def connect(tell: Callable[[str], None]) -> Client:
            return _connect(settings, stack, tell)

        teacher = Teacher(journal, models, name, concurrency, spending, connect)
        stack.callback(teacher.close)
        yield teacher


def _connect(settings: TeacherSettings, stack: ExitStack, tell: Callable[[str], None]) -> Client:
    """Start or connect what the settings name; the stack ends it."""
    if settings.url == LOCAL:
        from tunewright.teacher.local import LocalClient

        local = LocalClient.load(settings)
        stack.callback(local.close)
        return local
    urls, key, extra, threads = settings.urls, "", {}, settings.concurrency
    if settings.url == EMBEDDED:
        urls, threads = (stack.enter_context(serve_embedded(source.gguf_path())) + "/v1",), 1
        extra = {"cache_prompt": False}  # else an answer depends on the calls before it
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
        tell=tell,
    )
    stack.callback(client.close)
    return client
