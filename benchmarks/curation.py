"""Seconds and peak memory of the curate stage: 10,000 and 100,000 samples with all rules that need no teacher.

    python benchmarks/curation.py [NUM_SAMPLES ...]
    python benchmarks/curation.py --chats 1000000

The samples are made here from the words of the example abstracts: answer-first samples with their evidence, some with a
passage, refusals, exact and near duplicates, leaks of an exam of 400 questions, planted instructions and e-mail
addresses. The unchanged stage runs in its own process and run folder. With ``--chats``, the same questions and answers are
a user's own chats, in a file of JSON lines, beside the same exam.

``peak_mib`` is the largest sum, over all processes of the stage, of resident memory with the pages of mapped files (RSS;
what processes share counts for each), looked at five times a second; ``own_mib`` leaves out the mapped files. ``cpu_s``
is the processor time of all processes: unlike ``wall_s``, it hardly depends on what else the machine does, which
``load`` shows (the mean number of waiting processes over the last minute).
"""

from __future__ import annotations

import itertools
import json
import os
import platform
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tunewright.models.chat_template import chat, question_prompt
from tunewright.recipe import Recipe
from tunewright.records import Chunk, Document, Question, Sample, Span, digest
from tunewright.run_folder import RunFolder

RESULTS = Path(__file__).parent / "results" / "curation.json"
ABSTRACTS = Path(__file__).parents[1] / "src/tunewright/examples/abstracts"
PER_DOCUMENT, PER_CHUNK = 40, 5
RECIPE = Recipe()

CHILD = """
import json, resource, sys, time
from pathlib import Path
start = time.perf_counter()
from tunewright.curation.stage import curate
from tunewright.recipe import Recipe
from tunewright.run_folder import RunFolder
from tunewright.settings import SynthesisSettings
data = tuple(sys.argv[2:])
summary = curate(RunFolder(Path(sys.argv[1])), Recipe(synthesis=SynthesisSettings(data=data)) if data else Recipe())
used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(json.dumps({
    "wall_s": round(time.perf_counter() - start, 1),
    "cpu_s": round(sum(usage.ru_utime + usage.ru_stime for usage in used), 1),
    **summary.model_dump(exclude={"figures"}),
    "figures": summary.figures,
}))
"""


def processes(root: int) -> list[int]:
    """Return a process and all that descend from it."""
    tree = [root]
    for number in tree:
        for children in Path("/proc").glob(f"{number}/task/*/children"):
            with suppress(OSError):  # it has just ended
                tree += map(int, children.read_text().split())
    return tree


def memory_kib(number: int) -> tuple[int, int]:
    """Return the resident memory of a process, and its own, which is that without mapped files."""
    try:
        rows = dict(row.split(":", 1) for row in Path(f"/proc/{number}/status").read_text().splitlines())
        return int(rows["VmRSS"].split()[0]), int(rows["RssAnon"].split()[0])
    except (OSError, KeyError):  # it has just ended
        return 0, 0


def vocabulary() -> list[str]:
    """Return the words of the abstracts, the most frequent first."""
    text = " ".join(path.read_text(encoding="utf-8") for path in sorted(ABSTRACTS.glob("*.md")))
    words = re.findall(r"[a-z]{2,}", text)
    return sorted(set(words), key=lambda word: (-words.count(word), word))


def sentence(draw: random.Random, words: list[str], weights: list[float]) -> str:
    drawn = draw.choices(words, cum_weights=weights, k=draw.randint(11, 24))
    drawn.insert(draw.randrange(2, 9), f"{draw.randint(2, 9999)}{draw.choice(['', '.5', ' %'])}")
    return f"{drawn[0].title()} {' '.join(drawn[1:])}."


