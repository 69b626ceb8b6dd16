"""The command push: what would be sent, the card, and the sending."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tunewright import console, pipeline
from tunewright.annotation.summary import MarkingSummary
from tunewright.errors import HubError, RunFolderError, command
from tunewright.evaluation.seal import seal_faults
from tunewright.evaluation.stage import read_seal_state
from tunewright.evaluation.verdict import NO_JUDGE, NO_MARKS, Verdict
from tunewright.export.base_model import read_base
from tunewright.export.stage import TARGETS, export
from tunewright.hub import model_card, upload
from tunewright.hub.bundle import CARD, File, Parcel, exported, exports_of, of_text, trained_weights, training_data
from tunewright.hub.model_card import KINDS
from tunewright.models.hub_errors import endpoint
from tunewright.recipe import Recipe, load_recipe
from tunewright.reporting.stage import read_opinions
from tunewright.run_folder import RunFile, RunFolder
from tunewright.statistics.intervals import plain

_REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_ADAPTER = "adapter"
_MESSAGE = "Push of a run of tunewright"


def push(run: RunFolder, repo: str, to: str, yes: bool, public: bool, with_data: bool) -> None:
    """Show what a push would send; with ``yes`` send it.

    Raises:
        RunFolderError: no verdict, an invalid one, a broken seal, or files that are not what was examined.
        HubError: no repository's name, or the hub refuses; each says what to do.
    """
    if not _REPO.fullmatch(repo) or ".." in repo or "--" in repo:
        raise HubError(f"{repo!r} is no repository's name", "it is OWNER/NAME", "for example: me/my-model")
    pipeline.require(run, RunFile.RECIPE, RunFile.VERDICT)
    recipe = load_recipe(run.file(RunFile.RECIPE))
    verdict = _verdict(run, recipe)
    if to in TARGETS:
        _require_card(to)
        if yes and to != _ADAPTER and not exports_of(run, to):
            export(run, to)
    with run.lock():
        data_repo = f"{repo}-data" if with_data else ""
        data = training_data(run) if with_data else ()
        parcel = _parcel(run, recipe, to)
        ggufs = tuple(file.name for file in parcel.files if file.name.endswith(".gguf"))
        pushed = model_card.Pushed(repo, parcel.kind, parcel.is_examined, parcel.parity, ggufs, data_repo)
        text = model_card.model_card(run, recipe, verdict, pushed)
        files = (*parcel.files, of_text(CARD, text))
        data_files = (*data, of_text(CARD, model_card.data_card(run, recipe, repo, data_repo))) if data else ()
        _show(repo, "model", files, public)
        if data_files:
            _show(data_repo, "dataset", data_files, public)
        if not yes:
            console.data(text)
            console.line(
                f"\nnothing was sent; this was a look at it. To push: {_command(run, repo, to, public, with_data)}"
            )
            return
        if data_files:
            _send(data_repo, "dataset", data_files, public)
        _send(repo, "model", files, public)


def _parcel(run: RunFolder, recipe: Recipe, to: str) -> Parcel:
    """Return what is to be pushed, checked right now."""
    if to == _ADAPTER:
        return trained_weights(run, read_base(recipe.model.base, recipe.folder))
    parcel = exported(run, to)
    if parcel.kind == _ADAPTER:  # its certificate may be of another base, and its files are not those of the exam
        raise RunFolderError(
            f"{run.file('exports') / to} is an export of the adapter, and is not pushed",
            "the adapter in the run folder is the one that sat the exam",
            "push that one: leave --to out",
        )
    _require_card(parcel.kind)
    return parcel


def _require_card(kind: str) -> None:
    if kind not in KINDS:
        told = ", ".join(name for name in KINDS if name in TARGETS)
        raise RunFolderError(f"no card can be written for an export {kind!r}", "", f"--to takes: {told}")


def _verdict(run: RunFolder, recipe: Recipe) -> dict[str, object]:
    """Return the content of verdict.json when it may be published, with what people and a judge said since."""
    if faults := seal_faults(read_seal_state(run), recipe):
        raise RunFolderError(
            f"the seal of {run.path} is broken, so nothing is pushed",
            "; ".join(faults),
            f"undo the change, or make it anew: {run.again()}",
        )
    verdict = Verdict.model_validate_json(run.file(RunFile.VERDICT).read_text(encoding="utf-8"))
    if verdict.name == "INVALID":
        raise RunFolderError(
            "the verdict is INVALID, so nothing is pushed: nobody could say what the model is worth",
            " ".join(verdict.why),
            f"mend what it names, then: {run.again()}",
        )
    opinions = read_opinions(run, verdict.results)
    measured = {NO_MARKS: opinions.marked, NO_JUDGE: opinions.judged}
    changed = {
        "why": tuple(filter(None, (opinions.disagreement, *verdict.why, _people(opinions.marked)))),
        "not_measured": tuple(item for item in verdict.not_measured if not measured.get(item)),
    }
    return verdict.model_copy(update=changed).model_dump(mode="json")


def _people(marked: MarkingSummary | None) -> str:
    """Return whom people preferred, or nothing where nobody marked."""
    if marked is None or marked.preference is None:
        return ""
    first, second = marked.arms
    blind = "blind" if marked.blind else "seeing the arms' names"
    told = plain(marked.preference)
    return f"People marked {marked.num_questions} questions {blind}: {second} over {first} {told}, from -1 to 1."


def _show(repo: str, kind: upload.RepoType, files: Sequence[File], public: bool) -> None:
    who = "public: everybody can read it" if public else "private"
    place = f"{endpoint()}/{'datasets/' if kind == 'dataset' else ''}{repo}"
    console.heading(f"{kind} {place} ({who})")
    rows = [(file.name, f"{file.size:,}", file.sha256) for file in files]
    total = ("together", f"{sum(file.size for file in files):,}", "")
    console.table("", ("file", "bytes", "SHA-256"), [*rows, total])


def _send(repo: str, kind: upload.RepoType, files: Sequence[File], public: bool) -> None:
    pushed = upload.upload(repo, kind, files, public, _MESSAGE)
    told = f"{pushed.num_sent} file(s) sent" if pushed.num_sent else "nothing to send"
    console.line(f"{pushed.url}: {told}, {pushed.num_there} there already; the hub's digests are those above")
    if pushed.others:
        shown = ", ".join(pushed.others[:5]) + (" ..." if len(pushed.others) > 5 else "")
        console.warning(
            f"{repo} also holds {len(pushed.others)} file(s) of earlier, which the card is not about: {shown}"
        )


def _command(run: RunFolder, repo: str, to: str, public: bool, with_data: bool) -> str:
    flags = ["--to", to] * (to != _ADAPTER) + ["--public"] * public + ["--with-data"] * with_data
    return command("push", run.path, repo, "--yes", *flags)
