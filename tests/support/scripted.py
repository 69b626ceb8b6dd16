"""A scripted teacher in this process, and contexts for the synthesis tasks."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from support.synthesis_run import document
from tunewright.recipe import Recipe
from tunewright.records import Sample
from tunewright.settings import ANSWERING, DocumentSettings, SynthesisSettings, TrainingSettings
from tunewright.synthesis.context import TaskContext
from tunewright.synthesis.tasks import TASKS
from tunewright.teacher.protocol import Reply, Request


class Scripted:
    """Answers with what ``write`` returns for a request's last turn (None: the call failed)."""

    def __init__(self, write: Callable[[str], str | None]) -> None:
        self.write = write
        self.requests: list[Request] = []

    def ask_all(self, requests: Sequence[Request], label: str) -> list[Reply | None]:
        del label
        self.requests += requests
        texts = [self.write(request.messages[-1].content if request.messages else request.raw) for request in requests]
        return [None if text is None else Reply(text, "stop", 1, 1) for text in texts]


SUBJECTS = ("barley", "salmon", "glaciers", "bicycles", "violins", "volcanoes", "lanterns", "harbors")
FACTS = (
    "Experts measured 42 meters of {0} growth in three northern valleys during the wet season.",
    "Warm water made {0} weigh about 12.5% less than cold water after two years of tests.",
    "The oldest {0} of the region were counted by volunteers in eleven villages.",
    "Farmers near the coast sell {0} at a market that opens each Thursday.",
    "Prices of {0} were higher in the north than in the 7 southern provinces.",
    "A new law protects {0} from trade between October and the end of March.",
)


def work_on(write, subjects=SUBJECTS[:4], groups=None, **synthesis):
    made = [document(subject, FACTS) for subject in subjects]
    settings = {"tasks": tuple(SynthesisSettings.model_fields["tasks"].default), "refusal_share": 0.5} | synthesis
    recipe = Recipe(
        documents=DocumentSettings(paths=("docs",)),
        synthesis=SynthesisSettings(samples_per_document=6, **settings),
        training=TrainingSettings(text_share=0.5),
    )
    chunks = {doc.id: doc_chunks for doc, doc_chunks in made}
    return TaskContext(recipe, Scripted(write), [doc for doc, _ in made], chunks, groups or {})


def ask(turn: str) -> str:
    """Word a fair question for a sentence; reword a follow-up as it is."""
    sentence = re.search(r"sentence answers: (.*)", turn)
    if sentence:
        return "What is known about " + " ".join(re.findall(r"[A-Za-z]{4,}", sentence[1])[1:5]) + "?"
    return turn.rpartition("Reword as a follow-up: ")[2]


def run_tasks(context, *names):
    samples: list[Sample] = []
    out = {}
    for name in names:
        out[name] = TASKS[name](context, [s for s in samples if s.task in ANSWERING])
        samples += out[name].samples
    return out


def spans_of(sample):
    return [sample.evidence, *sample.further_evidence] if sample.evidence else []


def assert_spans_exact(context, samples):
    texts = {doc.id: doc.text for doc in context.documents}
    for sample in samples:
        for span in spans_of(sample):
            assert texts[span.document][span.start : span.end] == span.quote
