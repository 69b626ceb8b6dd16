"""The command push: show the files and the card, and send them."""

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
from tunewright.export.stage import TARGETS, export, fault_of_adapter
from tunewright.hub import model_card, upload
from tunewright.hub.bundle import (
    CARD,
    Bundle,
    BundleFile,
    export_bundle,
    exports_of,
    file_of_text,
    file_on_disk,
    weights_bundle,
)
from tunewright.hub.model_card import KINDS, CardRecords
from tunewright.models.hub_errors import endpoint
from tunewright.recipe import Recipe, load_recipe
from tunewright.records import Document, PreferencePair, Sample, SplitEntry
from tunewright.reporting.stage import read_opinions
from tunewright.run_folder import RunFile, RunFolder
from tunewright.statistics.intervals import plain
from tunewright.storage import file_digest

_REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_ADAPTER = "adapter"
_MESSAGE = "Push of a run of tunewright"
_DATA = {RunFile.TRAIN: "curate", RunFile.PAIRS: "pairs"}  # files of the training set and the stages that write them


def push(run: RunFolder, repo: str, to: str, yes: bool, public: bool, with_data: bool) -> None:
    """Show what a push would send; with ``yes`` send it.

    Raises:
        RunFolderError: no verdict, an invalid one, a broken seal, or files that were not evaluated.
        HubError: an invalid name of the repository, or the hub refuses; each says what to do.
    """
    if not _REPO.fullmatch(repo) or ".." in repo or "--" in repo:
        raise HubError(
            f"{repo!r} is not a repository name", "a repository name is OWNER/NAME", "use for example me/my-model"
        )
    pipeline.require(run, RunFile.RECIPE, RunFile.VERDICT)
    recipe = load_recipe(run.file(RunFile.RECIPE))
    verdict = _verdict(run, recipe)
    if to in TARGETS:
        _require_card(to)
        if yes and to != _ADAPTER and not exports_of(run.file(RunFile.EXPORTS), to):
            export(run, to)
    with run.lock():
        data_repo = f"{repo}-data" if with_data else ""
        data = _training_files(run) if with_data else ()
        bundle = _bundle(run, recipe, to)
        ggufs = tuple(file.name for file in bundle.files if file.name.endswith(".gguf"))
        pushed = model_card.Pushed(repo, bundle.kind, bundle.is_evaluated, bundle.parity, ggufs, data_repo)
        records = read_card_records(run)
        text = model_card.model_card(records, recipe, verdict, pushed)
        files = (*bundle.files, file_of_text(CARD, text))
        if data:
            data = (*data, file_of_text(CARD, model_card.data_card(records, recipe, repo, data_repo)))
        _show(repo, "model", files, public)
        if data:
            _show(data_repo, "dataset", data, public)
        if not yes:
            console.data(text)
            console.line(f"\nnothing was sent. To push: {_command(run, repo, to, public, with_data)}")
            return
        if data:
            _send(data_repo, "dataset", data, public)
        _send(repo, "model", files, public)


def _bundle(run: RunFolder, recipe: Recipe, to: str) -> Bundle:
    """Return the files to push, checked now."""
    adapter = run.file(RunFile.ADAPTER)
    if to == _ADAPTER:
        if fault := fault_of_adapter(run, strict=True):
            raise RunFolderError(
                f"{adapter} is not the evaluated one, so it is not pushed", fault, f"rebuild it: {run.again()}"
            )
        return weights_bundle(adapter, read_base(recipe.model.base, recipe.folder))
    bundle = export_bundle(run.file(RunFile.EXPORTS), to, adapter)
    if bundle.kind == _ADAPTER:  # its certificate may be of another base, and its files are not the evaluated ones
        raise RunFolderError(
            f"{run.file(RunFile.EXPORTS) / to} is an export of the adapter, and is not pushed",
            "the adapter in the run folder is the evaluated one",
            "push that adapter: omit --to",
        )
    _require_card(bundle.kind)
    return bundle


def _require_card(kind: str) -> None:
    if kind not in KINDS:
        kinds = ", ".join(name for name in KINDS if name in TARGETS)
        raise RunFolderError(f"no card can be written for an export {kind!r}", "", f"--to takes: {kinds}")


