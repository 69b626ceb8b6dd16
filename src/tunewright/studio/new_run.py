"""The pages of a new run: its data, the recipe that init derives, the plan and the preview, and the start."""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from tunewright.errors import RecipeError, UserError
from tunewright.run_folder import RunFile
from tunewright.storage import write_atomic
from tunewright.studio.home import fault_of
from tunewright.studio.jobs import DESK, Job, devices, log_tail
from tunewright.studio.runs import KnownRun, finished_stages, json_of, key_of
from tunewright.studio.uploads import UPLOADS, hub_name, is_slug, sources, store, suffixes
from tunewright.studio.web import (
    MOST_FILES,
    MOST_UPLOAD_BYTES,
    Studio,
    job_view,
    page,
    redirect,
    safe,
    text_of,
)

_LOG_BYTES = 40_000
_MOST_RECIPE_CHARACTERS = 200_000


def recipes(folder: Path) -> dict[str, Path]:
    """Return the recipes of the studio's folder by keys that are no paths."""
    known = {}
    with suppress(OSError):
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if entry.name.endswith(".toml") and stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode):
                known[key_of(entry.name)] = folder / entry.name
    return known


def run_of(studio: Studio, recipe: Path) -> KnownRun:
    """Return the run folder of a recipe, which may not exist yet."""
    name = f"runs/{recipe.stem}"
    return KnownRun(key_of(name), name, studio.folder / name)


def new(studio: Studio, request: Request, form: FormData) -> Response:
    """Show how a run can begin: uploaded files, what is already in the folder, or a data set of the hub."""
    limits: dict[str, Any] = {"files": MOST_FILES, "mebibytes": MOST_UPLOAD_BYTES >> 20, "suffixes": sorted(suffixes())}
    known = [(key, path.name) for key, path in recipes(studio.folder).items()]
    return page("new.html", "New run", sources=list(sources(studio.folder).values()), recipes=known, **limits)


def _new_name(studio: Studio, form: FormData) -> str:
    name = text_of(form, "name", 60).lower()
    if not is_slug(name):
        raise UserError(
            "the run has no usable name", name, "use up to 40 letters, digits and hyphens, such as handbook-2"
        )
    own = (
        f"{name}.toml",
        f"runs/{name}",
        *(path.relative_to(studio.folder).as_posix() for path in _uploads(studio, name)),
    )
    taken = [path for path in own if (studio.folder / path).exists()]
    if taken or studio.jobs.of(key_of(f"{name}.toml")):
        raise UserError(f"the name {name} is taken", ", ".join(taken), f"choose another, such as {name}-2")
    return name


def _uploads(studio: Studio, name: str) -> tuple[Path, Path]:
    """Return the folders of the files and of the exam that were uploaded for a run; no name of a run has a dot."""
    return studio.folder / UPLOADS / name, studio.folder / UPLOADS / f"{name}.exam"


def _init(studio: Studio, name: str, words: list[str], exam: str = "") -> Response:
    recipe = f"{name}.toml"
    words = [*words, *(["--exam", exam] if exam else [])]
    studio.jobs.add("init", key_of(recipe), DESK, ["init", *words, "-o", recipe])
    return redirect(f"/recipe/{key_of(recipe)}")


def _files(form: FormData, field: str) -> list[tuple[str, BinaryIO]]:
    chosen = [item for item in form.getlist(field) if isinstance(item, UploadFile) and item.filename]
    return [(str(item.filename), item.file) for item in chosen]


def upload(studio: Studio, request: Request, form: FormData) -> Response:
    """Store the uploaded files, and let init derive a recipe for them."""
    name = _new_name(studio, form)
    files, exam = _files(form, "files"), _files(form, "exam")[:1]
    folder, exam_folder = _uploads(studio, name)
    folder.parent.mkdir(exist_ok=True)
    stored = store(exam_folder, exam) if exam else []
    try:
        store(folder, files)
    except Exception:
        shutil.rmtree(exam_folder, ignore_errors=True)
        raise
    return _init(studio, name, [f"{UPLOADS}/{name}"], *(f"{UPLOADS}/{exam_folder.name}/{file}" for file in stored))


def from_folder(studio: Studio, request: Request, form: FormData) -> Response:
    """Let init derive a recipe for folders and files that are already there, or for a data set of the hub."""
    name = _new_name(studio, form)
    listed = sources(studio.folder)
    words = [listed[key].name for key in form.getlist("source") if isinstance(key, str) and key in listed]
    if dataset := text_of(form, "dataset", 200):
        words.append(hub_name(dataset))
    if not words:
        raise UserError("nothing was chosen", "", "choose a folder, a file or a data set")
    exam = listed.get(text_of(form, "exam"))
    return _init(studio, name, words, exam.name if exam else "")


