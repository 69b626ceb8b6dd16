"""A page from its template and its view: one file, everything escaped, no script, one look."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

from tunewright.statistics.intervals import duration, number, p_value, percent, signed, spread

if TYPE_CHECKING:
    from markupsafe import Markup


def page_file(name: str) -> str:
    """Return a template, style sheet or script of the pages."""
    return resources.files("tunewright.html").joinpath(name).read_text(encoding="utf-8")


def share(part: float, whole: float) -> str:
    """Return a share in percent, or a dash of nothing."""
    return f"{part / whole:.1%}" if whole else "–"


def count(value: float) -> str:
    """Return a count with thousands separators."""
    return f"{value:,.0f}"


def section_name(path: Sequence[str]) -> str:
    """Return a section's path of headings on one line."""
    return " › ".join(path) or "(no heading)"


def mark_span(text: str, start: int, end: int) -> Markup:
    """Return the escaped text as HTML with the characters from start to end in a ``<mark>``."""
    from markupsafe import Markup, escape

    start = min(max(0, start), len(text))
    end = min(max(start, end), len(text))
    return escape(text[:start]) + Markup("<mark>") + escape(text[start:end]) + Markup("</mark>") + escape(text[end:])


def page_environment(read_template: Callable[[str], str], filters: Mapping[str, Callable[..., Any]]) -> Any:
    """Return a sandboxed environment of jinja2: it escapes every value, and a name that a view lacks is an error."""
    from jinja2 import FunctionLoader, StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        loader=FunctionLoader(read_template),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    return environment


def render(name: str, view: Mapping[str, Any]) -> str:
    """Return the template of this name filled with the view; a name that the view lacks is an error."""
    from markupsafe import Markup

    filters: dict[str, Callable[..., Any]] = {
        **{"number": number, "signed": signed, "p_value": p_value, "spread": spread, "duration": duration},
        **{"percent": percent, "share": share, "count": count, "section_name": section_name},
    }
    environment = page_environment(page_file, filters)
    return str(environment.get_template(name).render({**view, "style": Markup(page_file("style.css"))}))
