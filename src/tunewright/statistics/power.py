"""The minimum detectable effect of an exam, known before any training."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

LEAST_QUESTIONS, LEAST_DOCUMENTS = 10, 5  # of an exam that can give a verdict
# Stated guesses, for an exam that no arm has answered yet. In runs of the bundled example, paired differences of the
# primary score have a standard deviation of 0.23 to 0.40; questions on one document resemble each other.
EXPECTED_SD = 0.4
EXPECTED_ICC = 0.3
POWER = 0.8
EXPECTED_DISCORDANCE = 0.1  # also a guess: the share of retention items that training turns right or wrong


def t_quantile(level: float, df: float) -> float:
    """Return the two-sided critical value of Student's t; of the normal distribution where df is infinite."""
    from scipy.special import ndtri, stdtrit

    return float(ndtri(0.5 + level / 2) if math.isinf(df) else stdtrit(df, 0.5 + level / 2))


def noncentrality(df: float, power: float = POWER, level: float = 0.95) -> float:
    """Return the true effect, in standard errors, that a two-sided t-test detects with the given power.

    With infinite df it is z_(alpha/2) + z_beta, as for large samples.
    """
    from scipy.special import nctdtrinc, ndtri

    critical = t_quantile(level, df)
    return critical + float(ndtri(power)) if math.isinf(df) else float(nctdtrinc(df, 1 - power, critical))


def design_effect(sizes: Sequence[int], icc: float) -> float:
    """Return the factor by which clusters inflate the variance of a mean: 1 + (sum m^2 / n - 1) * icc (Kish 1965).

    Args:
        sizes: questions of each document.
        icc: correlation of two differences of the same document.
    """
    return 1 + (sum(size * size for size in sizes) / sum(sizes) - 1) * icc


def detectable(
    sd: float, num_questions: int, num_clusters: int, icc: float, power: float = POWER, level: float = 0.95
) -> float:
    """Return the smallest true mean difference that an exam with equally large documents detects.

    The variance is inflated by Kish's design effect, 1 + (n / G - 1) * icc; the test has G - 1 degrees of
    freedom.

    Args:
        sd: standard deviation of the paired differences, in score units.
        num_questions: n, in all.
        num_clusters: G, documents; at least 2.
        icc: correlation of two differences of the same document.
        power: chance of detecting it.
        level: confidence level of the test.
    """
    error = sd * math.sqrt((1 + (num_questions / num_clusters - 1) * icc) / num_questions)
    return noncentrality(num_clusters - 1, power, level) * error


def detectable_on(
    sizes: Sequence[int], sd: float = EXPECTED_SD, icc: float = EXPECTED_ICC, power: float = POWER, level: float = 0.95
) -> float:
    """Return the smallest true mean difference that an exam detects; infinite on fewer than two documents.

    Args:
        sizes: questions of each document.
        sd: standard deviation of the paired differences, in score units.
        icc: correlation of two differences of the same document.
        power: chance of detecting it.
        level: confidence level of the test.
    """
    if len(sizes) < 2:
        return math.inf
    error = sd * math.sqrt(design_effect(sizes, icc) / sum(sizes))
    return noncentrality(len(sizes) - 1, power, level) * error


def detectable_unclustered(variance: float, num_questions: int, power: float = POWER, level: float = 0.95) -> float:
    """Return the smallest true mean difference of many independent questions, by the normal distribution.

    Miller (2024, arXiv:2411.00640), equation 10 solved for the effect.

    Args:
        variance: of one question's paired difference.
        num_questions: n.
        power: chance of detecting it.
        level: confidence level of the test.
    """
    return noncentrality(math.inf, power, level) * math.sqrt(variance / num_questions)


def questions_for(
    effect: float,
    variance: float,
    per_document: float = 1,
    icc: float = 0.0,
    power: float = POWER,
    level: float = 0.95,
    large: bool = False,
) -> int:
    """Return the fewest questions that show an effect with the given power.

    Args:
        effect: true mean difference.
        variance: of one question's paired difference.
        per_document: questions on each document; the documents are n divided by it.
        icc: correlation of two differences of the same document.
        power: chance of detecting it.
        level: confidence level of the test.
        large: use the normal in place of the t distribution, as published tables do (Miller 2024, equation 9).
    """
    inflated = variance * (1 + (per_document - 1) * icc)
    num_questions = math.ceil(inflated * (noncentrality(math.inf, power, level) / effect) ** 2)
    if large:
        return num_questions
    # The t distribution needs more questions than the normal; the need falls as documents are added, so this ends.
    num_questions = max(num_questions, math.ceil(2 * per_document))
    while noncentrality(num_questions / per_document - 1, power, level) * math.sqrt(inflated / num_questions) > effect:
        num_questions += 1
    return num_questions


def question_counts(documents: Iterable[str]) -> list[int]:
    """Return the number of questions on each document, given the document of each question."""
    return list(Counter(documents).values())


def exam_power(sizes: Sequence[int]) -> str:
    """Return in one line the smallest difference that an exam can prove, and what would lower it.

    Args:
        sizes: questions of each document.
    """
    exam = f"the exam: {sum(sizes):,} question(s) on {len(sizes):,} document(s)"
    if len(sizes) < 2:
        return f"{exam}; questions on a single document prove nothing about others: ask about more documents"
    spread = [half for size in sizes for half in ((size + 1) // 2, size // 2) if half]
    if len(sizes) < LEAST_DOCUMENTS or sum(sizes) < LEAST_QUESTIONS:
        least = f"{LEAST_QUESTIONS} questions on {LEAST_DOCUMENTS} documents"
        return f"{exam}; below {least} the verdict is INVALID: add documents, or ask more of each"
    ways = [
        ("twice the documents", [*sizes, *sizes]),
        ("as many questions on more documents", spread),
        ("twice the questions on these", [2 * size for size in sizes]),
    ]
    if len(spread) == len(sizes):  # already one question per document
        ways.pop(1)
    lower = ", ".join(f"{detectable_on(changed):.2f} with {name}" for name, changed in ways)
    return (
        f"{exam} can prove a difference of {detectable_on(sizes):.2f} in score with {POWER:.0%} power "
        f"(spread {EXPECTED_SD}, ICC {EXPECTED_ICC} guessed); {lower}: more documents before more questions"
    )


def retention_power(num_items: int, margin: float, level: float = 0.95) -> str:
    """Return in one line the smallest loss that the retention suite can rule out.

    Where base and tuned differ on a share d of n items and equally often either way, the interval of the difference
    reaches t * sqrt(d / n) to each side: a loss beyond that is excluded.

    Args:
        num_items: items that are right or wrong; each is its own cluster.
        margin: the largest harmless loss of accuracy.
        level: confidence level of the interval.
    """
    suite = f"the retention suite: {num_items:,} item(s)"
    if num_items < 2:
        return f"{suite}; too few to rule out any forgetting: raise exam.retention_items"
    reach = t_quantile(level, num_items - 1) * math.sqrt(EXPECTED_DISCORDANCE / num_items)
    suite += f" can rule out a loss of {reach:.3f} or more ({EXPECTED_DISCORDANCE:.0%} of them changed, guessed)"
    return (
        suite if reach < margin else f"{suite}; that is not within the margin of {margin}: raise exam.retention_items"
    )