def _recipe(studio: Studio, request: Request) -> Path:
    path = recipes(studio.folder).get(request.path_params["key"])
    if path is None:
        raise HTTPException(404, "no recipe of this folder has this address")
    return path


def recipe_page(
    studio: Studio,
    request: Request,
    form: FormData,
    entered: dict[str, str] | None = None,
    errors: dict[str, str] | None = None,
    text: str | None = None,
) -> Response:
    """Show a recipe: what init read and derived, the form, the text, the plan, the preview, and the start."""
    from tunewright.studio import recipe_form

    studio.jobs.move()
    key = request.path_params["key"]
    own = studio.jobs.of(key)
    path = recipes(studio.folder).get(key)
    init = next((job for job in own if job.kind == "init"), None)
    if path is None:
        if init is None:
            raise HTTPException(404, "no recipe of this folder has this address")
        log = safe(log_tail(studio.jobs.log_path(init.id), _LOG_BYTES))
        return page("reading.html", "New run", **job_view(init), log=log, fault=fault_of(log))
    errors = dict(errors or {})
    stored = path.read_text(encoding="utf-8", errors="replace")
    recipe = None
    try:
        recipe = recipe_form.checked(stored, studio.folder)
    except RecipeError as error:
        errors = {**recipe_form.field_errors(error), **errors}
    groups = recipe_form.form_groups(recipe, entered or {}, errors) if recipe else []
    run = run_of(studio, path)
    jobs_of_run = studio.jobs.of(run.key)
    return page(
        "recipe.html",
        path.stem,
        status=422 if errors else 200,
        key=key,
        recipe=path.name,
        groups=groups,
        errors=errors,
        other_errors=[text for name, text in errors.items() if not name],
        text=stored if text is None else text,
        keys=_keys(recipe),
        derived=_init_lines(studio, init),
        lanes=devices(),
        has_documents=recipe is not None and bool(recipe.documents.paths),
        has_run=run.key in studio.runs(),
        of_run=run,
        ingest=finished_stages(run).get("ingest"),
        preview=json_of(run, RunFile.PREVIEW),
        steps=_steps(studio, path, own + jobs_of_run),
        waiting=next((job for job in own + jobs_of_run if job.is_open), None),
    )


def _init_lines(studio: Studio, init: Job | None) -> list[str]:
    """Return what init read and decided, line by line."""
    if init is None:
        return []
    return safe(log_tail(studio.jobs.log_path(init.id), _LOG_BYTES)).strip().splitlines()


def _keys(recipe: Any) -> list[dict[str, str]]:
    """Return the keys that a recipe sends: their names, never their values, and whether they are set here."""
    from tunewright.teacher.keys import recipe_keys

    if recipe is None:
        return []
    return [
        {
            "name": use.name,
            "origin": use.origin,
            "state": use.state,
            "binding": use.binding,
            "is_set": "yes" if os.environ.get(use.name, "").strip() else "no",
        }
        for use in recipe_keys(recipe)
    ]


def _steps(studio: Studio, recipe: Path, jobs: list[Job]) -> dict[str, dict[str, Any]]:
    """Return the latest job of each step before the start, with what it printed; an older recipe's does not count."""
    changed = recipe.stat().st_mtime
    steps: dict[str, dict[str, Any]] = {"doctor": {}, "read": {}, "plan": {}, "preview": {}}
    for kind in steps:
        job = next((job for job in jobs if job.kind == kind), None)
        if job:
            log = safe(log_tail(studio.jobs.log_path(job.id), _LOG_BYTES))
            is_current = job.created >= changed
            steps[kind] = {**job_view(job), "log": log, "fault": fault_of(log), "is_current": is_current}
    return steps


def save_form(studio: Studio, request: Request, form: FormData) -> Response:
    """Write the form's settings into the recipe; a wrong one is shown at its field, and nothing is written."""
    from tunewright.studio import recipe_form

    path = _recipe(studio, request)
    text = path.read_text(encoding="utf-8")
    entered = {name: text_of(form, name) for name in recipe_form.NAMES if name in form}
    try:
        recipe = recipe_form.checked(text, studio.folder)
        changed = recipe_form.changed_values(recipe, entered)
        edited = recipe_form.with_values(text, changed, studio.folder)
    except RecipeError as error:
        return recipe_page(studio, request, form, entered, recipe_form.field_errors(error))
    if changed:
        write_atomic(path, edited.encode())
    return redirect(f"/recipe/{request.path_params['key']}")


