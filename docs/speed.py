"""The table and the chart of training speed in docs/performance.md, from the recorded measurements."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"
SHAPES = {"8B": "Llama-3.1-8B", "0.5B": "Qwen2.5-0.5B"}
WORKLOADS = {"packed2k": "sequences of 2,048 tokens", "chat": "chats, median 220 tokens"}
NAMES = {"tunewright": "tunewright", "trl": "TRL", "unsloth": "Unsloth"}


def rows(name: str) -> list[dict[str, Any]]:
    """Return the recorded rows of a file."""
    recorded: list[dict[str, Any]] = json.loads((RESULTS / name).read_text(encoding="utf-8"))
    return recorded


def _best(recorded: list[dict[str, Any]], shape: str, workload: str, *words: str) -> dict[str, Any]:
    """Return the fastest row of a shape and workload whose settings hold all the words."""
    fitting = [
        row
        for row in recorded
        if (row["shape"], row["workload"]) == (shape, workload) and all(word in row["settings"] for word in words)
    ]
    return max(fitting, key=lambda row: float(row["tok_s"]))


Compared = tuple[str, list[dict[str, Any]]]


def comparisons() -> list[Compared]:
    """Return each comparison: its label, our row, and the best row of each peer."""
    recorded = rows("gpu.json")
    ours = [row for row in recorded if row["arm"] == "tunewright"]
    peers = [*rows("gpu_peers.json"), *(row for row in recorded if row["arm"] != "tunewright")]
    by_arm = {arm: [row for row in peers if row["arm"] == arm] for arm in ("trl", "unsloth")}
    compared: list[Compared] = []
    for shape, model in SHAPES.items():
        for workload, label in WORKLOADS.items():
            best = [_best(some, shape, workload) for some in by_arm.values()]
            compared.append((f"{model}, {label}", [_best(ours, shape, workload, "as planned:"), *best]))
    small = [_best(some, "8B", "packed2k", "checkpointing") for some in _with_checkpointing(by_arm)]
    compared.insert(
        1, (f"{SHAPES['8B']}, the same, in 10 GiB", [_best(ours, "8B", "packed2k", "checkpointing: "), *small])
    )
    pairs = [_best(ours, "8B", "dpo", "as planned:"), _best(by_arm["trl"], "8B", "dpo")]
    return [*compared, (f"{SHAPES['8B']}, preference pairs (DPO)", pairs)]


def _with_checkpointing(by_arm: dict[str, list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
    return [[row for row in some if "no checkpointing" not in row["settings"]] for some in by_arm.values()]


def table() -> str:
    """Return the table in Markdown: tokens per second, and the most memory reserved."""
    head = "| one H200, NF4 QLoRA, rank 16 | tunewright | TRL, best recorded | Unsloth, best recorded |"
    lines = [head, "|---|---|---|---|"]
    for label, rows_compared in comparisons():
        cells = [f"{row['tok_s']:,} tok/s, {row['peak_reserved_gib']:.0f} GiB" for row in rows_compared]
        cells += ["not measured"] * (3 - len(cells))
        lines.append(f"| {label} | **{cells[0]}** | {cells[1]} | {cells[2]} |")
    return "\n".join(lines)


def chart() -> str:
    """Return the table as a chart in SVG: bars of tokens per second, each group scaled to its longest."""
    height, left, width, shades = 22, 330, 420, ("#1f6f54", "#9aa5b1", "#c9b458")
    parts, y = [], 10
    for label, rows_compared in comparisons():
        longest = max(float(row["tok_s"]) for row in rows_compared)
        parts.append(f'<text x="10" y="{y + 38}">{label}</text>')
        for index, (row, shade) in enumerate(zip(rows_compared, shades, strict=False)):
            top, long = y + index * height, width * float(row["tok_s"]) / longest
            parts.append(f'<rect x="{left}" y="{top}" width="{long:.0f}" height="{height - 4}" fill="{shade}"/>')
            text = f"{NAMES[row['arm']]} {row['tok_s']:,}"
            parts.append(f'<text x="{left + long + 6:.0f}" y="{top + 14}">{text}</text>')
        y += len(rows_compared) * height + 14
    style = "text{font:13px system-ui,sans-serif;fill:#24292f}"
    box = f'viewBox="0 0 930 {y}" width="930" height="{y}"'
    title = "Tokens per second of training on one H200"
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {box} role="img" aria-label="{title}"><style>{style}</style>'
        f'<rect width="100%" height="100%" fill="#fff"/>\n{body}\n</svg>\n'
    )
