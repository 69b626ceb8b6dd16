"""Writes the file that runs a recipe on another machine, and chooses that machine; starts nothing."""

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
from tunewright.settings import EMBEDDED, LOCAL, SELF, ModelSettings, is_url
from tunewright.storage import write_output
from tunewright.teacher.keys import recipe_keys
from tunewright.training.compute_path import plain_path_reason

# Advertised GB by SkyPilot's names; of two GPUs of one size, the cheaper first.
GPUS = {"T4": 16, "L4": 24, "A10G": 24, "A100": 40, "A100-80GB": 80, "H100": 80, "H200": 141}
_NO_BF16 = {"T4"}
_FP8 = {"H100", "H200"}
USABLE_BYTES_PER_GB = 0.95e9  # of an advertised GB; driver and error correction take the rest
_COUNTS = (1, 2, 4, 8)  # GPUs of one machine over which a base may be sharded
_IMAGE = re.compile(r"[a-z0-9][A-Za-z0-9._:/@-]{0,254}")
_MACHINE = re.compile(r"([A-Za-z0-9._-]+)(?::([1-9][0-9]{0,2}))?")


@dataclass(frozen=True)
class Machine:
    """A machine to request.

    Attributes:
        gpu: the kind of GPU.
        count: the number of GPUs.
        why: the reason, for the reader.
        named: whether the user named it.
    """

    gpu: str
    count: int
    why: str
    named: bool = False


def machine_of(recipe: Recipe, named: str) -> Machine:
    """Return the machine that the user named, or the smallest machine that fits the plan.

    Raises:
        RecipeError: the name is malformed, or no machine is large enough.
        ModelError: the shape of the base cannot be read.
    """
    if not named:
        return _smallest(recipe)
    match = _MACHINE.fullmatch(named)
    if match is None:
        raise RecipeError(
            f"--gpu {named} is not NAME or NAME:COUNT", "", "use for example --gpu A100-80GB, or --gpu H100:2"
        )
    return Machine(match[1], int(match[2] or 1), "as named with --gpu", named=True)


def _smallest(recipe: Recipe) -> Machine:
    base = _config_folder(recipe.model.base, recipe)
    shape = Shape.of(read_config(base))
    # The path depends on the folder alone, so that a base on the hub is not downloaded for it.
    fast = not plain_path_reason(_with_base(recipe, str(base), recipe.model.quantization))
    helper = _helper_bytes(recipe)
    least = 0.0
    for count in _COUNTS if recipe.model.sharded else (1,):
        for name, size in GPUS.items():
            if recipe.model.compute == "bf16" and name in _NO_BF16 or recipe.model.fp8 and name not in _FP8:
                continue
            free = size * USABLE_BYTES_PER_GB
            memory = predict_memory(recipe, shape, choose(recipe, shape, free, fast, gpu=True), fast)
            taken = max(_per_gpu(memory, count), helper)
            least = min(least or taken, taken)
            if taken <= free * (1 - SPARE):
                helper_text = f", a local teacher or judge {helper / 2**30:.1f}" if helper else ""
                predicted = f"training is predicted to take {_per_gpu(memory, count) / 2**30:.1f} GiB{helper_text}"
                return Machine(name, count, f"{predicted}, of {free / 2**30:.1f} per GPU")
    raise RecipeError(
        f"no machine of {', '.join(GPUS)} is large enough",
        f"the recipe needs at least {least / 2**30:.1f} GiB per GPU",
        "quantize the base (model.quantization), shard it (model.sharded), or name a machine: --gpu NAME:COUNT",
    )


def _per_gpu(memory: MemoryEstimate, count: int) -> float:
    """Return the bytes on each GPU when the weights are sharded."""
    return memory.total - (memory.base + memory.trained) * (1 - 1 / count)


def _helper_bytes(recipe: Recipe) -> float:
    """Return the bytes of a local teacher or judge, the larger of both: a model of that shape without training."""
    helpers = [(recipe.teacher.model, recipe.teacher.quantization)] if recipe.teacher.url == LOCAL else []
    helpers += [(recipe.judge.model, recipe.judge.as_teacher.quantization)] if recipe.judge.url == LOCAL else []
    sizes = [0.0]
    for name, quantization in helpers:
        shape = Shape.of(read_config(_config_folder(name, recipe)))
        memory = predict_memory(_with_base(recipe, name, quantization), shape, Choice(512, 0), fast=False)
        sizes.append(memory.total - memory.trained)
    return max(sizes)


