"""Verify the verifier: its sensitivity and specificity, and what a run's samples are worth after its errors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

from tunewright import console
from tunewright.curation.by_teacher import judged_claim
from tunewright.curation.perturb import with_other_number, without_evidence
from tunewright.curation.rates import Estimate, Outcome, Rate, corrected, rate
from tunewright.curation.rules import Sources, anchor, claims_of
from tunewright.curation.verify import Claim, unsupported
from tunewright.errors import RunFolderError, command
from tunewright.recipe import Recipe, load_recipe
from tunewright.records import Chunk, Document, Record, Sample
from tunewright.rundir import RunFolder
from tunewright.settings import EMBEDDED
from tunewright.teacher import open_teacher
from tunewright.teacher.judging import judge

_STAGE = "verify-the-verifier"

# Returns True for "rejected", False for "accepted", None for no verdict.
Verifier = Callable[[Sequence[Claim]], list[bool | None]]


class Labeled(Record):
    """One item of the labeled set: a claim, whether its passage supports it, and how it was made."""

    id: str
    passage: str
    question: str
    answer: str
    evidence: str
    supported: bool
    kind: str
    source: str

    @property
    def claim(self) -> Claim:
        """Return what a verifier is given."""
        return Claim(self.question, self.answer, self.evidence, self.passage)


@dataclass(frozen=True)
class Case:
    """A claim of known truth, with its kind and the document that it comes from."""

    claim: Claim
    supported: bool
    kind: str
    document: str


def read_labeled() -> list[Labeled]:
    """Return the labeled set that is part of this package (labelled.jsonl; labelled.md says how it was made)."""
    text = files("tunewright.curation").joinpath("labelled.jsonl").read_text(encoding="utf-8")
    return [Labeled.model_validate_json(line) for line in text.splitlines()]


def labeled_cases() -> list[Case]:
    """Return the labeled set as cases."""
    return [Case(item.claim, item.supported, item.kind, item.source) for item in read_labeled()]


def run_claims(run: RunFolder) -> list[tuple[str, Claim]]:
    """Return document and claim of each answered sample of a run: as written, else as they are trained on.

    Raises:
        RunFolderError: the folder holds no samples.
    """
    name = next((name for name in ("samples.jsonl", "train.jsonl") if run.file(name).exists()), "")
    if not name:
        raise RunFolderError(
            f"{run.path} has no samples",
            "there is neither samples.jsonl nor train.jsonl",
            command("synth", "RECIPE", "--dir", run.path),
        )
    recipe = load_recipe(run.file("recipe.toml")) if run.file("recipe.toml").exists() else Recipe()
    documents = {document.id: document for document in run.records_if_any("documents.jsonl", Document)}
    chunks = {chunk.id: chunk for chunk in run.records_if_any("chunks.jsonl", Chunk)}
    sources = Sources(recipe, documents, chunks)
    anchored = [anchor(sample, sources) or sample for sample in run.read_records(name, Sample)]
    return [(sample.document or "", claim) for sample in anchored for claim in claims_of(sample, sources)]


def perturbed_cases(claims: Iterable[tuple[str, Claim]]) -> list[Case]:
    """Return unsupported copies of the claims that the free verifier accepts.

    Without the evidence, with a number changed in the passage, and with that number changed in the quote as well.
    """
    cases = []
    for document, claim in claims:
        if unsupported(claim):
            continue
        for kind, copy in (
            ("evidence deleted", without_evidence(claim)),
            ("number changed", with_other_number(claim)),
            ("number changed, quote follows", with_other_number(claim, follow=True)),
        ):
            if copy:
                cases.append(Case(copy, False, kind, document))
    return cases


def free(claims: Sequence[Claim]) -> list[bool | None]:
    """Return the free verifier's verdicts."""
    return [unsupported(claim) is not None for claim in claims]


def verify_the_verifier(folder: Path | None, recipe_path: Path | None, default_folder: Path) -> None:
    """Print how good the free verifier is, how good the judge is when there is one, and a run's faithfulness.

    The judge is the teacher of ``recipe_path``, else of the run's own recipe unless that is the embedded model, which
    is too small to judge. Its calls are journaled in the run folder, or in ``default_folder`` when there is none.

    Raises:
        UserError: the folder is no run folder or has no samples, or the recipe's teacher is wrong.
        TeacherError: the judge cannot be used; its verdicts so far are kept.
    """
    run = RunFolder.open(folder) if folder else None
    claims = run_claims(run) if run else []
    measure("free rules", free, claims, perturbed_cases(claims))
    console.line("Free rules read words, numbers and names. A wrong relation between true parts passes them.")
    recipe = _judging_recipe(run, recipe_path)
    if recipe is None:
        console.line("To measure a judge as well: --judge RECIPE, with a strong model in its [teacher].")
        return
    home = run or RunFolder.create(default_folder)
    with home.lock(), open_teacher(home, recipe.teacher, _STAGE) as teacher:

        def by_judge(claims: Sequence[Claim]) -> list[bool | None]:
            findings = judge([judged_claim(claim) for claim in claims], teacher, recipe.seed)
            return [None if finding is None else finding != "supported" for finding in findings]

        measure("judge", by_judge, claims, ())


