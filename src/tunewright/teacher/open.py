"""A stage's teacher: answers from the journal where it can, else calls, concurrently, and counts both."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from tunewright import console
from tunewright.errors import RecipeError, TeacherError
from tunewright.models import embedded
from tunewright.recipe import EMBEDDED, TeacherSettings
from tunewright.rundir import RunFolder
from tunewright.teacher.calls import CallJournal
from tunewright.teacher.client import ChatClient
from tunewright.teacher.embedded import serve
from tunewright.teacher.protocol import Client, Reply, Request, UnusableReplyError

_LEAST_FAILURES = 5  # before "most calls fail" can stop a stage
_GRACE_S = 2.0  # for calls under way when a stage stops


def teacher_identity(settings: TeacherSettings) -> str:
    """Return what names the teacher, in fingerprints and request keys: no key, no password."""
    if settings.url == EMBEDDED:
        return embedded.IDENTITY
    parts = urlsplit(settings.url)
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    return f"{bare.rstrip('/')}|{settings.model}"


def _api_key(settings: TeacherSettings) -> str:
    name = settings.api_key_env
    if name and not os.environ.get(name):
        raise RecipeError(
            f"the environment variable {name} is not set",
            "teacher.api_key_env says that it holds the teacher's key",
            f"export {name}=...",
        )
    return os.environ[name] if name else ""


def _check(settings: TeacherSettings) -> None:
    if settings.url == EMBEDDED:
        return
    if urlsplit(settings.url).scheme not in ("http", "https") or not urlsplit(settings.url).hostname:
        raise RecipeError(
            f"teacher.url {settings.url!r} is not a URL",
            "it starts with neither http:// nor https://",
            f'for example http://localhost:8000/v1, or "{EMBEDDED}"',
        )
    if not settings.model:
        raise RecipeError(
            "teacher.model is empty", f"{settings.url} needs a name", f"see what it serves: curl {settings.url}/models"
        )
    _api_key(settings)


@dataclass(frozen=True)
class _Outcome:
    """What a worker brings back: a reply with its seconds, or what went wrong."""

    key: str
    reply: Reply | None = None
    seconds: float = 0.0
    error: BaseException | None = None


class Teacher:
    """Answers batches of requests; nothing is started or connected before the first call that must be made.

    Attributes:
        num_calls: calls made that brought a reply.
        num_from_journal: requests answered without a call.
        num_failed: calls given up.
        num_prompt_tokens: of the calls made.
        num_tokens: written by the calls made.
        failures: how often each cause made a call fail.
    """

    def __init__(
        self, journal: CallJournal, model: str, stage: str, concurrency: int, connect: Callable[[], Client]
    ) -> None:
        self._journal = journal
        self._model = model
        self._stage = stage
        self._concurrency = concurrency
        self._connect = connect
        self._client: Client | None = None
        self.num_calls = self.num_from_journal = self.num_failed = 0
        self.num_prompt_tokens = self.num_tokens = 0
        self.failures: Counter[str] = Counter()

    def ask_all(self, requests: Sequence[Request], label: str) -> list[Reply | None]:
        """Return the replies in the order of the requests; None where a call failed (counted).

        Raises:
            TeacherError: the teacher cannot be used, or most calls fail; what was answered is journalled.
            UserError: the recipe's key, URL or model is wrong.
        """
        keys = [request.key(self._model) for request in requests]
        missing = {key: r for key, r in zip(keys, requests, strict=True) if self._journal.get(key) is None}
        self.num_from_journal += len(requests) - len(missing)
        if missing:
            with console.progress(label, len(requests)) as bar:
                bar.advance(len(requests) - len(missing))
                self._call(missing, bar)
        return [self._journal.get(key) for key in keys]

    def _call(self, missing: dict[str, Request], bar: console.ProgressBar) -> None:
        """Make the calls on daemon threads; journal each reply here, in the one thread that writes."""
        if self._client is None:
            self._client = self._connect()
        client, todo, done = self._client, queue.SimpleQueue[tuple[str, Request]](), queue.SimpleQueue[_Outcome]()
        for item in missing.items():
            todo.put(item)
        workers = [
            threading.Thread(target=_work, args=(client, todo, done), daemon=True)
            for _ in range(min(self._concurrency, len(missing)))
        ]
        for worker in workers:
            worker.start()
        try:
            for _ in missing:
                self._take(done.get())
                bar.advance(1, f"{self.num_failed} failed" if self.num_failed else "")
        except BaseException:
            client.stop()
            self._rescue(workers, done)
            raise
        self._check_failures(final=True)

    def _take(self, outcome: _Outcome) -> None:
        """Journal a reply and count it; raise what must stop the stage."""
        if outcome.reply is not None:
            self._journal.put(outcome.key, self._stage, self._model, outcome.reply, outcome.seconds)
            self.num_calls += 1
            self.num_prompt_tokens += outcome.reply.num_prompt_tokens
            self.num_tokens += outcome.reply.num_tokens
        elif isinstance(outcome.error, UnusableReplyError):
            self.num_failed += 1
            self.failures[str(outcome.error)] += 1
            self._check_failures()
        elif outcome.error is not None:
            raise outcome.error

    def _check_failures(self, final: bool = False) -> None:
        """Stop when most calls fail: five or more and more than succeed, or all of them at the end."""
        most = self.num_failed >= _LEAST_FAILURES and self.num_failed > self.num_calls
        if not (most or (final and self.num_failed and not self.num_calls)):
            return
        cause, count = self.failures.most_common(1)[0]
        raise TeacherError(
            f"{self.num_failed} of {self.num_failed + self.num_calls} calls to the teacher failed",
            f"most often ({count}): {cause}",
            "see that the server works, then run the same command again: every answer so far is kept",
        )

    def _rescue(self, workers: Sequence[threading.Thread], done: queue.SimpleQueue[_Outcome]) -> None:
        """Give calls under way a moment, and journal those that come back: they are paid for."""
        deadline = time.monotonic() + _GRACE_S
        for worker in workers:
            worker.join(max(0.0, deadline - time.monotonic()))
        while not done.empty():
            outcome = done.get()
            if outcome.reply is not None:
                self._take(outcome)


def _work(client: Client, todo: queue.SimpleQueue[tuple[str, Request]], done: queue.SimpleQueue[_Outcome]) -> None:
    """Answer requests until none are left, or until an error that is not one request's own."""
    while True:
        try:
            key, request = todo.get_nowait()
        except queue.Empty:
            return
        start = time.monotonic()
        try:
            done.put(_Outcome(key, client.complete(request), time.monotonic() - start))
        except UnusableReplyError as error:
            done.put(_Outcome(key, error=error))
        except BaseException as error:  # noqa: BLE001 - carried to the thread that waits
            done.put(_Outcome(key, error=error))
            return


@contextmanager
def open_teacher(run: RunFolder, settings: TeacherSettings, name: str) -> Iterator[Teacher]:
    """Open the recipe's teacher for a stage.

    Args:
        run: the run folder whose journal answers what was asked before.
        settings: the recipe's [teacher].
        name: the stage, as the journal notes it.

    Raises:
        RecipeError: the URL, the model or the key's variable is missing or wrong.
    """
    _check(settings)
    local = settings.url == EMBEDDED
    with ExitStack() as stack:

        def connect() -> Client:
            url, extra = settings.url, {}
            if local:
                url = stack.enter_context(serve(embedded.gguf_path())) + "/v1"
                extra = {"cache_prompt": False}  # else an answer depends on the calls before it
            key = "" if local else _api_key(settings)
            threads = 1 if local else settings.concurrency
            client = ChatClient(url, settings.model, settings.timeout_s, key, extra, connections=threads)
            stack.callback(client.close)
            return client

        journal, identity = CallJournal(run), teacher_identity(settings)
        yield Teacher(journal, identity, name, 1 if local else settings.concurrency, connect)
