"""Files that run a recipe elsewhere: a SkyPilot task, a Slurm script, a notebook. Nothing is started here."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tunewright import console
from tunewright.environment import __version__
from tunewright.errors import DocumentError, ModelError, RecipeError
from tunewright.launchers.notebooks import notebook
from tunewright.models import hub_errors
from tunewright.models.hardware import Shape
from tunewright.models.memory_plan import SPARE, Choice, MemoryEstimate, choose, predict_memory
from tunewright.models.source import locate, read_config
from tunewright.recipe import Recipe, load_recipe
from tunewright.records import digest
from tunewright.settings import EMBEDDED, LOCAL, ModelSettings
from tunewright.storage import write_output
from tunewright.training.fast_path import plain_path_reason

# GB as sold, by the names that SkyPilot knows them by; of two alike, the cheaper first.
GPUS = {"T4": 16, "L4": 24, "A10G": 24, "A100": 40, "A100-80GB": 80, "H100": 80, "H200": 141}
_NO_BF16 = {"T4"}
_FP8 = {"H100", "H200"}
_GIVEN = 0.95e9  # bytes of a GB as sold that programs get: the rest is the driver's and the error correction's
_COUNTS = (1, 2, 4, 8)  # GPUs of one machine that a sharded base may be spread over
_NAMED = re.compile(r"([A-Za-z0-9._-]+)(?::([1-9][0-9]{0,2}))?")


@dataclass(frozen=True)
class Machine:
    """A machine to ask for.

    Attributes:
        gpu: its kind.
        count: how many of them.
        why: the reason, for people.
        named: whether the user named it.
    """

    gpu: str
    count: int
    why: str
    named: bool = False


def machine_of(recipe: Recipe, named: str) -> Machine:
    """Return the machine that the user named, or the smallest that the plan fits.

    Raises:
        RecipeError: the name is none, or no machine is large enough.
        ModelError: the base's shape cannot be known from here.
    """
    if not named:
        return _smallest(recipe)
    match = _NAMED.fullmatch(named)
    if match is None:
        raise RecipeError(
            f"--gpu {named} is not NAME or NAME:COUNT", "", "for example: --gpu A100-80GB, or --gpu H100:2"
        )
    return Machine(match[1], int(match[2] or 1), "as named with --gpu", named=True)


def _smallest(recipe: Recipe) -> Machine:
    base = _described(recipe.model.base, recipe)
    shape = Shape.of(read_config(base))
    # The path is told from the folder, so that a base on the hub is not fetched for it.
    fast = not plain_path_reason(_with_base(recipe, str(base), recipe.model.quantization))
    helper = _helper_bytes(recipe)
    least = 0.0
    for count in _COUNTS if recipe.model.sharded else (1,):
        for name, size in GPUS.items():
            if recipe.model.compute == "bf16" and name in _NO_BF16 or recipe.model.fp8 and name not in _FP8:
                continue
            free = size * _GIVEN
            memory = predict_memory(recipe, shape, choose(recipe, shape, free, fast, gpu=True), fast)
            taken = max(_per_gpu(memory, count), helper)
            least = min(least or taken, taken)
            if taken <= free * (1 - SPARE):
                beside = f", a local teacher or judge {helper / 2**30:.1f}" if helper else ""
                told = f"training is predicted to take {_per_gpu(memory, count) / 2**30:.1f} GiB{beside}"
                return Machine(name, count, f"{told}, of {free / 2**30:.1f} on each")
    raise RecipeError(
        f"no machine of {', '.join(GPUS)} is large enough",
        f"{least / 2**30:.1f} GiB are predicted at least",
        "quantize the base (model.quantization), spread it (model.sharded), or name a machine: --gpu NAME:COUNT",
    )


def _per_gpu(memory: MemoryEstimate, count: int) -> float:
    """Return the bytes on each of several GPUs that share the weights."""
    return memory.total - (memory.base + memory.trained) * (1 - 1 / count)


def _helper_bytes(recipe: Recipe) -> float:
    """Return what a local teacher or judge takes, the larger of them: as a student that is not trained on."""
    helpers = [(recipe.teacher.model, recipe.teacher.quantization)] if recipe.teacher.url == LOCAL else []
    helpers += [(recipe.judge.model, recipe.judge.as_teacher.quantization)] if recipe.judge.url == LOCAL else []
    sizes = [0.0]
    for name, quantization in helpers:
        shape = Shape.of(read_config(_described(name, recipe)))
        memory = predict_memory(_with_base(recipe, name, quantization), shape, Choice(512, 0), fast=False)
        sizes.append(memory.total - memory.trained)
    return max(sizes)


def _with_base(recipe: Recipe, base: str, quantization: str) -> Recipe:
    model = ModelSettings.model_validate({**recipe.model.model_dump(), "base": base, "quantization": quantization})
    return recipe.model_copy(update={"model": model})


def _described(base: str, recipe: Recipe) -> Path:
    """Return a folder with the model's config.json; of a model on the hub, only that file is fetched."""
    if base == EMBEDDED or recipe.resolve(base).is_dir() or base.count("/") != 1 or base.startswith((".", "/", "~")):
        return locate(base, recipe.folder)
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(base, "config.json")).parent
    except Exception as error:  # the hub's library raises errors of four libraries below it
        named = "name the machine yourself: --gpu A100-80GB"
        headline, cause, hint = hub_errors.explain(error, base, writing=False) or (
            f"the shape of {base} is not known here",
            f"its config.json cannot be fetched: {hub_errors.clean_message(str(error)) or type(error).__name__}",
            "try again",
        )
        raise ModelError(headline, cause, f"{hint}; or {named}") from error


