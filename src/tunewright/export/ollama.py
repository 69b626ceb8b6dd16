"""Ollama's Modelfile, whose template renders the very prompts of the exam."""

from __future__ import annotations

from typing import Any

from tunewright.errors import ModelError
from tunewright.export.chat_shape import ChatShape, Place, shape_of_template
from tunewright.export.go_template import quote, render_go
from tunewright.export.probes import probes
from tunewright.models.template import end_ids, render

MODEL_FILE = "model.gguf"
_MOST_CONTEXT_TOKENS = 8192  # Ollama takes the memory for all of them at once


def modelfile(tokenizer: Any, context_tokens: int, bos_added: bool, system_prompt: str = "") -> str:
    """Return the Modelfile: greedy, without Ollama's penalty on repetition, which would change the answers.

    Args:
        tokenizer: with its chat template.
        context_tokens: what the model has been made for.
        bos_added: whether the GGUF says that the first token is put before every prompt: Ollama does then.
        system_prompt: Ollama puts it before a chat that has no system turn, as chat and serve do.

    Raises:
        ModelError: Ollama's language cannot express the template, or a Modelfile the system prompt.
    """
    if '"""' in system_prompt:
        raise ModelError(
            "the system prompt cannot be written in a Modelfile",
            'it holds """, which ends a text there',
            "serve the GGUF with llama.cpp: tunewright export DIR --to gguf",
        )
    template, shape = go_template(tokenizer, bos_added)
    stops = [tokenizer.convert_ids_to_tokens(number) for number in end_ids(tokenizer, None)]
    lines = [f"FROM ./{MODEL_FILE}", f'TEMPLATE """{template}"""']
    lines += [f'SYSTEM """{system_prompt}"""'] if system_prompt else []
    lines += [f'PARAMETER stop "{stop}"' for stop in stops]
    lines += [
        "PARAMETER temperature 0",
        "PARAMETER repeat_penalty 1",
        f"PARAMETER num_ctx {min(context_tokens, _MOST_CONTEXT_TOKENS)}",
    ]
    if shape.trimmed:
        roles = ", ".join(sorted(shape.trimmed))
        lines.insert(0, f"# Trained without white space at the ends of these turns: {roles}. Ollama sends it as it is.")
    return "\n".join(lines) + "\n"


def template_in(content: str) -> str:
    """Return the template of a Modelfile."""
    return content.partition('TEMPLATE """')[2].partition('"""\n')[0]


def go_template(tokenizer: Any, bos_added: bool) -> tuple[str, ChatShape]:
    """Return the chat template in Ollama's language, tried on conversations, and what it was made from.

    Raises:
        ModelError: Ollama's language cannot express the template.
    """
    shape = shape_of_template(tokenizer)
    bos = tokenizer.bos_token if bos_added else ""
    template = _write(shape, bos)
    for messages in probes():
        wanted = render(tokenizer, messages, add_generation_prompt=True)
        if bos + render_go(template, messages) != wanted:
            raise ModelError(
                "the chat template cannot be written in Ollama's language",
                f"it renders {messages[-1].content[:40]!r} in a way of its own",
                "serve the GGUF with llama.cpp, which reads the template itself: tunewright export DIR --to gguf",
            )
    return template, shape


def _write(shape: ChatShape, bos: str) -> str:
    """Return the template, all on one line, its words as literals: no white space of the file's own gets in."""
    first = _by_last(shape, True, bos)
    later = _by_last(shape, False, "")
    question = _choose("$first", first, later) + "{{ .Content }}"
    question += _choose("$last", _literal(shape.before_last_answer), _literal(shape.before_answer))
    return (
        "{{ $first := true }}{{ range $i, $_ := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}"
        f'{{{{ if eq .Role "user" }}}}{question}{{{{ $first = false }}}}{{{{ end }}}}'
        '{{ if eq .Role "assistant" }}{{ .Content }}{{ end }}{{ end }}'
    )


def _by_last(shape: ChatShape, first: bool, bos: str) -> str:
    last, not_last = (_by_system(shape, first, last, bos) for last in (True, False))
    return _choose("$last", last, not_last)


def _by_system(shape: ChatShape, first: bool, last: bool, bos: str) -> str:
    with_system, without = (_pieces(shape.before_user[Place(first, last, system)], bos) for system in (True, False))
    return _choose("$.System", with_system, without)


def _pieces(pieces: tuple[str, ...], bos: str) -> str:
    head = _literal(pieces[0].removeprefix(bos))
    return head + "".join("{{ $.System }}" + _literal(piece) for piece in pieces[1:])


def _choose(condition: str, then: str, otherwise: str) -> str:
    if then == otherwise:
        return then
    return f"{{{{ if {condition} }}}}{then}{{{{ else }}}}{otherwise}{{{{ end }}}}"


def _literal(text: str) -> str:
    return f"{{{{ {quote(text)} }}}}" if text else ""
