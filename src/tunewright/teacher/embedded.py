"""The embedded teacher: the model that comes with tunewright, in llama.cpp's server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tunewright.errors import ModelError, TeacherError
from tunewright.models import llama

_CONTEXT_TOKENS = 4096


@contextmanager
def serve(gguf: Path) -> Iterator[str]:
    """Start the teacher on a free port of the loopback; yield its address (http://host:port).

    One slot, so that an answer depends on its request alone.

    Raises:
        TeacherError: it does not start; llama.cpp's last words are the cause.
    """
    with ExitStack() as stack:
        try:
            address = stack.enter_context(llama.serve(gguf, _CONTEXT_TOKENS))
        except ModelError as error:
            raise TeacherError(
                "the embedded teacher does not start",
                error.cause,
                "check it with: tunewright doctor; or name another teacher: --set teacher.url=http://HOST:PORT/v1",
            ) from error
        yield address
