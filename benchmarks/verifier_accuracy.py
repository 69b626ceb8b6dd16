"""The accuracy of the verifiers: sensitivity and specificity on labeled claims, and what follows for a run's samples.

    python benchmarks/verifier_accuracy.py [RUN] [--judge RECIPE]

Without RUN, the free rules are measured on the labeled claims alone (labeled_claims.jsonl; labeled_claims.md says how
they were made). With RUN, they are also measured on copies of its samples whose evidence is deleted or whose number is
changed, and the share of its samples that their passages support is estimated. A judge is measured as well when there
is one: the teacher of RECIPE, or else of the run's own recipe.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tunewright import console
from tunewright.curation.grounding import Claim, claim_fault
from tunewright.curation.sample_rules import SampleSources, anchor_evidence, claims_of
from tunewright.curation.teacher_checks import judged_claim
from tunewright.errors import RunFolderError, TunewrightError, command
from tunewright.recipe import Recipe, load_recipe
from tunewright.records import Chunk, Document, Record, Sample, digest
from tunewright.run_folder import RunFile, RunFolder
from tunewright.settings import EMBEDDED
from tunewright.statistics.agreement import ExactShare, exact_share
from tunewright.teacher import open_teacher
from tunewright.teacher.llm_judge import judge_support
from tunewright.text.normalization import find_quote
from tunewright.text.perturbation import other_number
from tunewright.text.quantities import quantities

LABELED_CLAIMS = Path(__file__).parent / "labeled_claims.jsonl"
_STAGE = "verify-the-verifier"  # of the judge's calls in a run's journal
_NUMBER = re.compile(r"(?<![A-Za-z\d.,])(?<![A-Za-z]-)\d+(?:[.,]\d+)*")


def without_evidence(claim: Claim) -> Claim | None:
    """Return the claim with its evidence cut out of the passage, or None where the evidence is missing or the whole passage."""
    match = find_quote(claim.evidence, claim.passage, 100)
    if match is None:
        return None
    start, end, _ = match
    passage = f"{claim.passage[:start].rstrip()} {claim.passage[end:].lstrip()}".strip()
    return replace(claim, passage=passage) if passage else None


def with_other_number(claim: Claim, quote_follows: bool = False) -> Claim | None:
    """Return the claim with one number of its evidence changed in the passage, or None when it has none.

    Args:
        claim: a supported claim.
        quote_follows: change the quote too, so that only the answer still has the old number. Only numbers that the
            answer states are changed then.
    """
    match = find_quote(claim.evidence, claim.passage, 100)
    if match is None:
        return None
    start, end, _ = match
    quote = claim.passage[start:end]
    answered = _values(claim.answer)
    numbers = [match for match in _NUMBER.finditer(quote) if not quote_follows or _values(match.group()) & answered]
    if not numbers:
        return None
    chosen = numbers[int(digest(claim.question, claim.evidence), 16) % len(numbers)]
    number = _other_number(chosen.group(), claim)
    if number is None:
        return None
    changed = quote[: chosen.start()] + number + quote[chosen.end() :]
    passage = claim.passage[:start] + changed + claim.passage[end:]
    return replace(claim, passage=passage, evidence=changed if quote_follows else claim.evidence)


def _other_number(number: str, claim: Claim) -> str | None:
    """Return another number whose value occurs in neither passage, title nor question."""
    taken = _values(f"{claim.passage}\n{claim.title}\n{claim.question}")
    return other_number(number, lambda made: bool(_values(made) & taken), int(digest(number, claim.question), 16))


def _values(text: str) -> set[str]:
    return {quantity.value for quantity in quantities(text)}


_NUM_DRAWS = 2000
_MOST_UNDEFINED = 0.05  # of the draws; above, an interval would hide where the correction breaks down


def share_of(flags: Iterable[bool]) -> ExactShare:
    """Return the share of the flags that are set, with its exact binomial interval.

    It is exact for independent items. Items of one document resemble each other, so the true interval may be wider.
    """
    flags = list(flags)
    return exact_share(sum(flags), len(flags))


@dataclass(frozen=True)
class Outcome:
    """An item of known truth: its cluster, whether it is supported, and whether the verifier rejected it."""

    cluster: Hashable
    supported: bool
    rejected: bool


@dataclass(frozen=True)
class Estimate:
    """A share with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class CorrectedFaithfulness:
    """The share of samples that their passages support, corrected for the verifier's errors: of all and of the accepted.

    ``clipped``: the raw estimate lay outside [0, 1], for the samples are rejected less, or more, than the verifier's own
    errors explain.
    """

    of_all: Estimate
    of_accepted: Estimate
    clipped: bool


