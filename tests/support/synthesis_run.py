"""A run folder that is ready for the exam: six documents, four to train on and two for the exam."""

from __future__ import annotations

import json
import re
from pathlib import Path

from support.faulty_server import Answer, Seen, completion
from tunewright.recipe import Recipe
from tunewright.records import Chunk, Document, SplitEntry, digest
from tunewright.run_folder import RunFolder
from tunewright.settings import ExamSettings, SynthesisSettings, TeacherSettings

SUBJECTS = ("barley", "salmon", "glaciers", "bicycles", "violins", "volcanoes")
FACTS = (
    "Experts measured {0} growth in three northern valleys during the wet season.",
    "Warm water made {0} weigh about twelve percent less after two years.",
    "The oldest {0} of the region were counted by volunteers in eleven villages.",
    "This surprised the volunteers who had counted {0} in the years before.",
    "Farmers near the coast sell {0} at a market that opens each Thursday.",
    "A new law protects {0} from trade between October and the end of March.",
)


def document(subject: str, facts: tuple[str, ...] = FACTS) -> tuple[Document, list[Chunk]]:
    """Return a document of two sections, a chunk each."""
    sentences = [fact.format(subject) for fact in facts]
    middle = len(sentences) // 2
    bodies = [" ".join(sentences[:middle]), "\n".join(sentences[middle:])]
    text = f"# {subject.title()} of the north\n\n{bodies[0]}\n\n{bodies[1]}\n"
    title, source = f"{subject.title()} of the north", f"{subject}.md"
    identity = digest(source, text)
    chunks = []
    for number, body in enumerate(bodies):
        start = text.index(body)
        chunks.append(
            Chunk(
                id=digest(identity, start),
                document=identity,
                title=title,
                section=(str(number),),
                start=start,
                end=start + len(body),
                text=body,
                num_tokens=len(body) // 4,
            )
        )
    return Document(id=identity, title=title, source=source, text=text), chunks


def make_run(path: Path, subjects: tuple[str, ...] = SUBJECTS, changed: str = "") -> RunFolder:
    """Write documents.jsonl, chunks.jsonl and split.jsonl; the last two subjects are for the exam."""
    run = RunFolder.create(path)
    facts = {subject: FACTS if subject != changed else (*FACTS[:2], *FACTS[3:]) for subject in subjects}
    made = [document(subject, facts[subject]) for subject in subjects]
    run.write_records("documents.jsonl", [doc for doc, _ in made])
    run.write_records("chunks.jsonl", [chunk for _, chunks in made for chunk in chunks])
    sides = ["train"] * (len(made) - 2) + ["exam"] * 2
    run.write_records(
        "split.jsonl",
        [
            SplitEntry(document=doc.id, side="train" if side == "train" else "exam", group=doc.id)
            for (doc, _), side in zip(made, sides, strict=True)
        ],
    )
    return run


def recipe_for(url: str, **changes: object) -> Recipe:
    """Return a recipe with this teacher, and few questions."""
    return Recipe(
        teacher=TeacherSettings(url=url, model="m", concurrency=4),
        exam=ExamSettings(learned_per_document=1, unseen_per_document=2),
        synthesis=SynthesisSettings(samples_per_document=4, refusal_share=0.25),
    ).model_copy(update=changes)


def prompt_sentence(seen: Seen) -> str:
    """Return the sentence that the prompt shows."""
    match = re.search(r"sentence answers: (.*)", seen.body["messages"][-1]["content"])
    return match[1] if match else ""


def question_writer(seen: Seen) -> Answer:
    """Write a fair question for the sentence: another one for the exam than for training."""
    opening = "Which record says of" if "How much does" in str(seen.body["messages"]) else "What is known about"
    return Answer(body=completion(f'Question: "{opening} {" ".join(prompt_sentence(seen).split()[1:6])} here?"'))


def qa_writer(seen: Seen) -> Answer:
    """Write free questions with quotes: one good item, one with an invented quote, one that is no item."""
    passage = seen.body["messages"][-1]["content"].partition("Passage:\n")[2].partition("\n\nWrite")[0]
    sentence = passage.split(".")[0] + "."
    good = {"question": f"What do we know: {sentence[:-1]}?", "answer": sentence, "quote": sentence.upper()}
    invented = {**good, "quote": "No such thing was ever written about the moon and its seas."}
    return Answer(
        body=completion("```json\n" + json.dumps({"items": [good, invented, {"question": "Why?"}]}) + "\n```")
    )
