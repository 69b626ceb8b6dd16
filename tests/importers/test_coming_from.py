"""docs/coming-from.md says what the conversion does."""

import re

from support import ROOT
from support.documentation import generator
from tunewright.recipe import Recipe, sections

PAGE = ROOT / "docs" / "coming-from.md"


def test_its_tables_are_those_of_the_conversion():
    assert PAGE.read_text(encoding="utf-8") == generator().PAGES["docs/coming-from.md"](), "run: make docs"


def test_every_setting_that_it_names_for_a_recipe_exists():
    known = {f"{name}.{key}" for name, kind in sections() for key in kind.model_fields} | set(Recipe.model_fields)
    rows = re.findall(r"^\|(?:[^|\n]*)\|([^|\n]*)\|[^|\n]*\|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    named = {name for cell in rows for name in re.findall(r"`([^`]+)`", cell)}
    assert len(named) > 25
    assert named <= known
