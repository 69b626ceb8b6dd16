"""The demos' data: labeled incident reports, and open-access abstracts (CC BY 4.0; ATTRIBUTION.md attributes each)."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

FOLDER = Path(str(files(__name__)))  # always a real folder, never inside a zip file

# The system turn of every sample in triage.train.jsonl.
TRIAGE_PROMPT = (
    "Triage the incident report as one line of JSON with the keys severity (SEV1, SEV2, SEV3), component, "
    "customer_impact and started_at; null where the report does not say."
)


def abstracts_folder() -> Path:
    """Return the installed folder of the abstracts."""
    return FOLDER / "abstracts"