# The settings that may name files or folders of this machine.
_INPUTS = (
    "documents.paths",
    "exam.file",
    "synthesis.data",
    "synthesis.extraction_schema",
    "preference.data",
    "model.base",
    "curation.reward",
    "teacher.model",
    "judge.model",
    "evaluation.compare",
)
_THERE = "~/tunewright"
_STOPPING = """\
# As Ctrl-C does: training writes a checkpoint of the step that is under way.
# shellcheck disable=SC2317 # called by the traps
stop() {
  again=$1
  kill -INT -- "-$child" 2>/dev/null
}
trap 'stop yes' USR1 # the time is nearly over
trap 'stop no' TERM  # preempted: Slurm queues it again by itself

while :; do
  code=0
  wait "$child" || code=$?
  kill -0 "$child" 2>/dev/null || break # the wait itself ends at each signal
done
if [ "$again" = yes ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""


@dataclass(frozen=True)
class Job:
    """A recipe that is to run elsewhere.

    Attributes:
        path: of the recipe, absolute.
        folder: the run folder here, absolute.
        recipe: loaded, with the assignments.
        assignments: KEY=VALUE, as given.
        machine: to ask for.
    """

    path: Path
    folder: Path
    recipe: Recipe
    assignments: tuple[str, ...]
    machine: Machine

    @property
    def name(self) -> str:
        """A name that schedulers and buckets take."""
        return "tunewright-" + (re.sub(r"[^a-z0-9]+", "-", self.path.stem.lower()).strip("-")[:24] or "run")

    @property
    def secrets(self) -> tuple[str, ...]:
        """The environment variables that it needs; their values are never looked at."""
        tracked = ("WANDB_API_KEY",) if self.recipe.training.tracker == "wandb" else ()
        named = (self.recipe.teacher.api_key_env, self.recipe.judge.api_key_env, *tracked)
        return tuple(dict.fromkeys(name for name in named if name))

    @property
    def asked(self) -> str:
        """The words that hand these to SkyPilot."""
        return "".join(f" --secret {name}" for name in self.secrets)


def launch(
    path: Path,
    folder: Path,
    *,
    assignments: Sequence[str],
    scheduler: str,
    gpu: str,
    output: Path | None,
    force: bool = False,
) -> None:
    """Write the file for a scheduler to stdout or to a file, and tell on stderr what to type.

    Raises:
        RecipeError: the recipe is wrong, no machine is large enough, or the output exists.
        DocumentError: the recipe names a file that is not there.
        ModelError: the base's shape cannot be known from here.
    """
    if output is not None and os.path.realpath(output) == os.path.realpath(path):
        raise RecipeError(f"{output} is the recipe itself", "it would be overwritten", "choose another name with -o")
    recipe = load_recipe(path, assignments)
    job = Job(path.absolute(), folder.absolute(), recipe, tuple(assignments), machine_of(recipe, gpu))
    text = SCHEDULERS[scheduler](job)
    if output is None:
        console.data(text)
    else:
        write_output(output, text, force)
    console.line(f"{job.machine.gpu} x {job.machine.count}: {job.machine.why}")
    for note in _notes(recipe):
        console.warning(note)
    asked = job.asked if scheduler == "skypilot" else ""
    file = shlex.quote(str(output)) if output else "FILE"
    console.line(f"nothing was started; start it with: {_START[scheduler]} {file}{asked}")


def _notes(recipe: Recipe) -> Iterator[str]:
    for name, url in [*(("teacher", url) for url in recipe.teacher.urls), ("judge", recipe.judge.url)]:
        if url not in ("", EMBEDDED, LOCAL) and urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1"):
            yield f"{name}.url is {url!r}: of this machine, that is; there, it has to be served too, or be another one"


def _inputs(recipe: Recipe) -> Iterator[tuple[str, list[Path | str], bool]]:
    """Yield (setting, its paths on this machine, whether it is a list); among them, as text, names of the hub.

    Raises:
        DocumentError: a path does not exist.
    """
    whole = recipe.with_absolute_paths()
    for name in _INPUTS:
        section, _, key = name.partition(".")
        settings: Any = getattr(whole, section)
        if key == "model" and settings.url != LOCAL:
            continue  # a server's name for it, even where that looks like a path
        value = getattr(settings, key)
        named = value if isinstance(value, tuple) else (value,)
        found = [Path(one).resolve() if Path(one).is_absolute() else one for one in named if one]
        paths = [one for one in found if isinstance(one, Path)]
        for path in paths:
            if not path.exists():
                raise DocumentError(f"there is nothing at {path}", f"{name} names it", "mend the path in the recipe")
        if paths:
            yield name, found, isinstance(value, tuple)


def _skypilot(job: Job) -> str:
    """Return a SkyPilot task: a spot machine that is replaced when it is taken away, the run folder in a bucket."""
    import yaml

    mounts: dict[str, Any] = {f"{_THERE}/recipe.toml": str(job.path)}
    assignments = list(job.assignments)
    for name, found, many in _inputs(job.recipe):
        there = []
        for one in found:
            there.append(one if isinstance(one, str) else f"inputs/{len(mounts)}-{one.name}")
            if isinstance(one, Path):
                mounts[f"{_THERE}/{there[-1]}"] = str(one)
        assignments.append(f"{name}={json.dumps(there if many else there[0], ensure_ascii=False)}")
    # Written through a cache: a plain mount of a bucket can neither append to a file nor rename one.
    bucket = f"{job.name}-{digest(platform.node(), str(job.path), str(job.folder))[:10]}"
    mounts[f"{_THERE}/run"] = {"name": bucket, "mode": "MOUNT_CACHED"}
    task: dict[str, Any] = {
        "name": job.name,
        "resources": {
            "accelerators": f"{job.machine.gpu}:{job.machine.count}",
            "use_spot": True,
            "job_recovery": {"strategy": "EAGER_NEXT_REGION"},
        },
        "file_mounts": mounts,
        "setup": f"python -m pip install --quiet 'tunewright=={__version__}'\n",
        "run": f"cd {_THERE}\n{_command('python', job.machine.count, 'recipe.toml', 'run', assignments)}\n",
    }
    if job.secrets:
        task["secrets"] = dict.fromkeys(job.secrets)
    header = [
        f"# {job.machine.gpu} x {job.machine.count}: {job.machine.why}.",
        f"# Start:      sky jobs launch FILE{job.asked}",
        "# A gated base: add --secret HF_TOKEN. Values of secrets come from your environment and stand nowhere here.",
        "# Preempted, the job is started anew elsewhere with the same command, and goes on from what the bucket holds.",
        f"# Results:    the bucket {bucket}; report.html is in it.",
        *(f"# Note: {note}" for note in _notes(job.recipe)),
    ]

    readable: Any = type("Readable", (yaml.SafeDumper,), {})  # of its own, so that no other writer is changed

    def block(dumper: Any, text: str) -> Any:
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)

    readable.add_representer(str, block)
    told = yaml.dump(task, Dumper=readable, sort_keys=False, allow_unicode=True, width=1000)
    return "\n".join(header) + f"\n{told}"


def _slurm(job: Job) -> str:
    """Return a Slurm script: stopped when its time is nearly over, or preempted, it is queued again and goes on."""
    list(_inputs(job.recipe))  # what the recipe names has to be there: the file system is shared
    machine = job.machine
    kind = f"{machine.gpu}:" if machine.named else ""
    size = (
        "" if machine.named else f"; a {machine.gpu} ({GPUS[machine.gpu]} GB) or larger: its site's name goes before :N"
    )
    command = _command(shlex.quote(sys.executable), machine.count, str(job.path), str(job.folder), job.assignments)
    secrets = "".join(f': "${{{name}:?export it before sbatch}}"\n' for name in job.secrets)
    notes = "".join(f"# Note: {note}\n" for note in _notes(job.recipe))
    return f"""\
