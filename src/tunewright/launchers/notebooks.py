"""A notebook that runs a recipe in Colab, Kaggle or any Jupyter; run again, it resumes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tunewright.environment import __version__

_KAGGLE = {"T4": "nvidiaTeslaT4"}
_SECRETS = ("HF_TOKEN", "TEACHER_API_KEY")
_QUESTION = "What was measured, and what was found?"

_INSTALL = """\
import importlib.util

if importlib.util.find_spec("tunewright") is None:
    %pip install --quiet {INSTALL}
"""

_WORK_FOLDER = """\
import json
import os
import subprocess
import sys
from pathlib import Path

COLAB = "google.colab" in sys.modules
if COLAB:
    from google.colab import drive, userdata

    drive.mount("/content/drive")
    WORK = Path("/content/drive/MyDrive/tunewright")
    for name in SECRETS:
        try:
            os.environ[name] = userdata.get(name)
        except (userdata.SecretNotFoundError, userdata.NotebookAccessError):
            print(f"no secret {name}: only a gated base or a teacher with a key needs it")
elif Path("/kaggle/working").is_dir():
    WORK = Path("/kaggle/working")
else:
    WORK = Path.cwd()
documents, run, recipe = WORK / DOCUMENTS, WORK / RUN, WORK / "recipe.toml"
WORK.mkdir(parents=True, exist_ok=True)
print("run folder:", run)
"""

_DOCUMENTS = """\
if not DOCUMENTS:
    from tunewright.examples import abstracts_folder

    documents = abstracts_folder()
elif not documents.exists():
    documents.mkdir(parents=True)
if COLAB and documents.is_dir() and not any(documents.iterdir()):
    from google.colab import files

    for name, content in files.upload().items():
        (documents / name).write_bytes(content)
if documents.is_dir() and not any(documents.iterdir()):
    raise RuntimeError(f"add your documents to {documents}, then run this cell again")
print("documents:", documents)
"""

_COMMAND = """\
chosen = [f"documents.paths={json.dumps([str(documents)])}", *SETTINGS]
if BASE:
    chosen.append(f"model.base={BASE}")
chosen = [word for setting in chosen for word in ("--set", setting)]


