"""How often prediction-powered intervals hold the truth, for judges from useless to perfect.

    python benchmarks/ppi_coverage.py [--runs 1000] [--seed 0]

Each document has its own chances of a win, a tie and a loss, drawn from a Dirichlet distribution with the given means
and intraclass correlation. A judge agrees with people on a share of the questions. Where it does not, it gives one of the
other two choices at random, or ("else ties") the neighboring one, as this project's judge does where its two orders
disagree. A useless judge does not look, and one favors the first arm. The marked questions are drawn in rounds over the documents,
as the marking page does. The intervals are the project's own ``prediction_powered``; beside them is the plain formula,
with all questions in the first mean, the two cluster-robust variances added, and t on the documents less 1. Documents of very different sizes
are recorded beside the bar: few of them hold most of the questions, so the effective number of documents is small, and
t on so few degrees of freedom holds the truth too often rather than too rarely.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from tunewright.statistics.intervals import standard_error
from tunewright.statistics.power import t_quantile
from tunewright.statistics.prediction_powered import prediction_powered

RESULTS = Path(__file__).parent / "results" / "ppi_coverage.json"
CHOICES = np.array([1.0, 0.0, -1.0])
TIES, TRUTHS = 0.2, (0.0, 0.4)  # share of ties; true preferences
# agreement of each judge with people; of the first two the answers do not depend on the question
JUDGES = {
    "useless": None,
    "favors an arm": None,
    "60 %": 0.6,
    "85 %": 0.85,
    "85 %, else ties": 0.85,
    "95 %": 0.95,
    "perfect": 1.0,
}
SHAPES = (
    (100, 10, 30),
    (100, 10, 60),
    (300, 10, 30),
    (200, 20, 30),
    (200, 20, 60),
    (100, 30, 30),
    (300, 30, 30),
    (300, 30, 60),
)
ICCS = (0.0, 0.1, 0.3)
LOW, HIGH = 93.0, 97.0
NARROWER = 20.0  # percent, at an agreement of 85 %


def documents_of(questions: int, documents: int, even: bool, draw: np.random.Generator) -> np.ndarray:
    """Return the document of each question; of uneven documents, sizes differ by up to a factor of about twenty."""
    if even:
        return np.arange(questions) % documents
    more = draw.choice(documents, size=questions - documents, p=draw.dirichlet(np.full(documents, 2.0)))
    return np.concatenate([np.arange(documents), more])


def people(truth: float, documents: np.ndarray, icc: float, draw: np.random.Generator) -> np.ndarray:
    """Return what people would prefer for each question."""
    means = np.array([(1 - TIES + truth) / 2, TIES, (1 - TIES - truth) / 2])
    chances = (
        draw.dirichlet(means * (1 - icc) / icc, documents.max() + 1)
        if icc
        else means[None].repeat(documents.max() + 1, 0)
    )
    return CHOICES[(draw.random(len(documents))[:, None] > chances.cumsum(1)[documents][:, :2]).sum(1)]


def judge(name: str, y: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Return what a judge prefers for each question."""
    agreement = JUDGES[name]
    if agreement is None:
        chances = [0.4, 0.2, 0.4] if name == "useless" else [0.9, 0.1, 0.0]
        return draw.choice(CHOICES, size=len(y), p=chances)
    other = (y + 1 + draw.integers(1, 3, len(y))) % 3 - 1  # one of the two other choices
    if name.endswith("ties"):
        other = np.where(y == 0, draw.choice([-1.0, 1.0], size=len(y)), 0.0)
    return np.where(draw.random(len(y)) < agreement, y, other)


def marked(documents: np.ndarray, num: int, draw: np.random.Generator) -> np.ndarray:
    """Return which questions are marked: each document has a first mark before any has a second."""
    order = draw.permutation(len(documents))
    seen = np.zeros(len(documents), dtype=int)
    for document in range(documents.max() + 1):
        own = order[documents[order] == document]
        seen[own] = np.arange(len(own))
    rank = draw.permutation(documents.max() + 1)[documents]
    return np.isin(np.arange(len(documents)), np.lexsort((rank, seen))[:num])


