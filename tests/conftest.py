"""Fixtures that several packages' tests use."""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# A busy machine is no fault of a test: what is slow is told by --durations.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")

# Started in the background, a shell has Ctrl-C ignored, and every process that a test starts would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "PYTEST_XDIST_WORKER" in os.environ:  # one worker per core: threads of their own would only wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure(config: pytest.Config) -> None:
    """Keep what is not marked gpu on the CPU, whose numbers its bounds are about, on a machine with a GPU too."""
    if "not gpu" in str(config.option.markexpr):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_finish() -> None:
    """Keep what is imported by now out of every later garbage collection: it stays, and searching it takes seconds."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say in one line what was not tested here for want of a browser, and how to get one."""
    skipped = [report for report in terminalreporter.stats.get("skipped", ()) if "no Chromium" in str(report.longrepr)]
    if skipped:
        terminalreporter.write_line(
            f"{len(skipped)} browser tests were skipped: install Chromium (Debian, Ubuntu: apt install chromium)",
            yellow=True,
        )


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny random Llama and its tokenizer."""
    from support.tiny import make_model

    return make_model(tmp_path_factory.mktemp("tiny") / "llama")


@pytest.fixture
def abstracts(tmp_path: Path) -> Path:
    """A folder with twelve of the example abstracts, free to be edited."""
    import shutil

    from tunewright.examples import abstracts_folder

    folder = tmp_path / "abstracts"
    folder.mkdir()
    for path in sorted(abstracts_folder().glob("*.md"))[:12]:
        shutil.copy(path, folder)
    return folder
