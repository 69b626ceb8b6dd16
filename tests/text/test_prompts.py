from tunewright.models.chat_template import question_prompt
from tunewright.text.normalization import shingles
from tunewright.text.prompts import split_prompt


def test_a_prompt_is_split_into_context_and_question():
    assert split_prompt("A passage.\n\nMore of it.\n\nQuestion: Why?") == ("A passage.\n\nMore of it.", "Why?")
    assert split_prompt("A passage.\nQuestion: Why?\n") == ("A passage.", "Why?")
    assert split_prompt("A passage.\n\nWhy?") == ("A passage.", "Why?")
    assert split_prompt("A question: is it so?\n\nQuestion:") == ("A question: is it so?", "Question:")
    assert split_prompt("Why is it so?\n") == ("", "Why is it so?")
    assert split_prompt("Some text.\nQuestion:\n") == ("", "Some text.\nQuestion:")


def test_splitting_undoes_question_prompt():
    prompt = question_prompt("Why so?", ("one\n\ntwo", "three"))
    assert split_prompt(prompt) == ("Passages:\n[1] one\n\ntwo\n\n[2] three", "Why so?")
    assert split_prompt(question_prompt("Why so?")) == ("", "Why so?")


def test_shingles_of_a_short_text_are_the_text():
    assert shingles([], 2) == frozenset()
    assert shingles(["a"], 2) == {("a",)}
    assert shingles(["a", "b", "a", "b"], 2) == {("a", "b"), ("b", "a")}
