"""A stage's teacher: answers from the journal where it can, else calls, concurrently, and counts both."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit, urlunsplit

from tunewright import console
from tunewright.errors import RecipeError, TeacherError
from tunewright.models import embedded
from tunewright.rundir import RunFolder
from tunewright.settings import EMBEDDED, TeacherSettings
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
    key = os.environ[name].strip() if name else ""
    if not (key.isascii() and key.isprintable()):
        raise RecipeError(
            f"the key in {name} holds characters that no HTTP header may carry",
            "a line end in its middle, or a letter that is not ASCII",
            f"look at where it comes from, then: export {name}=...",
        )
    return key


def _check(settings: TeacherSettings) -> None:
    if settings.url == EMBEDDED:
        return
    try:
        parts = urlsplit(settings.url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        usable = False
    if not usable:
        raise RecipeError(
            f"teacher.url {settings.url!r} is not a URL",
            "it is not http:// or https:// and a host",
            f'for example http://localhost:8000/v1, or "{EMBEDDED}"',
        )
    if not settings.model:
        raise RecipeError(
            "teacher.model is empty", f"{settings.url} needs a name", f"see what it serves: curl {settings.url}/models"
        )
    _api_key(settings)


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
        self._lock = threading.Lock()
        self._ended = False  # no more calls
        self._closed = False  # no more writing

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
        """Make the calls on daemon threads, so that neither Ctrl-C nor a fatal error waits for a slow answer."""
        if self._client is None:
            self._client = self._connect()
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
            start = time.monotonic()
            try:
                try:
                    self._keep(key, client.complete(request), time.monotonic() - start)
                except UnusableReplyError as error:
                    self._count_failure(str(error))
                done.put(None)
            except BaseException as error:  # carried to the thread that waits, which raises it
                self._ended = True
                done.put(error)

    def _keep(self, key: str, reply: Reply, seconds: float) -> None:
        """Journal a reply and count it; a stage that has ended writes no more."""
        with self._lock:
            if self._closed:
                return
            self._journal.put(key, self._stage, self._model, reply, seconds)
            self.num_calls += 1
            self.num_prompt_tokens += reply.num_prompt_tokens
            self.num_tokens += reply.num_tokens

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
        """Start no more calls; give those under way a moment to be journalled, for they are paid for."""
        self._ended = True
        deadline = time.monotonic() + _GRACE_S
        for worker in workers:
            worker.join(max(0.0, deadline - time.monotonic()))

    def close(self) -> None:
        """Write nothing more."""
        with self._lock:
            self._ended = self._closed = True


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

        concurrency = 1 if local else settings.concurrency
        teacher = Teacher(CallJournal(run), teacher_identity(settings), name, concurrency, connect)
        stack.callback(teacher.close)
        yield teacher