def corrected(
    outcomes: Sequence[Outcome], rejected: Sequence[tuple[Hashable, bool]], seed: int = 0, level: float = 0.95
) -> CorrectedFaithfulness | None:
    """Return the faithfulness of samples after a verifier with known errors, or None where it is undefined.

    The verifier looks for unsupported samples. With q the share that it rejects, their true share is
    p = (q + spec - 1) / (sens + spec - 1) (Rogan & Gladen 1978), clipped to [0, 1], and faithfulness is 1 - p. Among the
    accepted it is spec (1 - p) / (spec (1 - p) + (1 - sens) p) by Bayes. The percentile intervals resample the documents
    of the labeled items and of the samples. A verifier no better than chance (sens + spec <= 1) corrects nothing; no
    interval is given either when more than 5 % of the draws are like that.

    Args:
        outcomes: the verifier on items of known truth.
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
    return CorrectedFaithfulness(of_all, of_accepted, clipped=not 0 <= float(point[0, 2]) <= 1)


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
    # Where everything is unsupported and rejected, nothing is accepted, and so nothing accepted is wrong.
    accepted = np.where(np.isnan(accepted) & ~np.isnan(raw), 1.0, accepted)
    return np.stack([1 - unsupported, accepted, raw], axis=1)


# Returns True for "rejected", False for "accepted", None for no verdict.
Verifier = Callable[[Sequence[Claim]], list[bool | None]]


class LabeledClaim(Record):
    """A labeled claim: whether its passage supports it, and how it was made."""

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
        """Return the claim that a verifier checks."""
        return Claim(self.question, self.answer, self.evidence, self.passage)


@dataclass(frozen=True)
class Case:
    """A claim of known truth, with its kind and the document that it comes from."""

    claim: Claim
    supported: bool
    kind: str
    document: str


def read_labeled() -> list[LabeledClaim]:
    """Return the labeled claims."""
    return [LabeledClaim.model_validate_json(line) for line in LABELED_CLAIMS.read_text(encoding="utf-8").splitlines()]


def labeled_cases() -> list[Case]:
    """Return the labeled claims as cases."""
    return [Case(item.claim, item.supported, item.kind, item.source) for item in read_labeled()]


def run_claims(run: RunFolder) -> list[tuple[str, Claim]]:
    """Return document and claim of each answered sample of a run: of samples.jsonl, else of train.jsonl.

    Raises:
        RunFolderError: the folder holds no samples.
    """
    name = next((name for name in (RunFile.SAMPLES, RunFile.TRAIN) if run.file(name).exists()), "")
    if not name:
        raise RunFolderError(
            f"{run.path} has no samples",
            f"there is neither {RunFile.SAMPLES} nor {RunFile.TRAIN}",
            command("run", "RECIPE", "--until", "synth", "--dir", run.path),
        )
    recipe = load_recipe(run.file(RunFile.RECIPE)) if run.file(RunFile.RECIPE).exists() else Recipe()
    documents = {document.id: document for document in run.records_if_any(RunFile.DOCUMENTS, Document)}
    chunks = {chunk.id: chunk for chunk in run.records_if_any(RunFile.CHUNKS, Chunk)}
    sources = SampleSources(recipe, documents, chunks)
    anchored = [anchor_evidence(sample, sources) or sample for sample in run.read_records(name, Sample)]
    return [(sample.document or "", claim) for sample in anchored for claim in claims_of(sample, sources)]


def perturbed_cases(claims: Iterable[tuple[str, Claim]]) -> list[Case]:
    """Return unsupported copies of the claims that the free verifier accepts.

    Without the evidence, with a number changed in the passage, and with that number changed in the quote as well.
    """
    cases = []
    for document, claim in claims:
        if claim_fault(claim):
            continue
        for kind, copy in (
            ("evidence deleted", without_evidence(claim)),
            ("number changed", with_other_number(claim)),
            ("number changed, quote follows", with_other_number(claim, quote_follows=True)),
        ):
            if copy:
                cases.append(Case(copy, False, kind, document))
    return cases


def free(claims: Sequence[Claim]) -> list[bool | None]:
    """Return the free verifier's verdicts."""
    return [claim_fault(claim) is not None for claim in claims]


def measure_verifiers(folder: Path | None, recipe_path: Path | None) -> None:
    """Print how good the free rules are, how good the judge is when there is one, and a run's faithfulness.

    The judge is the teacher of ``recipe_path``, or else of the run's own recipe unless that is the embedded model, which
    is too small to judge. Its calls are journaled in the run folder; without one, in the recipe's own.

    Raises:
        UserError: the folder is no run folder or has no samples, or the recipe's teacher is wrong.
        TeacherError: the judge cannot be used; its verdicts so far are kept.
    """
    run = RunFolder.open(folder) if folder else None
    claims = run_claims(run) if run else []
    measure("free rules", free, claims, perturbed_cases(claims))
    console.line("The free rules check words, numbers and names. A wrong relation between true parts passes them.")
    recipe = _judge_recipe(run, recipe_path)
    if recipe is None:
        console.line("To measure a judge as well, add --judge RECIPE, with a strong model in its [teacher].")
        return
    journal_run = run or RunFolder.create(Path("runs") / (recipe_path or Path("verifier")).stem)
    with (
        journal_run.lock(),
        open_teacher(journal_run.journal(RunFile.TEACHER_JOURNAL), recipe.teacher, _STAGE) as teacher,
    ):

        def by_judge(claims: Sequence[Claim]) -> list[bool | None]:
            findings = judge_support([judged_claim(claim) for claim in claims], teacher, recipe.seed)
            return [None if finding is None else finding != "supported" for finding in findings]

        measure("judge", by_judge, claims, ())


