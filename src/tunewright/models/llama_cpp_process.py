"""The child process of llama.cpp's server: a model behind an OpenAI-compatible address.

Run as ``python -m tunewright.models.llama_cpp_process GGUF CONTEXT_TOKENS SLOTS [ADAPTER]``. It prints a
single line, the address, once the model answers; llama.cpp's own log goes to stderr. It ends with its parent.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from tunewright import operating_system

_MAX_THREADS = 8  # a model this small gains nothing from more
# Environment variables: the API key that requests must send, if any; whether keys and values are kept in fp32.
KEY, FULL_PRECISION = "TUNEWRIGHT_LLAMA_KEY", "TUNEWRIGHT_LLAMA_FULL_PRECISION"


def num_threads() -> int:
    """Return the number of threads to use: the physical cores of this process (affinity and cgroup quota).

    The number of threads changes no answer.
    """
    cores = set()
    for cpu in operating_system.usable_cpus():
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        cores.add(siblings.read_text() if siblings.is_file() else str(cpu))
    return max(1, min(len(cores) or operating_system.num_usable_cpus(), _cgroup_cores(), _MAX_THREADS))


def _cgroup_cores() -> int:
    """Return the cores of a container's quota (cgroup v2); a large number without a quota."""
    file = Path("/sys/fs/cgroup/cpu.max")
    quota, period = file.read_text().split() if file.is_file() else ("max", "1")
    return 1 << 16 if quota == "max" else max(1, int(quota) // int(period))


def _parameters(gguf: str, context_tokens: int, slots: int, adapter: str) -> Any:
    """Return llama.cpp's settings, without a prompt cache: with a single slot, an answer depends on its request alone.

    Several slots are computed together: the last digits of an answer's numbers then depend on its neighbors.
    """
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = gguf
    parameters.n_parallel = slots
    parameters.n_ctx = context_tokens * slots
    if adapter:
        parameters.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(adapter, 1.0)]
    parameters.cache_prompt = False
    parameters.port = 0
    if os.environ.get(KEY):
        parameters.api_keys = [os.environ[KEY]]
    if os.environ.get(FULL_PRECISION):
        parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = num_threads()
    return parameters


def main(gguf: str, context_tokens: str, slots: str, adapter: str = "") -> None:
    """Serve the model, with the adapter if there is one, until stdin closes."""
    operating_system.end_with_parent(os.getppid())
    address_out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    import xllamacpp

    server = xllamacpp.Server(_parameters(gguf, int(context_tokens), int(slots), adapter))
    address_out.write(f"{server.listening_address}\n")
    address_out.flush()
    sys.stdin.read()
    os._exit(0)  # llama.cpp has nothing to save, and its own shutdown may wait for a running call


if __name__ == "__main__":
    main(*sys.argv[1:])