#!/bin/bash
# Start: sbatch FILE. The file system is taken to be shared: recipe, documents, run folder and this Python.
# {machine.gpu} x {machine.count}: {machine.why}{size}.
# Stopped for whatever reason, the same command goes on: sbatch FILE.
{notes}#SBATCH --job-name={job.name}
#SBATCH --gres=gpu:{kind}{machine.count}
#SBATCH --cpus-per-task={8 * machine.count}
#SBATCH --mem={64 * machine.count}G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output={job.name}-%j.log
#SBATCH --signal=B:USR1@180

set -uo pipefail
set -m # job control: without it, a command in the background is deaf to the interrupt below
{secrets}
{command} &
child=$!
again=no

{_STOPPING}"""


def _notebook(job: Job) -> str:
    """Return a notebook; documents are put into it there, and what else the recipe names has to lie beside it."""
    moved, files = list(job.assignments), []
    for name, found, many in _inputs(job.recipe):
        if name != "documents.paths":
            there = [one if isinstance(one, str) else one.name for one in found]
            moved.append(f"{name}={json.dumps(there if many else there[0])}")
            files += [f"`{one.name}`" for one in found if isinstance(one, Path)]
    note = f"Put into the work folder first: {', '.join(files)}." if files else ""
    recipe = job.path.read_text(encoding="utf-8")
    gpu = job.machine.gpu.partition("-")[0]
    return notebook(recipe, job.path.stem, gpu, settings=moved, note=note, secrets=job.secrets)


def _command(python: str, count: int, recipe: str, folder: str, assignments: Sequence[str]) -> str:
    """Return the command that runs it, and that goes on after any stop."""
    start = f"{python} -m tunewright"
    if count > 1:
        start = f"{python} -m torch.distributed.run --nproc-per-node {count} -m tunewright"
    words = ["run", recipe, "--dir", folder, *(word for one in assignments for word in ("--set", one))]
    return f"{start} {shlex.join(words)}"


SCHEDULERS: dict[str, Callable[[Job], str]] = {"skypilot": _skypilot, "slurm": _slurm, "notebook": _notebook}
_START = {"skypilot": "sky jobs launch", "slurm": "sbatch", "notebook": "jupyter lab"}