def plain_formula(y: np.ndarray, f: np.ndarray, chosen: np.ndarray, clusters: np.ndarray) -> tuple[float, float]:
    """Return mean_all(lambda f) + mean_marked(y - lambda f) and half its interval, without any correction."""
    on_marked, marks = f[chosen], y[chosen]
    covariance = float(((marks - marks.mean()) * (on_marked - on_marked.mean())).mean())
    weight = min(1.0, max(0.0, covariance / (f.var(ddof=1) or 1.0) / (1 + len(marks) / len(f))))
    rest = marks - weight * on_marked
    error = np.hypot(
        weight * standard_error(f.tolist(), clusters.tolist()), standard_error(rest.tolist(), clusters[chosen].tolist())
    )
    return weight * f.mean() + rest.mean(), t_quantile(0.95, len(set(clusters[chosen].tolist())) - 1) * float(error)


def coverage(
    name: str,
    shape: tuple[int, int, int],
    icc: float,
    truth: float,
    runs: int,
    draw: np.random.Generator,
    even: bool = True,
) -> dict[str, Any]:
    """Return the percentage of intervals that hold the truth, and how much narrower they are than with marks alone."""
    questions, documents, num = shape
    held = alone = plain = 0
    widths: list[tuple[float, float]] = []
    for _ in range(runs):
        clusters = documents_of(questions, documents, even, draw)
        y = people(truth, clusters, icc, draw)
        f, chosen = judge(name, y, draw), marked(clusters, num, draw)
        marks = [value if is_marked else None for value, is_marked in zip(y.tolist(), chosen.tolist(), strict=True)]
        result = prediction_powered(marks, f, clusters.tolist())
        held += result.interval.low <= truth <= result.interval.high
        alone += result.alone.low <= truth <= result.alone.high
        theta, half = plain_formula(y, f, chosen, clusters)
        plain += int(abs(theta - truth) <= half)
        widths.append((result.interval.high - result.interval.low, result.alone.high - result.alone.low))
    width, width_alone = np.mean(widths, axis=0)
    return {
        "judge": name,
        "questions": questions,
        "documents": documents,
        "marks": num,
        "icc": icc,
        "truth": truth,
        "even_documents": even,
        "coverage_percent": round(100 * held / runs, 2),
        "marks_alone_percent": round(100 * alone / runs, 2),
        "plain_formula_percent": round(100 * plain / runs, 2),
        "narrower_percent": round(100 * (1 - float(width / width_alone)), 1),
    }


def summary(rows: list[dict[str, Any]], of: str = "coverage_percent") -> dict[str, Any]:
    """Return the ends of the coverage over these rows, and how many lie outside of the bar."""
    percents = [row[of] for row in rows]
    return {
        "settings": len(rows),
        "lowest_percent": min(percents),
        "highest_percent": max(percents),
        "mean_percent": round(float(np.mean(percents)), 2),
        "below_the_bar": sum(percent < LOW for percent in percents),
        "above_the_bar": sum(percent > HIGH for percent in percents),
    }


def narrower(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return by what percentage the intervals are narrower than those of marks alone, over these rows."""
    percents = [row["narrower_percent"] for row in rows]
    return {
        "least": min(percents),
        "median": round(float(np.median(percents)), 1),
        "most": max(percents),
        "of": len(percents),
        "at_least_20": sum(percent >= NARROWER for percent in percents),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    start, draw = time.process_time(), np.random.default_rng(options.seed)
    rows = [coverage(*of, options.runs, draw) for of in itertools.product(JUDGES, SHAPES, ICCS, TRUTHS)]
    uneven = [
        coverage(*of, options.runs, draw, even=False)
        for of in itertools.product(JUDGES, SHAPES[:6:2], ICCS[2:], TRUTHS)
    ]
    record = {
        "runs_of_each": options.runs,
        "seed": options.seed,
        "bar_percent": [LOW, HIGH],
        "monte_carlo_error_percent": round(100 * (0.95 * 0.05 / options.runs) ** 0.5, 2),
        "even_documents": summary(rows),
        "uneven_documents": summary(uneven),
        "plain_formula": summary(rows, "plain_formula_percent"),
        "narrower_at_85_percent": {
            f"{name}, ICC {icc}": narrower([row for row in rows if row["judge"] == name and row["icc"] == icc])
            for name in JUDGES
            if name.startswith("85")
            for icc in ICCS
        },
        "cpu_s": round(time.process_time() - start, 1),
        "rows": rows + uneven,
    }
    RESULTS.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: value for name, value in record.items() if name != "rows"}, indent=1))
    for row in rows:
        if not LOW <= row["coverage_percent"] <= HIGH:
            print(row)


if __name__ == "__main__":
    main()