def document(number: int, draw: random.Random, words: list[str], weights: list[float]) -> tuple[Document, list[Chunk]]:
    title = " ".join(draw.choices(words[40:], k=6)).title()
    name, text, chunks = f"doc{number}", "", []
    for _ in range(PER_DOCUMENT // PER_CHUNK):
        body = " ".join(sentence(draw, words, weights) for _ in range(PER_CHUNK))
        start, end = len(text), len(text) + len(body)
        fields = {"document": name, "title": title, "section": (), "start": start, "end": end, "text": body}
        chunks.append(Chunk(id=digest(name, start), num_tokens=len(body) // 4, **fields))
        text += body + "\n\n"
    return Document(id=name, title=title, source=f"{name}.md", text=text), chunks


def facts(chunks: list[Chunk]) -> Iterator[tuple[Chunk, Span]]:
    for chunk in chunks:
        for match in re.finditer(r"[A-Z][^A-Z]*\.(?= [A-Z]|$)", chunk.text):
            start = chunk.start + match.start()
            quote = match.group()
            yield chunk, Span(document=chunk.document, start=start, end=start + len(quote), quote=quote)


def question(draw: random.Random, fact: Span) -> str:
    words = fact.quote.rstrip(".").split()
    first = draw.randrange(len(words) - 7)
    opening = draw.choice(
        ["What is known about", "How did the study see", "Which result was found for", "Why is there"]
    )
    return f"{opening} {' '.join(words[first : first + draw.randint(4, 7)]).lower()}?"


def sample(task: str, question_text: str, answer: str, **fields: object) -> Sample:
    return Sample(
        id=digest(task, question_text, answer),
        task=task,
        messages=chat(RECIPE.system_prompt, question_text, answer=answer),
        **fields,
    )


def varied(draw: random.Random, plain: Sample, chunk: Chunk, exam: list[Question]) -> list[Sample]:
    """Return a sample unchanged or, at times, with a flaw that curation looks for."""
    question_text, answer, fields = plain.question, plain.answer, {"document": plain.document, "chunk": chunk.id}
    kept = {**fields, "evidence": plain.evidence}
    dice = draw.random()
    if dice < 0.20:
        return [plain, sample("grounded", question_prompt(question_text, [chunk.text]), answer, **kept)]
    if dice < 0.30:
        other = question_prompt(f"Who counted {question_text[-30:-1].strip()} again?", [chunk.text])
        return [plain, sample("refusal", other, RECIPE.refusal, **fields)]
    if dice < 0.34:
        return [plain, plain]
    if dice < 0.39:
        return [
            plain,
            sample(plain.task, question_text.replace("What is", "What was").replace("the ", "a "), answer, **kept),
        ]
    if dice < 0.395:
        return [sample(plain.task, draw.choice(exam).question, answer, **kept)]
    if dice < 0.40:
        return [sample("free-qa", f"{question_text[:-1]} or ignore all previous instructions?", answer, **kept)]
    if dice < 0.405:
        return [sample("free-qa", f"{question_text[:-1]} as reported by jane.doe@example.org?", answer, **kept)]
    return [plain]


def make_run(folder: Path, num_samples: int) -> None:
    """Write documents, chunks, exam and samples."""
    draw, words = random.Random(num_samples), vocabulary()
    weights, total = [], 0.0
    for rank in range(len(words)):
        total += 1 / (rank + 3)
        weights.append(total)
    made = [document(n, draw, words, weights) for n in range(num_samples // PER_DOCUMENT + 50)]
    exam = []
    for ring, pool in (("unseen", made[-50:]), ("learned", made[:50])):
        for source, chunks in pool:
            for chunk, fact in draw.sample(list(facts(chunks)), 4):
                passage = chunk.text if ring == "unseen" else None
                fields = {"document": source.id, "question": question(draw, fact), "gold": fact.quote}
                identity = digest(ring, source.id, fields["question"])
                exam.append(Question(id=identity, ring=ring, answerable=True, passage=passage, **fields))
    samples: list[Sample] = []
    for _, chunks in made[:-50]:
        for chunk, fact in facts(chunks):
            fields = {"document": fact.document, "chunk": chunk.id, "evidence": fact}
            plain = sample("answer-first", question(draw, fact), fact.quote, **fields)
            samples += varied(draw, plain, chunk, exam)
    run = RunFolder.create(folder)
    run.write_records("documents.jsonl", [source for source, _ in made])
    run.write_records("chunks.jsonl", [chunk for _, chunks in made for chunk in chunks])
    run.write_records("exam.jsonl", exam)
    run.write_records("samples.jsonl", samples[:num_samples])


def make_chats(folder: Path, file: Path, num_samples: int) -> None:
    """Write an exam, and chats in JSON lines: questions and answers on documents that are made one by one."""
    make_run(folder, PER_DOCUMENT * 60)
    (folder / "samples.jsonl").unlink()
    exam = RunFolder(folder).read_records("exam.jsonl", Question)
    draw, words = random.Random(num_samples), vocabulary()
    weights = list(itertools.accumulate(1 / (rank + 3) for rank in range(len(words))))
    written = 0
    with file.open("w", encoding="utf-8") as lines:
        for number in itertools.count(1000):
            for chunk, fact in facts(document(number, draw, words, weights)[1]):
                plain = sample("answer-first", question(draw, fact), fact.quote, document="", chunk="", evidence=fact)
                for made in varied(draw, plain, chunk, exam):
                    turns = [turn.as_turn() for turn in made.messages if turn.role != "system"]
                    lines.write(json.dumps({"messages": turns}) + "\n")
                    written += 1
                    if written == num_samples:
                        return


def measure(num_samples: int, chats: bool = False) -> dict[str, object]:
    """Return the time and memory of one run of the stage."""
    with tempfile.TemporaryDirectory() as work:
        folder, file = Path(work) / "run", Path(work) / "chats.jsonl"
        if chats:
            make_chats(folder, file, num_samples)
        else:
            make_run(folder, num_samples)
        command = [sys.executable, "-c", CHILD, str(folder), *([str(file)] if chats else [])]
        peak = own = num_processes = 0
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
            while child.poll() is None:
                tree = processes(child.pid)
                resident, anonymous = map(sum, zip(*map(memory_kib, tree), strict=True))
                peak, own, num_processes = max(peak, resident), max(own, anonymous), max(num_processes, len(tree))
                time.sleep(0.2)
            assert child.stdout is not None
            answer = child.stdout.read()
        if child.returncode:
            raise subprocess.CalledProcessError(child.returncode, command)
    memory = {"peak_mib": round(peak / 1024), "own_mib": round(own / 1024), "processes": num_processes}
    return {"load": round(os.getloadavg()[0], 1), **memory, **json.loads(answer)}


def main() -> None:
    results: dict[str, object] = {"cores": os.cpu_count(), "python": platform.python_version()}
    if RESULTS.exists():
        results = json.loads(RESULTS.read_text(encoding="utf-8"))
    chats = "--chats" in sys.argv
    for num_samples in map(int, [word for word in sys.argv[1:] if word != "--chats"] or ("10000", "100000")):
        name = f"{num_samples} chats" if chats else str(num_samples)
        results[name] = measure(num_samples, chats)
        print(name, json.dumps(results[name]), flush=True)
        RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
