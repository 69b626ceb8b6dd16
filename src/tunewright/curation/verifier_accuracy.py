"""Verify the verifier: its sensitivity and specificity, and what a run's samples are worth after its errors."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from tunewright import console
from tunewright.curation.grounding import Claim, unsupported
from tunewright.curation.quantities import quantities
from tunewright.curation.sample_rules import Sources, anchor, claims_of
from tunewright.curation.teacher_checks import judged_claim
from tunewright.errors import RunFolderError, command
from tunewright.recipe import Recipe, load_recipe
from tunewright.records import Chunk, Document, Record, Sample, digest
from tunewright.run_folder import RunFile, RunFolder
from tunewright.settings import EMBEDDED
from tunewright.teacher import open_teacher
from tunewright.teacher.llm_judge import judge
from tunewright.text.normalization import find_quote
from tunewright.text.perturbation import other_number

_NUMBER = re.compile(r"(?<![A-Za-z\d.,])(?<![A-Za-z]-)\d+(?:[.,]\d+)*")


def without_evidence(claim: Claim) -> Claim | None:
    """Return the claim with its evidence cut out of the passage, or None when it is not there, or all there is."""
    place = find_quote(claim.evidence, claim.passage, 100)
    if place is None:
        return None
    start, end, _ = place
    passage = f"{claim.passage[:start].rstrip()} {claim.passage[end:].lstrip()}".strip()
    return replace(claim, passage=passage) if passage else None


def with_other_number(claim: Claim, follow: bool = False) -> Claim | None:
    """Return the claim with one number of its evidence changed in the passage, or None when it has none.

    Args:
        claim: a supported claim.
        follow: the quote follows the passage, so that only the answer still tells the old number; of the numbers of
            the evidence only those that the answer states are changed then.
    """
    place = find_quote(claim.evidence, claim.passage, 100)
    if place is None:
        return None
    start, end, _ = place
    stretch = claim.passage[start:end]
    told = {quantity.value for quantity in quantities(claim.answer)}
    numbers = [
        match
        for match in _NUMBER.finditer(stretch)
        if not follow or {quantity.value for quantity in quantities(match.group())} & told
    ]
    if not numbers:
        return None
    chosen = numbers[int(digest(claim.question, claim.evidence), 16) % len(numbers)]
    number = _other(chosen.group(), claim)
    if number is None:
        return None
    changed = stretch[: chosen.start()] + number + stretch[chosen.end() :]
    passage = claim.passage[:start] + changed + claim.passage[end:]
    return replace(claim, passage=passage, evidence=changed if follow else claim.evidence)


def _other(number: str, claim: Claim) -> str | None:
    """Return another number whose value neither passage, title nor question holds."""
    known = {quantity.value for quantity in quantities(f"{claim.passage}\n{claim.title}\n{claim.question}")}
    return other_number(
        number,
        lambda made: bool({quantity.value for quantity in quantities(made)} & known),
        int(digest(number, claim.question), 16),
    )


_NUM_DRAWS = 2000
_MOST_UNDEFINED = 0.05  # of the draws; above, an interval would hide where the correction breaks down


@dataclass(frozen=True)
class Rate:
    """``num`` of ``total``, with its interval."""

    num: int
    total: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """Return num / total; nan of nothing."""
        return self.num / self.total if self.total else float("nan")


def rate(flags: Iterable[bool], level: float = 0.95) -> Rate:
    """Return the share of flags that are set, with the exact binomial interval (Clopper & Pearson 1934).

    Exact for independent items; items from one document resemble each other, so the truth may lie a little wider.
    """
    from scipy.stats import beta

    given = list(flags)
    num, total, tail = sum(given), len(given), (1 - level) / 2
    low = float(beta.ppf(tail, num, total - num + 1)) if num else 0.0
    high = float(beta.ppf(1 - tail, num + 1, total - num)) if num < total else 1.0
    return Rate(num, total, low, high)


@dataclass(frozen=True)
class Outcome:
    """One item of known truth: its cluster, whether it is supported, and whether the check rejected it."""

    cluster: Hashable
    supported: bool
    rejected: bool


@dataclass(frozen=True)
class Estimate:
    """A share with its interval; None where the correction is undefined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Faithfulness:
    """The share of samples that their passages support, after the check's errors: of all, and of those it accepts.

    ``clipped`` tells that the raw estimate lay outside [0, 1]: the samples are rejected less, or more, than the
    check's own errors explain.
    """

    of_all: Estimate
    of_accepted: Estimate
    clipped: bool