def _with_base(recipe: Recipe, base: str, quantization: str) -> Recipe:
    model = ModelSettings.model_validate({**recipe.model.model_dump(), "base": base, "quantization": quantization})
    return recipe.model_copy(update={"model": model})


def _config_folder(base: str, recipe: Recipe) -> Path:
    """Return a folder with the model's config.json; only that file is downloaded from the hub."""
    if base == EMBEDDED or recipe.resolve(base).is_dir() or base.count("/") != 1 or base.startswith((".", "/", "~")):
        return locate(base, recipe.folder)
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(base, "config.json")).parent
    except Exception as error:  # huggingface_hub raises errors of four other libraries
        choose_gpu = "choose the machine yourself: --gpu A100-80GB"
        headline, cause, hint = hub_errors.explain(error, base, writing=False) or (
            f"cannot read the shape of {base}",
            f"its config.json cannot be downloaded: {hub_errors.clean_message(str(error)) or type(error).__name__}",
            "try again",
        )
        raise ModelError(headline, cause, f"{hint}; or {choose_gpu}") from error


# The settings that may name files or folders on this machine.
_INPUTS = (
    "documents.paths",
    "exam.file",
    "synthesis.data",
    "synthesis.extraction_schema",
    "synthesis.focus",
    "training.start",
    "preference.data",
    "model.base",
    "curation.reward",
    "teacher.model",
    "judge.model",
    "evaluation.compare",
)
_REMOTE_FOLDER = "~/tunewright"
_STOPPING = """\
# Like Ctrl-C: training writes a checkpoint of the current step.
# shellcheck disable=SC2317 # called by the traps
stop() {
  again=$1
  kill -INT -- "-$child" 2>/dev/null
}
trap 'stop yes' USR1 # the time is almost over
trap 'stop no' TERM  # preempted: Slurm requeues the job itself

while :; do
  code=0
  wait "$child" || code=$?
  kill -0 "$child" 2>/dev/null || break # a signal ends the wait, not the child
done
if [ "$again" = yes ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""


@dataclass(frozen=True)
class Job:
    """A recipe to run on another machine.

    Attributes:
        path: the recipe file, absolute.
        folder: the run folder on this machine, absolute.
        recipe: the recipe with the assignments applied.
        assignments: KEY=VALUE overrides.
        machine: the machine to request.
        image: the container image with tunewright in which it runs; "": none.
    """

    path: Path
    folder: Path
    recipe: Recipe
    assignments: tuple[str, ...]
    machine: Machine
    image: str = ""

    @property
    def name(self) -> str:
        """A name that schedulers and buckets accept."""
        return "tunewright-" + (re.sub(r"[^a-z0-9]+", "-", self.path.stem.lower()).strip("-")[:24] or "run")

    @property
    def secrets(self) -> tuple[str, ...]:
        """The names of the environment variables with secrets; the values are never read."""
        tracker = ("WANDB_API_KEY",) if self.recipe.training.tracker == "wandb" else ()
        named = (self.recipe.teacher.api_key_env, self.recipe.judge.api_key_env, *tracker)
        return tuple(dict.fromkeys(name for name in named if name))

    @property
    def allowed_keys(self) -> tuple[str, ...]:
        """The options that let keys go to the servers that the user allowed on this machine."""
        uses = [use for use in recipe_keys(self.recipe) if use.state == "allowed"]
        return tuple(word for use in uses for word in ("--allow-key", use.binding))

    @property
    def secret_options(self) -> str:
        """The options that pass the secrets to SkyPilot."""
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
    image: str = "",
) -> None:
    """Write the file for a scheduler to stdout or to a file, and print on stderr the command that starts it.

    Raises:
        RecipeError: the recipe is wrong, no machine is large enough, or the output exists.
        DocumentError: the recipe names a file that does not exist.
        ModelError: the shape of the base cannot be read.
    """
    if output is not None and os.path.realpath(output) == os.path.realpath(path):
        raise RecipeError(f"{output} is the recipe itself", "it would be overwritten", "name another file with -o")
    if image and (scheduler == "notebook" or not _IMAGE.fullmatch(image)):
        raise RecipeError(
            f"--image {image} cannot be used",
            "a notebook brings its own" if scheduler == "notebook" else "it is no name of an image",
            "name it as in REGISTRY/OWNER/tunewright:cuda, for skypilot or slurm",
        )
    recipe = load_recipe(path, assignments)
    job = Job(path.absolute(), folder.absolute(), recipe, tuple(assignments), machine_of(recipe, gpu), image)
    text = SCHEDULERS[scheduler](job)
    if output is None:
        console.data(text)
    else:
        write_output(output, text, force)
    console.line(f"{job.machine.gpu} x {job.machine.count}: {job.machine.why}")
    for note in _notes(recipe):
        console.warning(note)
    options = job.secret_options if scheduler == "skypilot" else ""
    file = shlex.quote(str(output)) if output else "FILE"
    console.line(f"nothing was started; start it with: {_START[scheduler]} {file}{options}")


def _notes(recipe: Recipe) -> Iterator[str]:
    for name, url in [*(("teacher", url) for url in recipe.teacher.urls), ("judge", recipe.judge.url)]:
        if url not in ("", EMBEDDED, LOCAL, SELF) and urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1"):
            yield f"{name}.url is {url!r}, this machine: serve it on the other machine as well, or name another server"
    for use in recipe_keys(recipe):
        if use.state == "not allowed yet":
            yield f"{use.name} may not go to {use.origin} yet; if it should, launch with --allow-key {use.binding}"
        elif use.state == "never":
            yield f"{use.name} is the key of another service and is not sent to {use.origin}"


def _inputs(recipe: Recipe) -> Iterator[tuple[str, list[Path | str], bool]]:
    """Yield (setting, its paths on this machine, whether it is a list); hub names stay text.

    Raises:
        DocumentError: a path does not exist.
    """
    absolute = recipe.with_absolute_paths()
    for name in _INPUTS:
        section, _, key = name.partition(".")
        settings: Any = getattr(absolute, section)
        if key == "model" and settings.url != LOCAL:
            continue  # the server's name of the model, even if it looks like a path
        value = getattr(settings, key)
        names = value if isinstance(value, tuple) else (value,)
        items = [Path(item).resolve() if Path(item).is_absolute() else item for item in names if item]
        paths = [item for item in items if isinstance(item, Path)]
        for path in paths:
            if not path.exists():
                raise DocumentError(f"{path} does not exist", f"{name} names it", f"correct {name} in the recipe")
        if paths:
            yield name, items, isinstance(value, tuple)


def _skypilot(job: Job) -> str:
    """Return a SkyPilot task: a spot machine, replaced when preempted, with the run folder in a bucket."""
    import yaml

    mounts: dict[str, Any] = {f"{_REMOTE_FOLDER}/recipe.toml": str(job.path)}
    assignments = list(job.assignments)
    for name, items, many in _inputs(job.recipe):
        remote = []
        for item in items:
            remote.append(item if isinstance(item, str) else f"inputs/{len(mounts)}-{item.name}")
            if isinstance(item, Path):
                mounts[f"{_REMOTE_FOLDER}/{remote[-1]}"] = str(item)
        assignments.append(f"{name}={json.dumps(remote if many else remote[0], ensure_ascii=False)}")
    # Written through a cache: a plain bucket mount can neither append to a file nor rename it.
    bucket = f"{job.name}-{digest(platform.node(), str(job.path), str(job.folder))[:10]}"
    mounts[f"{_REMOTE_FOLDER}/run"] = {"name": bucket, "mode": "MOUNT_CACHED"}
    task: dict[str, Any] = {
        "name": job.name,
        "resources": {
            "accelerators": f"{job.machine.gpu}:{job.machine.count}",
            "use_spot": True,
            "job_recovery": {"strategy": "EAGER_NEXT_REGION"},
            **({"image_id": f"docker:{job.image}"} if job.image else {}),
        },
        "file_mounts": mounts,
        "setup": f"python -m pip install --quiet 'tunewright=={__version__}'\n",
        "run": f"cd {_REMOTE_FOLDER}\n{_command(job, 'python', 'recipe.toml', 'run', assignments)}\n",
    }
    if job.secrets:
        task["secrets"] = dict.fromkeys(job.secrets)
    header = [
        f"# {job.machine.gpu} x {job.machine.count}: {job.machine.why}.",
        f"# Start:      sky jobs launch FILE{job.secret_options}",
        "# For a gated base, add --secret HF_TOKEN. Secrets come from your environment; this file holds none.",
        "# A preempted job restarts elsewhere with the same command and resumes from the bucket.",
        f"# Results:    the bucket {bucket}, which holds report.html.",
        *(f"# Note: {note}" for note in _notes(job.recipe)),
    ]

    readable: Any = type("Readable", (yaml.SafeDumper,), {})  # a subclass, so that no other dumper is changed

    def block(dumper: Any, text: str) -> Any:
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)

    readable.add_representer(str, block)
    text = yaml.dump(task, Dumper=readable, sort_keys=False, allow_unicode=True, width=1000)
    return "\n".join(header) + f"\n{text}"


def _slurm(job: Job) -> str:
    """Return a Slurm script; when its time is almost over or it is preempted, it is requeued and resumes."""
    list(_inputs(job.recipe))  # checks that every input exists: the file system is shared
    machine = job.machine
    kind = f"{machine.gpu}:" if machine.named else ""
    size = (
        ""
        if machine.named
        else f"; a {machine.gpu} ({GPUS[machine.gpu]} GB) or larger: put your site's name for it before :N"
    )
    command = _command(job, _slurm_python(job), str(job.path), str(job.folder), job.assignments)
    secrets = "".join(f': "${{{name}:?export it before sbatch}}"\n' for name in job.secrets)
    notes = "".join(f"# Note: {note}\n" for note in _notes(job.recipe))
    return f"""\
