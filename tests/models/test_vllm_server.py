"""What tunewright makes of vLLM's output, flags and end; the output is what vLLM 0.32 printed."""

import os
import sys

import pytest

from tunewright.errors import StageError, TeacherError
from tunewright.models.vllm_server import served_context, vllm_server

WORKER_FAILS = """\
(APIServer pid=2666) WARNING 11-30 23:09:30 [system_utils.py:255] Found ulimit of 20000 and failed to automatically increase with error current limit exceeds maximum limit. This can cause fd limit errors like `OSError: [Errno 24] Too many open files`.
(VllmWorker-0 pid=2899) ERROR 11-30 23:10:08 [multiproc_executor.py:953] WorkerProc failed to start.
(VllmWorker-0 pid=2899) ERROR 11-30 23:10:08 [multiproc_executor.py:953] Traceback (most recent call last):
(VllmWorker-0 pid=2899) ERROR 11-30 23:10:08 [multiproc_executor.py:953]   File "cpu_worker.py", line 83, in __init__
(VllmWorker-0 pid=2899) ERROR 11-30 23:10:08 [multiproc_executor.py:953]     raise ValueError(
(VllmWorker-0 pid=2899) ERROR 11-30 23:10:08 [multiproc_executor.py:953] ValueError: Available memory on node 0 (20.46/23.54 GiB) on startup is less than desired CPU memory utilization (0.92, 21.66 GiB).
(EngineCore pid=2836) INFO 11-30 23:10:13 [multiproc_executor.py:486] [shutdown] Executor: all workers exited gracefully
(EngineCore pid=2836) ERROR 11-30 23:10:13 [core.py:1510] Exception: WorkerProc initialization failed due to an exception in a background process. See stack trace for root cause.
Traceback (most recent call last):
  File "vllm", line 6, in <module>
    sys.exit(main())
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""
NO_BITSANDBYTES = """\
Traceback (most recent call last):
  File "arg_utils.py", line 1955, in create_model_config
    return ModelConfig(
pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
  Value error, Unknown quantization method: bitsandbytes. Must be one of ['awq', 'fp8']. [type=value_error, input_value=ArgsKwargs((), {})]
    For further information visit https://errors.pydantic.dev/2.14/v/value_error
"""
WRONG_FLAG = """\
usage: vllm serve [model_tag] [options]
vllm serve: error: argument --max-lora-rank: invalid choice: 9 (choose from 1, 8, 16, 32, 64, 128, 256, 320, 512)
"""
SERVER = """
import json, os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        entitled = self.headers["Authorization"] == "Bearer " + os.environ["VLLM_API_KEY"]
        self.send_response(200 if entitled or self.path == "/health" else 401)
        self.end_headers()
        models = [{"id": "base", "max_model_len": 4352}, {"id": "tuned", "max_model_len": None}]
        self.wfile.write(json.dumps({"data": models}).encode())
        if self.path == "/end":
            print("(EngineCore pid=7) ERROR 11-30 23:25:04 [core.py:1510] torch.OutOfMemoryError: CUDA out of memory.")
            print("(APIServer pid=6) INFO 11-30 23:25:05 [launcher.py:304] [shutdown] API server", flush=True)
            os._exit(1)
    def log_message(self, *arguments):
        pass
print(sys.argv[1:], os.environ["VLLM_NO_USAGE_STATS"], file=open("words", "w"), flush=True)
HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Makes a ``vllm`` that runs this code of Python."""

    def write(code):
        (tmp_path / "vllm.py").write_text(code, encoding="utf-8")
        script = tmp_path / "vllm"
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{tmp_path}/vllm.py" "$@"\n', encoding="utf-8")
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.chdir(tmp_path)

    return write


@pytest.mark.parametrize(
    ("output", "cause"),
    [
        (WORKER_FAILS, "ValueError: Available memory on node 0 (20.46/23.54 GiB) on startup is less than desired CPU"),
        (NO_BITSANDBYTES, "it cannot quantize by bitsandbytes: pip install vllm-bnb-plugin where vLLM is installed"),
        (WRONG_FLAG, "vllm serve: error: argument --max-lora-rank: invalid choice: 9"),
    ],
)
def test_the_cause_is_the_first_error_and_not_what_refers_to_it(program, output, cause):
    program(f"print({output!r}); raise SystemExit(1)")
    with pytest.raises(StageError, match="vLLM does not start") as caught, vllm_server(["base"], ""):
        pass
    assert caught.value.cause.startswith(cause)


def test_the_context_is_the_servers_and_no_usage_is_reported(program, tmp_path):
    program(SERVER)
    with vllm_server(["base"], "") as (address, key):
        assert served_context(address, key) == 4352
    words = (tmp_path / "words").read_text()
    assert "'--max-model-len', 'auto'" in words  # vLLM does not start where the whole context does not fit its memory
    assert words.endswith(" 1\n")


def test_a_server_that_ends_while_it_answers_gives_its_own_cause(program):
    import urllib3

    program(SERVER)
    with (
        pytest.raises(StageError, match="vLLM has ended") as caught,
        vllm_server(["base"], "") as (address, _),
    ):
        urllib3.request("GET", f"{address}/end", retries=False)
        raise TeacherError("cannot reach the teacher", "connection refused", "start the server")
    assert caught.value.cause == "torch.OutOfMemoryError: CUDA out of memory."
    assert "kept" in caught.value.hint