def corrected(
    outcomes: Sequence[Outcome], rejected: Sequence[tuple[Hashable, bool]], seed: int = 0, level: float = 0.95
) -> Faithfulness | None:
    """Return the faithfulness of samples behind a check with known errors, or None where that is undefined.

    Unsupported samples are what the check looks for: with q the share that it rejects, their true share is
    p = (q + spec - 1) / (sens + spec - 1) (Rogan & Gladen 1978), clipped to [0, 1], and faithfulness is 1 - p. Of those
    accepted it is spec (1 - p) / (spec (1 - p) + (1 - sens) p) by Bayes. The percentile intervals come from drawing
    documents anew, of the labeled items and of the samples alike. A check that is no better than chance,
    sens + spec <= 1, corrects nothing; neither is an interval given when more than 5 % of the draws are like that.

    Args:
        outcomes: the check on items of known truth.
        rejected: cluster and verdict of each sample.
        seed: of the draws.
        level: of the intervals.
    """
    labeled = _counts((o.cluster, (o.supported, o.supported and not o.rejected, not o.supported,
                                    not o.supported and o.rejected)) for o in outcomes)  # fmt: skip
    measured = _counts((cluster, (True, verdict)) for cluster, verdict in rejected)
    if not len(labeled) or not len(measured) or not labeled.sum(0)[0] or not labeled.sum(0)[2]:
        return None
    point = _faithfulness(labeled.sum(0)[None], measured.sum(0)[None])
    if np.isnan(point).any():
        return None
    generator = np.random.default_rng(seed)
    draws = _faithfulness(_draw(labeled, generator), _draw(measured, generator))
    defined = draws[~np.isnan(draws).any(axis=1)]
    if len(defined) < (1 - _MOST_UNDEFINED) * _NUM_DRAWS:
        return None
    tail = (1 - level) / 2
    low, high = np.quantile(np.clip(defined[:, :2], 0, 1), [tail, 1 - tail], axis=0)
    of_all, of_accepted = (Estimate(float(np.clip(point[0, i], 0, 1)), float(low[i]), float(high[i])) for i in (0, 1))
    return Faithfulness(of_all, of_accepted, clipped=not 0 <= float(point[0, 2]) <= 1)


def _counts(rows: Iterable[tuple[Hashable, tuple[bool, ...]]]) -> Any:
    """Return one row of sums per cluster."""
    sums: dict[Hashable, Any] = defaultdict(int)
    for cluster, flags in rows:
        sums[cluster] = sums[cluster] + np.array(flags, dtype=float)
    return np.array(list(sums.values()))


def _draw(counts: Any, generator: np.random.Generator) -> Any:
    """Return the sums over as many clusters as there are, drawn with replacement, once per draw."""
    num = len(counts)
    return generator.multinomial(num, np.full(num, 1 / num), size=_NUM_DRAWS) @ counts


def _faithfulness(labeled: Any, measured: Any) -> Any:
    """Return rows of: faithfulness of all, of the accepted, and the raw p; nan where undefined."""
    with np.errstate(divide="ignore", invalid="ignore"):
        spec, sens = labeled[:, 1] / labeled[:, 0], labeled[:, 3] / labeled[:, 2]
        share = measured[:, 1] / measured[:, 0]
        informed = sens + spec - 1
        raw = np.where(informed > 1e-9, (share + spec - 1) / informed, np.nan)
        unsupported = np.clip(raw, 0, 1)
        passing = spec * (1 - unsupported)
        accepted = passing / (passing + (1 - sens) * unsupported)
    # where everything is unsupported and found, nothing is accepted and nothing accepted is wrong
    accepted = np.where(np.isnan(accepted) & ~np.isnan(raw), 1.0, accepted)
    return np.stack([1 - unsupported, accepted, raw], axis=1)


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
    name = next((name for name in (RunFile.SAMPLES, RunFile.TRAIN) if run.file(name).exists()), "")
    if not name:
        raise RunFolderError(
            f"{run.path} has no samples",
            "there is neither samples.jsonl nor train.jsonl",
            command("synth", "RECIPE", "--dir", run.path),
        )
    recipe = load_recipe(run.file(RunFile.RECIPE)) if run.file(RunFile.RECIPE).exists() else Recipe()
    documents = {document.id: document for document in run.records_if_any(RunFile.DOCUMENTS, Document)}
    chunks = {chunk.id: chunk for chunk in run.records_if_any(RunFile.CHUNKS, Chunk)}
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
    if run is None or not run.file(RunFile.RECIPE).exists():
        return None
    recipe = load_recipe(run.file(RunFile.RECIPE))
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
