"""The process behind the chat page: questions as JSON lines on stdin, pieces of the arms' answers on stdout.

It holds the models, so that the server holds none; it ends with its input.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunewright import console
from tunewright.chat.models import ChatModels, Turn
from tunewright.chat.sources import Sources
from tunewright.errors import TunewrightError, UserError, trouble
from tunewright.evaluation.arms import arm_prompts, num_passages, passages_by_arm, shots_by_arm
from tunewright.evaluation.stage import read_library, read_training_samples, sentence_model
from tunewright.models.chat_template import encode_prompt
from tunewright.models.generation import MAX_NEW_TOKENS
from tunewright.recipe import load_recipe
from tunewright.records import Chunk, Document, Message, Question, SplitEntry, digest
from tunewright.run_folder import RunFile, RunFolder
from tunewright.settings import Arm

_IDLE_S = 900.0
TUNED = (Arm.TUNED, Arm.TUNED_RAG)
ARMS = (Arm.BASE, Arm.TUNED, Arm.FEW_SHOT, Arm.SIMILAR_SHOT, Arm.RAG, Arm.TUNED_RAG)


class Talk:
    """A run's models with what its arms show beside a question.

    Args:
        folder: the run's.
    """

    def __init__(self, folder: Path) -> None:
        self._run = RunFolder.open(folder)
        self._recipe = load_recipe(self._run.file(RunFile.RECIPE))
        self._models = ChatModels(self._recipe, self._run.file(RunFile.ADAPTER))
        self._prepared: tuple[dict[str, Any], dict[str, Any]] | None = None
        self._sources: Sources | None = None

    def _beside(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the worked examples and the passages by arm, read at the first use."""
        if self._prepared is None:
            model = sentence_model(self._run, self._recipe)
            library = read_library(self._run, self._recipe, model)
            samples = read_training_samples(self._run, self._recipe)
            shots = shots_by_arm(samples, self._recipe.evaluation.few_shot, self._recipe.seed, model)
            questions = self._run.records_if_any(RunFile.EXAM, Question)
            num_shown = num_passages(library, questions, self._recipe.retrieval.passages)
            passages = passages_by_arm(library, num_shown) if library else {}
            self._prepared = dict(shots), dict(passages)
        return self._prepared

    def _prompt(self, arm: str, question: str, turns: Sequence[Turn]) -> tuple[list[int], list[str]]:
        """Return an arm's prompt, and the passages in it; arms with passages or examples see one question alone."""
        weights = Arm.TUNED if arm in TUNED else Arm.BASE
        if arm in (Arm.BASE, Arm.TUNED):
            return self._models.prompt_ids(arm, question, turns), []
        shots, passages = self._beside()
        if arm not in shots and arm not in passages:
            raise UserError(f"{arm} has nothing to show", "the run has no passages or samples for it", "")
        asks = Question(
            id=digest("chat", question), ring="learned", document="", question=question, gold="-", answerable=True
        )
        config = self._models.load(weights).config.get_text_config()
        room = (getattr(config, "max_position_embeddings", None) or 1 << 30) - MAX_NEW_TOKENS
        messages: tuple[Message, ...] = ()
        for messages in arm_prompts(arm, asks, self._recipe.system_prompt, shots, passages):
            ids = encode_prompt(self._models.tokenizer, messages)
            if len(ids) <= room:
                prompt = "\n".join(message.content for message in messages)
                return list(ids), [text for text in (passages[arm](asks) if arm in passages else ()) if text in prompt]
        raise UserError(f"the question is too long for {arm}", f"there is room for {room} tokens", "")

    def answer(self, order: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the pieces of each arm's answer, one arm's beside the other's."""
        question = str(order["question"])
        turns = [Turn(str(t["question"]), dict(t["answers"])) for t in order.get("turns", ()) if t.get("answers")]
        arms = [arm for arm in dict.fromkeys(map(str, order["arms"])) if arm in ARMS]
        streams = {}
        for arm in arms:
            ids, passages = self._prompt(arm, question, [turn for turn in turns if arm in turn.answers])
            yield {"arm": arm, "num_prompt_tokens": len(ids), "passages": passages}
            streams[arm] = self._models.answer(Arm.TUNED if arm in TUNED else Arm.BASE, ids)
        while streams:
            for arm in list(streams):
                piece = next(streams[arm], None)
                if piece is None:
                    del streams[arm]
                else:
                    yield {"arm": arm, "piece": piece}

    def why(self, text: str) -> list[str]:
        """Return the training samples and passages nearest to an answer, line by line."""
        if self._sources is None:
            titles = {d.id: d.title for d in self._run.records_if_any(RunFile.DOCUMENTS, Document)}
            train = {e.document for e in self._run.records_if_any(RunFile.SPLIT, SplitEntry) if e.side == "train"}
            chunks = [c for c in self._run.records_if_any(RunFile.CHUNKS, Chunk) if c.document in train]
            samples = read_training_samples(self._run, self._recipe)
            self._sources = Sources(samples, chunks, titles, self._run.path)
        return list(self._sources.nearest(text))


def _say(message: Mapping[str, Any]) -> None:
    console.data(json.dumps(message))


def _unless_idle(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines; end the process, which holds a model, where nobody writes the next one in time."""
    while True:
        idle = threading.Timer(_IDLE_S, os._exit, (0,))
        idle.daemon = True
        idle.start()
        line = next(iter(lines), None)
        idle.cancel()
        if line is None:
            return
        yield line


def converse(folder: Path) -> None:
    """Answer each line of stdin until it ends; an error is a message, and the conversation continues."""
    talk: Talk | None = None
    for line in _unless_idle(sys.stdin):
        try:
            order = json.loads(line)
            talk = talk or Talk(folder)
            if "why" in order:
                _say({"why": talk.why(str(order["why"]))})
            else:
                for message in talk.answer(order):
                    _say(message)
        except Exception as error:
            known = error if isinstance(error, TunewrightError) else trouble(error)
            text = known.headline if known else f"unexpected {type(error).__name__}: {error}"
            _say({"error": text, "cause": known.cause if known else "", "hint": known.hint if known else ""})
        _say({"done": True})


if __name__ == "__main__":
    converse(Path(sys.argv[1]))