#!/bin/bash
# Start: sbatch FILE. Recipe, documents, run folder and this Python must be on a shared file system.
# {machine.gpu} x {machine.count}: {machine.why}{size}.
# After any stop, the same command resumes: sbatch FILE.
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
set -m # job control: without it, a background command ignores the interrupt below
{secrets}
{command} &
child=$!
again=no

{_STOPPING}"""


def _slurm_python(job: Job) -> str:
    """Return the Python of the job: this one, or the image's, which sees the GPU and every folder of the job."""
    if not job.image:
        return shlex.quote(sys.executable)
    inputs = [item for _, items, _ in _inputs(job.recipe) for item in items if isinstance(item, Path)]
    folders = dict.fromkeys([job.path.parent, job.folder.parent, *(path.parent for path in inputs)])
    binds = [word for folder in folders for word in ("--bind", str(folder))]
    return shlex.join(["apptainer", "exec", "--nv", *binds, f"docker://{job.image}", "python"])


def _notebook(job: Job) -> str:
    """Return a notebook; documents are uploaded in it, all other inputs have to be in its work folder."""
    moved, files = list(job.assignments), []
    for name, items, many in _inputs(job.recipe):
        if name != "documents.paths":
            remote = [item if isinstance(item, str) else item.name for item in items]
            moved.append(f"{name}={json.dumps(remote if many else remote[0])}")
            files += [f"`{item.name}`" for item in items if isinstance(item, Path)]
    note = f"First copy these files to the work folder: {', '.join(files)}." if files else ""
    if urls := [path for path in job.recipe.documents.paths if is_url(path)]:
        note += f" This notebook fetches no URLs: upload what these give as files: {', '.join(urls)}."
    recipe = job.path.read_text(encoding="utf-8")
    gpu = job.machine.gpu.partition("-")[0]
    return notebook(
        recipe, job.path.stem, gpu, settings=moved, note=note, secrets=job.secrets, options=job.allowed_keys
    )


def _command(job: Job, python: str, recipe: str, folder: str, assignments: Sequence[str]) -> str:
    """Return the command that starts the run, and resumes it after any stop."""
    start = f"{python} -m tunewright"
    if job.machine.count > 1:
        start = f"{python} -m torch.distributed.run --nproc-per-node {job.machine.count} -m tunewright"
    words = ["run", recipe, "--dir", folder, *(word for assignment in assignments for word in ("--set", assignment))]
    words += job.allowed_keys
    return f"{start} {shlex.join(words)}"


SCHEDULERS: dict[str, Callable[[Job], str]] = {"skypilot": _skypilot, "slurm": _slurm, "notebook": _notebook}
_START = {"skypilot": "sky jobs launch", "slurm": "sbatch", "notebook": "jupyter lab"}
