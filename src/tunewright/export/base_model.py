"""The public name and the license of the base model, and the licenses of the documents."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tunewright.models import source
from tunewright.models.model_files import front_matter
from tunewright.recipe import at_home
from tunewright.records import Document
from tunewright.settings import EMBEDDED

NOT_STATED = "not stated by the author"
_HUB_NAME = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)
_IN_CACHE = re.compile(r"models--([\w.-]+?)--([\w.-]+)/snapshots(/|$)", re.ASCII)
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,60}")
_LINK = re.compile(r"https://[\w./%-]{1,300}|LICENSE[\w.-]{0,40}", re.ASCII)
_NAMES_BASE = ("base_model_name_or_path", "_name_or_path", "name_or_path")


@dataclass(frozen=True)
class NamedBase:
    """A base model under a name that shows no folder of this machine.

    Attributes:
        name: its public name.
        hub_name: its name on the hub; None where it is unknown.
        license: license, license_name and license_link of its own model card, where present and well-formed.
        license_source: where the license comes from, in words.
        note: how the hub's model differs from the base of the training; empty where it does not.
    """

    name: str
    hub_name: str | None
    license: dict[str, str] = field(default_factory=dict)
    license_source: str = ""
    note: str = ""


def read_base(base: str, root: Path = Path()) -> NamedBase:
    """Return the public name and license of a base model from files on this machine; nothing is fetched.

    Args:
        base: as the recipe names it.
        root: the folder that relative paths start from.
    """
    if base == EMBEDDED:
        note = f"the base as the hub has it: training and exam had a copy of it in 4 bit ({source.GGUF_FORMAT})"
        return NamedBase(source.NAME, source.HUB_NAME, {"license": source.LICENSE}, "known to tunewright", note)
    folder = root / at_home(base)
    if folder.is_dir():
        cached = _IN_CACHE.search(folder.resolve().as_posix())
        hub_name = f"{cached[1]}/{cached[2]}" if cached else None
        return _with_license(hub_name or folder.resolve().name, hub_name, folder / "README.md")
    from huggingface_hub import try_to_load_from_cache

    card = try_to_load_from_cache(base, "README.md")
    return _with_license(
        base, base if _HUB_NAME.fullmatch(base) else None, Path(card) if isinstance(card, str) else None
    )


def _with_license(name: str, hub_name: str | None, card: Path | None) -> NamedBase:
    front = front_matter(card) if card and card.is_file() else {}
    license: dict[str, str] = {}
    for key, shape in (("license", _LICENSE), ("license_name", _LICENSE), ("license_link", _LINK)):
        value = front.get(key)
        if isinstance(value, str) and shape.fullmatch(value):
            license[key] = value
    return NamedBase(name, hub_name, license, "its model card") if "license" in license else NamedBase(name, hub_name)


def public_config(path: Path, base: NamedBase) -> bytes:
    """Return a configuration file's content with the base's public name in place of a folder of this machine."""
    raw = path.read_bytes()
    content, public = json.loads(raw), base.hub_name or base.name
    renamed = {key: public for key in _NAMES_BASE if content.get(key) not in (None, "", public)}
    return (json.dumps({**content, **renamed}, indent=2, sort_keys=True) + "\n").encode() if renamed else raw


def documents_license(documents: Sequence[Document]) -> list[tuple[str, int]]:
    """Return the licenses stated in the documents' front matter or columns, each with its number of documents."""
    stated = Counter(
        next((d.metadata[key] for key in ("license", "licence") if d.metadata.get(key)), NOT_STATED) for d in documents
    )
    return stated.most_common()