def tunewright(*words):
    \"\"\"Run a command, print its output, and stop here if it fails.\"\"\"
    command = [sys.executable, "-m", "tunewright", *map(str, words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "encoding": "utf-8"}
    with subprocess.Popen(command, env={**os.environ, "COLUMNS": "110"}, **pipes) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
    if process.returncode:
        raise RuntimeError(f"tunewright {words[0]} ended with {process.returncode}; finished work is kept")


tunewright("plan", recipe, "--dir", run, *chosen)
"""

_RUN = """\
tunewright("run", recipe, "--dir", run, *chosen)
"""

_REPORT = """\
import html

from IPython.display import HTML, display

page = html.escape((run / "report.html").read_text(encoding="utf-8"))
display(HTML(f'<iframe srcdoc="{page}" style="width: 100%; height: 800px; border: 0"></iframe>'))
"""

_CHAT = """\
tunewright("chat", run, "--side-by-side", "--prompt", QUESTION)
"""

_DOWNLOAD = """\
import shutil

archive = shutil.make_archive(str(WORK / "adapter"), "zip", run, "adapter")
print("the adapter:", archive)
if COLAB:
    from google.colab import files

    files.download(archive)
"""


_PLAN_TEXT = """## What will happen

Calls and tokens before any of them is spent; memory and time as well, once the base is downloaded."""


def _command_with(options: Sequence[str]) -> str:
    return _COMMAND.replace("\n\n\n", f"\nchosen += {json.dumps(options)}\n\n\n", 1) if options else _COMMAND


def notebook(
    recipe: str,
    name: str,
    gpu: str,
    *,
    documents: str = "papers",
    settings: Sequence[str] = (),
    note: str = "",
    secrets: Sequence[str] = (),
    options: Sequence[str] = (),
) -> str:
    """Return a notebook (nbformat 4.5) that runs a recipe; the same arguments give the same bytes.

    Args:
        recipe: the text of the recipe.
        name: the name of its file, without extension.
        gpu: the kind of GPU to select in Colab, such as "T4".
        documents: the folder with the user's documents; empty for the example abstracts.
        settings: KEY=VALUE overrides.
        note: an additional paragraph at the top.
        secrets: environment variables that it needs, in addition to those of any run.
        options: further words of the commands plan and run.
    """
    first = recipe.partition("\n")[0]
    about = (first.removeprefix("#").strip() if first.startswith("#") else "") or name
    cells = [
        _text("what-this-does", _top(name, about, gpu, note)),
        _code("parameters", _parameters(documents, settings, secrets), tags=["parameters"]),
        _text("install-text", "## Install"),
        _code("install", _INSTALL),
        _text("where-text", _WORK_FOLDER_TEXT),
        _code("where", _WORK_FOLDER),
        _text("documents-text", "## Your documents\n\nIf the folder is empty, Colab asks for an upload."),
        _code("documents", _DOCUMENTS),
        _text("recipe-text", "## The recipe\n\nAll settings; change them here."),
        _code("recipe", f'%%writefile "{{recipe}}"\n{recipe}'),
        _text("plan-text", _PLAN_TEXT),
        _code("plan", _command_with(options)),
        _text("run-text", _RUN_TEXT),
        _code("run", _RUN),
        _text("report-text", "## The verdict, with its evidence"),
        _code("report", _REPORT),
        _text("chat-text", "## Ask base and tuned the same question"),
        _code("chat", _CHAT),
        _text("take-text", "## Download the adapter\n\nIt is in peft's format; on Kaggle it is under *Output*."),
        _code("take", _DOWNLOAD),
    ]
    metadata: dict[str, Any] = {
        "accelerator": "GPU",
        "colab": {"gpuType": gpu, "provenance": []},
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    if gpu in _KAGGLE:
        metadata["kaggle"] = {"accelerator": _KAGGLE[gpu], "isGpuEnabled": True, "isInternetEnabled": True}
    content = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


_WORK_FOLDER_TEXT = """\
## Where the work is kept

In Colab on your Drive, which asks for permission; on Kaggle in the working folder (*Persistence: Files* keeps it);
elsewhere in the current folder."""

_RUN_TEXT = """\
## From documents to verdict

**Disconnected? Run all cells again.** Finished work is in the run folder: no teacher call is made twice, and
training resumes from its last checkpoint."""


def _top(name: str, about: str, gpu: str, note: str) -> str:
    article = "an" if gpu[0] in "AEIOL" else "a"
    menu = "in Colab *Runtime, Change runtime type*; on Kaggle *Accelerator*"
    setup = f"The recipe is `{name}`; the GPU is {article} {gpu}: choose it {menu}."
    steps = (
        "An exam is written and sealed, training samples are written, and an adapter is trained. Base, few-shot, "
        "retrieval and the tuned model answer the exam: was the fine-tune worth it?"
    )
    return "\n\n".join(part for part in (f"# {about}", steps, setup, note) if part)


def _parameters(documents: str, settings: Sequence[str], secrets: Sequence[str]) -> str:
    names = list(dict.fromkeys([*_SECRETS, *secrets]))
    listed = "".join(f"    {json.dumps(setting, ensure_ascii=False)},\n" for setting in settings)
    return f"""\
DOCUMENTS = {json.dumps(documents)}  # a folder, relative to the work folder or absolute; empty: the example abstracts
RUN = "run"  # the run folder, relative to the work folder
BASE = ""  # another base model (folder or hub name); empty: the recipe's
SETTINGS = [{chr(10) if listed else ""}{listed}]  # overrides of the recipe, such as "training.epochs=1"
QUESTION = {json.dumps(_QUESTION)}
SECRETS = {json.dumps(names)}  # read from Colab's secrets, if set
INSTALL = "tunewright=={__version__}"
"""


def _text(name: str, source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": _lines(source)}


def _code(name: str, source: str, tags: Sequence[str] = ()) -> dict[str, Any]:
    metadata = {"tags": list(tags)} if tags else {}
    code: dict[str, Any] = {
        "cell_type": "code",
        "execution_count": None,
        "id": name,
        "metadata": metadata,
        "outputs": [],
    }
    return {**code, "source": _lines(source)}


def _lines(source: str) -> list[str]:
    return source.rstrip("\n").splitlines(keepends=True)