def _judging_recipe(run: RunFolder | None, path: Path | None) -> Recipe | None:
    if path:
        return load_recipe(path).with_absolute_paths()
    if run is None or not run.file("recipe.toml").exists():
        return None
    recipe = load_recipe(run.file("recipe.toml"))
    return None if recipe.teacher.url == EMBEDDED else recipe


def measure(name: str, verifier: Verifier, claims: Sequence[tuple[str, Claim]], perturbed: Sequence[Case]) -> None:
    """Print one verifier's table on the labeled set and on perturbed copies, then the faithfulness of the claims."""
    cases = labeled_cases()
    outcomes = _show_rates(f"{name} on the labeled set", cases, verifier([case.claim for case in cases]))
    if perturbed:
        _show_rates(f"{name} on copies of your samples", perturbed, verifier([case.claim for case in perturbed]))
    if not claims:
        return
    verdicts = verifier([claim for _, claim in claims])
    known = [
        (document, verdict) for (document, _), verdict in zip(claims, verdicts, strict=True) if verdict is not None
    ]
    _show_faithfulness(name, outcomes, known, len(verdicts) - len(known))


def _show_rates(title: str, cases: Sequence[Case], verdicts: Sequence[bool | None]) -> list[Outcome]:
    """Print sensitivity and specificity, in all and by kind; return the outcomes."""
    groups: dict[tuple[bool, str], list[bool]] = defaultdict(list)
    outcomes = []
    for case, verdict in zip(cases, verdicts, strict=True):
        if verdict is None:
            continue
        outcomes.append(Outcome(case.document, case.supported, verdict))
        for kind in ("", case.kind):
            groups[case.supported, kind].append(verdict != case.supported)
    rows = []
    for supported, kind in sorted(groups):
        label = kind or (
            "specificity: supported and accepted" if supported else "sensitivity: unsupported and rejected"
        )
        rows.append((f"  {label}" if kind else label, *_cells(rate(groups[supported, kind]))))
    if len(outcomes) < len(cases):
        rows.append(("no verdict", f"{len(cases) - len(outcomes)} of {len(cases)}", "", ""))
    console.table(title, ("", "right", "share", "95 % interval"), rows)
    return outcomes


def _cells(found: Rate) -> tuple[str, str, str]:
    return f"{found.num} of {found.total}", f"{found.share:.1%}", f"{found.low:.1%} to {found.high:.1%}"


def _show_faithfulness(
    name: str, outcomes: Sequence[Outcome], verdicts: Sequence[tuple[str, bool]], num_without: int
) -> None:
    """Print the share rejected, and what it says about the samples once the verifier's errors are taken out."""
    if not verdicts:
        console.warning(f"{name}: no sample got a verdict")
        return
    share = rate(verdict for _, verdict in verdicts)
    console.line(f"{name}: {share.num} of {share.total} answered samples rejected ({share.share:.1%})")
    if num_without:
        console.line(f"  {num_without} samples without a verdict are left out of this share")
    found = corrected(outcomes, verdicts)
    if found is None:
        console.line("  corrected faithfulness: undefined, for on the labeled set sensitivity + specificity is not")
        console.line("  surely above 1: this verifier does not tell supported from unsupported well enough")
        return
    console.line(f"  faithful, corrected for its errors: {_told(found.of_all)} of these samples")
    console.line(f"  faithful, of those that it accepts: {_told(found.of_accepted)}")
    if found.clipped:
        _show_edge(outcomes, verdicts)
    console.line("  This holds as far as the errors in your samples are of the kinds, and as hard to see, as those of")
    console.line("  the labeled set. Where they differ, label some of your own.")


def _show_edge(outcomes: Sequence[Outcome], verdicts: Sequence[tuple[str, bool]]) -> None:
    """Say what an estimate beyond 0 or 100 % means, and what is left when every rejection counts as right."""
    console.line("  Set to the edge of 0 to 100 %, for the share rejected does not fit the errors on the labeled set:")
    console.line("  your samples are easier or harder than its items. Do not lean on the interval above.")
    trusting = [replace(outcome, rejected=outcome.rejected and not outcome.supported) for outcome in outcomes]
    found = corrected(trusting, verdicts)
    if found and not found.clipped:
        console.line(f"  faithful, if none of its rejections were a false alarm: {_told(found.of_all)}")


def _told(estimate: Estimate) -> str:
    return f"{estimate.value:.1%} ({estimate.low:.1%} to {estimate.high:.1%})"