def _judge_recipe(run: RunFolder | None, path: Path | None) -> Recipe | None:
    if path:
        return load_recipe(path).with_absolute_paths()
    if run is None or not run.file(RunFile.RECIPE).exists():
        return None
    recipe = load_recipe(run.file(RunFile.RECIPE))
    return None if recipe.teacher.url == EMBEDDED else recipe


def measure(name: str, verifier: Verifier, claims: Sequence[tuple[str, Claim]], perturbed: Sequence[Case]) -> None:
    """Print a verifier's table on the labeled claims and on perturbed copies, then the faithfulness of the claims."""
    cases = labeled_cases()
    outcomes = _show_rates(f"{name} on the labeled claims", cases, verifier([case.claim for case in cases]))
    if perturbed:
        _show_rates(f"{name} on copies of your samples", perturbed, verifier([case.claim for case in perturbed]))
    if not claims:
        return
    verdicts = verifier([claim for _, claim in claims])
    decided = [
        (document, verdict) for (document, _), verdict in zip(claims, verdicts, strict=True) if verdict is not None
    ]
    _show_faithfulness(name, outcomes, decided, len(verdicts) - len(decided))


def _show_rates(title: str, cases: Sequence[Case], verdicts: Sequence[bool | None]) -> list[Outcome]:
    """Print sensitivity and specificity, overall and by kind; return the outcomes."""
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
        rows.append((f"  {label}" if kind else label, *_cells(share_of(groups[supported, kind]))))
    if len(outcomes) < len(cases):
        rows.append(("no verdict", f"{len(cases) - len(outcomes)} of {len(cases)}", "", ""))
    console.table(title, ("", "right", "share", "95 % interval"), rows)
    return outcomes


def _cells(right: ExactShare) -> tuple[str, str, str]:
    return f"{right.num} of {right.of}", _percent(right), f"{right.low:.1%} to {right.high:.1%}"


def _percent(share: ExactShare) -> str:
    return "" if share.share is None else f"{share.share:.1%}"


def _show_faithfulness(
    name: str, outcomes: Sequence[Outcome], verdicts: Sequence[tuple[str, bool]], num_without: int
) -> None:
    """Print the share rejected, and the share supported after correction for the verifier's errors."""
    if not verdicts:
        console.warning(f"{name}: no sample got a verdict")
        return
    share = share_of(verdict for _, verdict in verdicts)
    console.line(f"{name}: {share.num} of {share.of} answered samples rejected ({_percent(share)})")
    if num_without:
        console.line(f"  {num_without} samples without a verdict are not counted")
    estimate = corrected(outcomes, verdicts)
    if estimate is None:
        console.line(
            "  corrected faithfulness: undefined; on the labeled claims, sensitivity + specificity is not surely"
        )
        console.line("  above 1, so this verifier does not separate supported from unsupported well enough")
        return
    console.line(f"  faithful, corrected for its errors: {_interval(estimate.of_all)} of these samples")
    console.line(f"  faithful, of those that it accepts: {_interval(estimate.of_accepted)}")
    if estimate.clipped:
        _show_clipped(outcomes, verdicts)
    console.line(
        "  This holds if the errors in your samples are of the same kinds, and as hard to see, as those of the"
    )
    console.line("  labeled claims. Where they differ, label some samples of your own.")


def _show_clipped(outcomes: Sequence[Outcome], verdicts: Sequence[tuple[str, bool]]) -> None:
    """Print what an estimate beyond 0 or 100 % means, and the estimate when every rejection counts as right."""
    console.line(
        "  Clipped to 0 to 100 %: the share rejected does not fit the error rates on the labeled claims, so your"
    )
    console.line("  samples are easier or harder than they are. Do not rely on the interval above.")
    trusting = [replace(outcome, rejected=outcome.rejected and not outcome.supported) for outcome in outcomes]
    estimate = corrected(trusting, verdicts)
    if estimate and not estimate.clipped:
        console.line(f"  faithful, if none of its rejections were a false alarm: {_interval(estimate.of_all)}")


def _interval(estimate: Estimate) -> str:
    return f"{estimate.value:.1%} ({estimate.low:.1%} to {estimate.high:.1%})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "run", metavar="RUN", nargs="?", type=Path, help="also measure on the samples of this run folder"
    )
    parser.add_argument("--judge", metavar="RECIPE", type=Path, help="measure the teacher of this recipe as a judge")
    arguments = parser.parse_args()
    try:
        measure_verifiers(arguments.run, arguments.judge)
    except TunewrightError as error:
        console.error(error)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