def save_text(studio: Studio, request: Request, form: FormData) -> Response:
    """Write the whole recipe as text; one with a fault is shown with it, and is not written."""
    from tunewright.studio import recipe_form

    path = _recipe(studio, request)
    text = text_of(form, "text", _MOST_RECIPE_CHARACTERS) + "\n"
    try:
        recipe_form.checked(text, studio.folder)
    except RecipeError as error:
        errors = recipe_form.field_errors(error)
        errors.setdefault("", error.headline)
        return recipe_page(studio, request, form, None, errors, text)
    write_atomic(path, text.encode())
    return redirect(f"/recipe/{request.path_params['key']}")


_COMMANDS = {
    "doctor": (DESK, ("doctor", "--teacher", "{recipe}")),
    "read": (DESK, ("run", "{recipe}", "--dir", "{run}", "--until", "ingest")),
    "plan": (DESK, ("plan", "{recipe}", "--dir", "{run}")),
    "preview": ("", ("preview", "{recipe}", "--dir", "{run}")),
    "exam": ("", ("run", "{recipe}", "--dir", "{run}", "--until", "exam")),
    "data": ("", ("run", "{recipe}", "--dir", "{run}", "--until", "curate")),
    "run": ("", ("run", "{recipe}", "--dir", "{run}")),
}
_OF_RUN = ("preview", "exam", "data", "run")


def start(studio: Studio, request: Request, form: FormData) -> Response:
    """Start a step of a recipe: the test call, reading, the plan, the preview, the exam alone, or the whole run.

    What costs time or money needs a plan of the recipe as it is: nobody starts hours unseen.
    """
    path, step = _recipe(studio, request), text_of(form, "step")
    if step not in _COMMANDS:
        raise HTTPException(400, "there is no such step")
    run = run_of(studio, path)
    if step in _OF_RUN and not _is_planned(studio, path):
        raise UserError("this recipe has no plan yet", "it may have changed since", "press Plan first, and read it")
    if any(job.is_open for job in studio.jobs.of(run.key)):
        raise UserError("this run already runs or waits", "", "stop it first, or wait for it")
    lane, words = _COMMANDS[step]
    wanted = text_of(form, "lane")
    lane = lane or (wanted if wanted in devices() else devices()[0])
    arguments = [word.format(recipe=path.name, run=run.name) for word in words]
    arguments += _allowed_keys(path, form)
    if step in _OF_RUN:
        _make_run(run)
    kind = "run" if step in ("exam", "data") else step
    subject = run.key if step in _OF_RUN else request.path_params["key"]
    studio.jobs.add(kind, subject, lane, arguments)
    return redirect(f"/run/{run.key}" if kind == "run" else f"/recipe/{request.path_params['key']}#{step}")


def _is_planned(studio: Studio, recipe: Path) -> bool:
    changed = recipe.stat().st_mtime
    plans = [job for job in studio.jobs.of(key_of(recipe.name), 200) if job.kind == "plan"]
    return any(job.exit_code == 0 and job.created >= changed for job in plans)


def _allowed_keys(recipe: Path, form: FormData) -> list[str]:
    """Return the arguments for the keys that the form lets go to their servers."""
    from tunewright.recipe import load_recipe

    bindings = {key["binding"] for key in _keys(load_recipe(recipe)) if key["state"] == "not allowed yet"}
    chosen = [key for key in form.getlist("allow") if isinstance(key, str) and key in bindings]
    return [word for binding in chosen for word in ("--allow-key", binding)]


def _make_run(run: KnownRun) -> None:
    """Make the run's folder, so that its page exists before its command has begun."""
    from tunewright.run_folder import RunFolder

    run.path.parent.mkdir(parents=True, exist_ok=True)
    RunFolder.create(run.path)


def discard(studio: Studio, request: Request, form: FormData) -> Response:
    """Delete a recipe and its uploads as long as nothing was run with it."""
    path = _recipe(studio, request)
    if run_of(studio, path).path.exists():
        raise UserError(f"{path.name} has a run", "its report names the recipe", "delete the run's folder yourself")
    if text_of(form, "sure") != "yes":
        raise UserError("nothing was deleted", "the box was not ticked", "tick it, and press the button again")
    path.unlink()
    for uploads in _uploads(studio, path.stem):
        if uploads.is_dir() and not uploads.is_symlink():
            shutil.rmtree(uploads)
    return redirect("/new")
