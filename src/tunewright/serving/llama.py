"""The tuned model in llama.cpp: a GGUF behind its server."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tunewright.errors import ModelError, StageError
from tunewright.export.gguf_architectures import context_length
from tunewright.models import llama
from tunewright.serving.engine import Completions

_MOST_CONTEXT_TOKENS = 4096  # memory for all of them is taken at once
# llama.cpp's own defaults cut the tail of the distribution off; OpenAI's have no such thing.
_WHOLE_DISTRIBUTION = {"top_k": 0, "min_p": 0.0, "cache_prompt": False}


@contextmanager
def llama_engine(gguf: Path, config: Any, full_precision: bool, hint: str) -> Iterator[Completions]:
    """Serve a GGUF on a free port of the loopback while the block lasts.

    Requests are answered one after the other: an answer then depends on its request alone.

    Args:
        gguf: the tuned model.
        config: the model's config.json.
        full_precision: keep keys and values in fp32, as a GGUF in fp32 deserves.
        hint: what to type where the file does not load.

    Raises:
        StageError: llama.cpp does not load the file.
    """
    key = secrets.token_hex(16)
    with ExitStack() as stack:
        try:
            server = llama.serve(gguf, _MOST_CONTEXT_TOKENS, key=key, full_precision=full_precision)
            address = stack.enter_context(server)
        except ModelError as error:
            raise StageError(error.headline, error.cause, hint) from error
        context = min(context_length(config), _MOST_CONTEXT_TOKENS)
        yield Completions("llama.cpp", address, key, context, _WHOLE_DISTRIBUTION)
