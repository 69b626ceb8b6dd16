"""A runner for exported GGUF files: stock llama.cpp in a child process."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tunewright.errors import ModelError
from tunewright.export.target import Limit
from tunewright.models.llama_cpp import serve
from tunewright.records import Message

if TYPE_CHECKING:
    import urllib3

Array = Any  # numpy.ndarray

LEAST_CONTEXT_TOKENS = 4096
_NUM_PARALLEL = 4  # requests
_READ_TIMEOUT_S = 3600.0  # of one request: a large model on a CPU is slow


# What llama.cpp cannot do with any file.
COMPOSES_NOTHING = Limit(
    "llama.cpp does not compose characters (NFC), as some tokenizers do",
    lambda text: unicodedata.normalize("NFC", text),
)
_TRIMS_ASCII = Limit("its templates trim white space of ASCII only", str.strip)


class LlamaRunner:
    """A model in GGUF, with or without an adapter in GGUF, behind llama.cpp's server in a child process.

    Use it as a context manager, or ``close`` it; the server ends with this process in any case.

    Args:
        model: the GGUF file.
        adapter: a LoRA in GGUF for that model.
        context_tokens: the most tokens of a prompt and its answer.

    Raises:
        ModelError: llama.cpp does not load the files.
    """

    limits: Sequence[Limit] = (COMPOSES_NOTHING, _TRIMS_ASCII)

    def __init__(self, model: Path, adapter: Path | None = None, context_tokens: int = LEAST_CONTEXT_TOKENS) -> None:
        import urllib3
        import xllamacpp

        self.name = f"llama.cpp of xllamacpp {xllamacpp.__version__}, on the CPU"
        self._exit = ExitStack()
        address = self._exit.enter_context(serve(model, context_tokens, _NUM_PARALLEL, adapter))
        timeout = urllib3.Timeout(connect=10.0, read=_READ_TIMEOUT_S)
        self._http = urllib3.connection_from_url(address, maxsize=_NUM_PARALLEL, timeout=timeout, retries=False)
        self._pool = self._exit.enter_context(ThreadPoolExecutor(_NUM_PARALLEL))
        self._num_tokens = int(self._get("/v1/models")["data"][0]["meta"]["n_vocab"])
        self._letter = self.tokenize("a")[-1]

    def __enter__(self) -> LlamaRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the server."""
        self._exit.close()

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Return a conversation's prompt as llama.cpp renders and tokenizes it."""
        prompt = self._post("/apply-template", {"messages": [message.as_turn() for message in messages]})["prompt"]
        return self.tokenize(prompt, add_bos=True)

    def tokenize(self, text: str, add_bos: bool = False) -> list[int]:
        """Return llama.cpp's tokens of a text; ``add_bos`` puts the beginning-of-text token first."""
        body = {"content": text, "add_special": add_bos, "parse_special": True}
        return [int(number) for number in self._post("/tokenize", body)["tokens"]]

    def log_probs(self, prompts: Sequence[Sequence[int]]) -> Iterator[Array]:
        """Yield the log-probabilities of the token after each prompt: [vocabulary], fp32, natural logarithms.

        They are the log-softmax of the raw logits: the server takes them before any sampling.
        """
        for start in range(0, len(prompts), _NUM_PARALLEL):  # so that only a few wait in memory
            yield from self._pool.map(self._next_token, prompts[start : start + _NUM_PARALLEL])

    def _next_token(self, prompt: Sequence[int]) -> Array:
        import numpy as np

        # The server returns no probabilities with a token that ends an answer or is half a character. So a bias makes
        # it take another token; it applies after the probabilities are taken.
        forced = [[self._letter, 1000.0]]
        options = {"n_probs": self._num_tokens, "post_sampling_probs": False, "logit_bias": forced}
        reply = self._complete(prompt, n_predict=1, **options)
        entries = reply["completion_probabilities"][0]["top_logprobs"]
        if len(entries) != self._num_tokens:
            raise ModelError(
                "llama.cpp returns an incomplete distribution", f"{len(entries)} of {self._num_tokens} tokens"
            )
        values = np.empty(self._num_tokens, dtype=np.float64)
        values[[entry["id"] for entry in entries]] = [entry["logprob"] for entry in entries]
        # The server normalizes in fp32, with an error of about 1e-4.
        return (values - np.log(np.exp(values).sum())).astype(np.float32)

    def answers(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[str]:
        """Return the greedy answers; llama.cpp computes prompts that are sent together in one batch."""
        replies = self._pool.map(lambda prompt: self._complete(prompt, n_predict=max_new_tokens), prompts)
        return [str(reply["content"]).strip() for reply in replies]

    def _complete(self, prompt: Sequence[int], **options: Any) -> dict[str, Any]:
        return self._post("/completion", {"prompt": list(prompt), "temperature": 0.0, "cache_prompt": False, **options})

    def _get(self, path: str) -> dict[str, Any]:
        return self._read(path, self._http.request("GET", path))

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._read(path, self._http.request("POST", path, json=body))

    def _read(self, path: str, response: urllib3.BaseHTTPResponse) -> dict[str, Any]:
        content = json.loads(response.data)
        if response.status != 200:
            cause = str(content.get("error", {}).get("message", "it gave no reason"))
            raise ModelError(f"llama.cpp refuses a request to {path}", cause, "shorten the prompts or the answers")
        return dict(content)
