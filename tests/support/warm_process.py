"""Commands in children of a process that has the libraries imported: as a user types them, without seconds of imports.

The libraries are imported once, the project's own modules anew in each child, so that what they read from the
environment, the terminal and the folder is the child's. After a rehearsal they too are those of the process.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from support import TESTS

_LIBRARIES = (
    "bitsandbytes", "bm25s", "datasketch", "jinja2", "jsonschema", "numpy", "peft", "pydantic", "rapidfuzz",
    "safetensors.torch", "scipy.stats", "tokenizers", "torch", "torch.distributed", "transformers",
    "transformers.models.llama.modeling_llama", "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
)  # fmt: skip


class WarmProcess:
    """A process that forks a child for each command.

    Args:
        environment: of the process: what the libraries read when they are imported.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        paths = [str(TESTS), *filter(None, [environment.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "support.warm_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**environment, "PYTHONPATH": os.pathsep.join(paths)},
        )

    def run(
        self,
        arguments: Sequence[object],
        env: Mapping[str, str],
        cwd: Path | str = ".",
        input: str = "",
        module: str = "tunewright",
        ranks: int = 1,
    ) -> subprocess.CompletedProcess[str]:
        """Run a module with these arguments; return its exit code and what it printed.

        Of several processes (``ranks``), side by side, each with its RANK: the first exit code that is not 0, and what
        all printed.
        """
        assert self._process.stdin and self._process.stdout
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "stdin").write_text(input, encoding="utf-8")
            for rank in range(ranks):
                own = {**env, "RANK": str(rank), "LOCAL_RANK": str(rank)} if ranks > 1 else dict(env)
                files = [f"{folder}/stdin", f"{folder}/stdout-{rank}", f"{folder}/stderr-{rank}"]
                order = {"arguments": [str(argument) for argument in arguments], "files": files, "module": module}
                order |= {"environment": own, "folder": str(Path(cwd).absolute()), "last": rank == ranks - 1}
                self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            codes = json.loads(self._process.stdout.readline())
            printed = [
                "".join(Path(folder, f"{name}-{rank}").read_text("utf-8", "replace") for rank in range(ranks))
                for name in ("stdout", "stderr")
            ]
        return subprocess.CompletedProcess(list(arguments), next(filter(None, codes), 0), *printed)

    def rehearse(self, arguments: Sequence[object], env: Mapping[str, str], module: str = "tunewright") -> int:
        """Run a module in the process itself, so that every later child has what it imported; return its exit code.

        It must leave no thread behind: in a child, a pool of threads has none, and its tasks wait for ever.
        """
        assert self._process.stdin and self._process.stdout
        order = {"arguments": [str(argument) for argument in arguments], "module": module, "rehearsal": True}
        order |= {"environment": dict(env), "folder": str(Path.cwd()), "files": [os.devnull] * 3}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


_shared: list[WarmProcess] = []


def run_command(arguments: Sequence[object], env: Mapping[str, str], **options: Any) -> Any:
    """Run a command in a child of a process that all tests of this worker share; as ``WarmProcess.run``."""
    if not _shared:
        _shared.append(WarmProcess(os.environ))
        atexit.register(_shared[0].close)
    return _shared[0].run(arguments, env, **options)


def _exit_code(order: Mapping[str, Any]) -> int:
    """Run the command in this process; return its exit code."""
    try:
        os.chdir(order["folder"])
        os.environ.clear()
        os.environ.update(order["environment"])
        for target, path in enumerate(order["files"]):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), target)
        sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)  # the parent's holds the lines it has read ahead
        sys.argv[1:] = order["arguments"]
        runpy.run_module(order["module"], run_name="__main__", alter_sys=True)
        return 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1


def _child(order: Mapping[str, Any]) -> None:
    """Become the command; never returns."""
    code = _exit_code(order)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _rehearsal(order: Mapping[str, Any]) -> int:
    """Run the command here; standard input and output are again those of the process after it."""
    own, stdin = [os.dup(number) for number in range(3)], sys.stdin
    code = _exit_code(order)
    for number, copy in enumerate(own):
        os.dup2(copy, number)
        os.close(copy)
    sys.stdin = stdin
    assert len([*Path("/proc/self/task").glob("*")]) <= 1
    return code


def _serve() -> None:
    from importlib import import_module

    for name in _LIBRARIES:
        import_module(name)
    children: list[int] = []
    for line in sys.stdin:
        order = json.loads(line)
        if "rehearsal" in order:
            print(_rehearsal(order), flush=True)
            gc.collect()
            gc.freeze()  # or the first collection in a child copies every page
            continue
        children.append(os.fork())
        if not children[-1]:
            _child(order)
        if order["last"]:
            print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children], flush=True)
            children.clear()


if __name__ == "__main__":
    _serve()
