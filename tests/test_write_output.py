"""What -o names is written whole, and what the user has there is not written over unasked."""

import shlex

import pytest

from tunewright.errors import RecipeError
from tunewright.storage import write_output


def test_a_text_is_written_into_folders_that_are_not_there_yet(tmp_path):
    write_output(tmp_path / "new" / "recipe.toml", "ü\n", force=False)
    assert (tmp_path / "new" / "recipe.toml").read_text(encoding="utf-8") == "ü\n"


def test_an_existing_file_is_kept_unless_forced(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text("mine")
    with pytest.raises(RecipeError, match="exists") as caught:
        write_output(path, "new", force=False)
    assert "--force" in caught.value.hint
    assert path.read_text() == "mine"
    write_output(path, "new", force=True)
    assert path.read_text() == "new"


def test_a_folder_is_no_file_even_by_force(tmp_path):
    folder = tmp_path / "it's here"
    folder.mkdir()
    with pytest.raises(RecipeError, match="is a folder") as caught:
        write_output(folder, "new", force=True)
    assert shlex.split(caught.value.hint.partition(": ")[2]) == ["-o", str(folder / "NAME")]
    assert list(folder.iterdir()) == []


def test_a_path_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RecipeError, match="cannot write"):
        write_output(tmp_path / "file" / "recipe.toml", "new", force=False)