def _training_files(run: RunFolder) -> tuple[BundleFile, ...]:
    """Return the training set's files as curation left them; the exam is never sent, or it could not be used again.

    Raises:
        RunFolderError: a file was changed, or there is none.
    """
    files = []
    for name, stage in _DATA.items():
        recorded = run.stage_record(stage).get("outputs", {}).get(name)
        path = run.file(name)
        if recorded is None and not path.exists():
            continue
        if not path.is_file() or file_digest(path) != recorded:
            raise RunFolderError(
                f"{path} is not what was trained on, so it is not pushed",
                f"it was changed after the stage {stage} wrote it",
                f"rebuild it: {run.again()}",
            )
        if path.stat().st_size:
            files.append(file_on_disk(f"data/{name}", path))
    if not files:
        raise RunFolderError(
            f"{run.path} has no training set to push", "it was trained on raw text alone", "push without --with-data"
        )
    return tuple(files)


def read_card_records(run: RunFolder) -> CardRecords:
    """Return the run's records that its card is written from."""
    labels = (("exam", RunFile.EXAM), ("training set", RunFile.TRAIN), ("trained weights", RunFile.ADAPTER))
    return CardRecords(
        documents=run.records_if_any(RunFile.DOCUMENTS, Document),
        split=run.records_if_any(RunFile.SPLIT, SplitEntry),
        samples=run.records_if_any(RunFile.TRAIN, Sample),
        pairs=run.records_if_any(RunFile.PAIRS, PreferencePair),
        curation=run.stage_record("curate").get("summary", {}),
        digests={label: file_digest(run.file(name)) for label, name in labels if run.file(name).exists()},
    )


def _verdict(run: RunFolder, recipe: Recipe) -> dict[str, object]:
    """Return the content of verdict.json if it may be published, with the opinions of people and of a judge model."""
    if faults := seal_faults(read_seal_state(run), recipe):
        raise RunFolderError(
            f"the seal of {run.path} is broken, so nothing is pushed",
            "; ".join(faults),
            f"undo the change, or rebuild the run: {run.again()}",
        )
    verdict = run.read_record(RunFile.VERDICT, Verdict)
    if verdict.name == "INVALID":
        raise RunFolderError(
            "the verdict is INVALID, so nothing is pushed: the exam does not show what the model is worth",
            " ".join(verdict.why),
            f"fix what it names, then: {run.again()}",
        )
    opinions = read_opinions(run, verdict.results)
    is_measured = {NO_MARKS: opinions.marked, NO_JUDGE: opinions.judged}
    changed = {
        "why": tuple(filter(None, (opinions.disagreement, *verdict.why, _preference(opinions.marked)))),
        "not_measured": tuple(item for item in verdict.not_measured if not is_measured.get(item)),
    }
    return verdict.model_copy(update=changed).model_dump(mode="json")


def _preference(marked: MarkingSummary | None) -> str:
    """Return which arm people preferred; empty where nobody marked answers."""
    if marked is None or marked.preference is None:
        return ""
    first, second = marked.arms
    blind = "blind" if marked.blind else "seeing the arms' names"
    interval = plain(marked.preference)
    return f"People marked {marked.num_questions} questions {blind}: {second} over {first} {interval}, from -1 to 1."


def _show(repo: str, kind: upload.RepoType, files: Sequence[BundleFile], public: bool) -> None:
    visibility = "public: everybody can read it" if public else "private"
    address = f"{endpoint()}/{'datasets/' if kind == 'dataset' else ''}{repo}"
    console.heading(f"{kind} {address} ({visibility})")
    rows = [(file.name, f"{file.size:,}", file.sha256) for file in files]
    total = ("total", f"{sum(file.size for file in files):,}", "")
    console.table("", ("file", "bytes", "SHA-256"), [*rows, total])


def _send(repo: str, kind: upload.RepoType, files: Sequence[BundleFile], public: bool) -> None:
    sent = upload.upload(repo, kind, files, public, _MESSAGE)
    summary = f"{sent.num_sent} file(s) sent" if sent.num_sent else "nothing to send"
    console.line(f"{sent.url}: {summary}, {sent.num_present} already there; the hub's digests are those above")
    if sent.others:
        names = ", ".join(sent.others[:5]) + (" ..." if len(sent.others) > 5 else "")
        console.warning(
            f"{repo} also holds {len(sent.others)} older file(s), which the card does not describe: {names}"
        )


def _command(run: RunFolder, repo: str, to: str, public: bool, with_data: bool) -> str:
    flags = ["--to", to] * (to != _ADAPTER) + ["--public"] * public + ["--with-data"] * with_data
    return command("push", run.path, repo, "--yes", *flags)
