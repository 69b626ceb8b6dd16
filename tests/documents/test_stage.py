"""The stages ingest and split on real files: every file becomes a document or a counted rejection."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.document_files import write_pdf
from tunewright.documents.stage import ingest, source_digest, source_files, split
from tunewright.errors import DocumentError
from tunewright.recipe import Recipe
from tunewright.records import Chunk, Document, Rejection, SplitEntry, digest
from tunewright.run_folder import RunFolder
from tunewright.settings import DocumentSettings, ModelSettings, SplitSettings


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a model folder with a tokenizer that counts words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    folder = tmp_path_factory.mktemp("base")
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text("{}")
    return str(folder)


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.md").write_text("---\nyear: 2020\n---\n# Apples\n\nApples are red. They grow on trees.\n")
    (folder / "sub" / "b.txt").write_text("Pears are green and sweet. " * 20)
    (folder / "rows.jsonl").write_text(
        '{"id": "p", "text": "Plums are blue."}\n{"id": "p", "text": "Figs are soft."}\nbad\n'
    )
    (folder / "copy.txt").write_bytes((folder / "sub" / "b.txt").read_bytes())
    (folder / "title-only.md").write_text("# Only a heading\n")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    (folder / ".hidden.md").write_text("Hidden.")
    (folder / ".git").mkdir()
    (folder / ".git" / "c.md").write_text("Hidden.")
    return folder


def recipe(folder: Path, *paths: str, base: str = "", **settings: float) -> Recipe:
    return Recipe(
        folder=folder,
        documents=DocumentSettings(paths=paths, chunk_tokens=32),
        model=ModelSettings(base=base),
        split=SplitSettings(**settings),
    )


def test_ingest_counts_every_drop(docs: Path, base: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = RunFolder.create(tmp_path / "run")
    summary = ingest(run, recipe(tmp_path, "docs", base=base))
    documents = run.read_records("documents.jsonl", Document)
    assert [document.source for document in documents] == ["a.md", "copy.txt", "rows.jsonl#p", "rows.jsonl#p (2)"]
    assert documents[0].title == "Apples"
    assert documents[0].metadata == {"year": "2020"}
    assert all(document.id == digest(document.source, document.text) for document in documents)
    assert (summary.num_in, summary.num_out) == (8, 4)
    assert summary.rejected == {
        "unknown format": 1, "not JSON": 1, "duplicate document": 1, "empty document": 1
    }  # fmt: skip
    rejected = {rejection.id: rejection for rejection in run.read_records("rejected.jsonl", Rejection)}
    assert set(rejected) == {"picture.png", "rows.jsonl#3", "sub/b.txt", "title-only.md"}
    assert rejected["sub/b.txt"].detail == "same text as copy.txt"
    chunks = run.read_records("chunks.jsonl", Chunk)
    texts = {document.id: document.text for document in documents}
    assert {chunk.document for chunk in chunks} == set(texts)
    assert all(texts[chunk.document][chunk.start : chunk.end] == chunk.text for chunk in chunks)
    assert max(chunk.num_tokens for chunk in chunks) == 30  # six sentences of five words; a seventh would be 35
    assert summary.figures == {
        "files": 6, "chunks": len(chunks), "tokens": sum(len(chunk.text.split()) for chunk in chunks),
        "languages": "4 English",
    }  # fmt: skip
    out, err = capfd.readouterr()
    assert out == ""
    assert "rows.jsonl#3: not JSON" in err
    assert "1 file(s) of unknown format were left out: 1 .png" in err


def test_ingest_again_gives_the_same_bytes(docs: Path, base: str, tmp_path: Path) -> None:
    contents = []
    for name in ("one", "two"):
        run = RunFolder.create(tmp_path / name)
        ingest(run, recipe(tmp_path, "docs", base=base))
        contents.append([run.file(f).read_bytes() for f in ("documents.jsonl", "chunks.jsonl", "rejected.jsonl")])
    assert contents[0] == contents[1]


def test_split_writes_a_side_for_each_document(docs: Path, base: str, tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run")
    settings = recipe(tmp_path, "docs", base=base, exam_share=0.5)
    ingest(run, settings)
    summary = split(run, settings)
    entries = run.read_records("split.jsonl", SplitEntry)
    assert [entry.document for entry in entries] == [d.id for d in run.read_records("documents.jsonl", Document)]
    assert (summary.num_in, summary.num_out, summary.rejected) == (4, 4, {})
    assert summary.figures == {"train": 2, "exam": 2, "groups": 4}


def test_names_are_relative_sorted_and_unique(tmp_path: Path) -> None:
    for name in ("x/n.md", "y/n.md", "y/z/n.md", "other/x/n.md", "single.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    files = source_files(recipe(tmp_path, "x", "y", "other/x", "other/x/", "single.md", str(tmp_path / "y/z/n.md")))
    assert [(name, file.relative_to(tmp_path).as_posix()) for name, file in files] == [
        ("n.md", "x/n.md"),
        ("single.md", "single.md"),
        ("x/n.md", "other/x/n.md"),
        ("y/n.md", "y/n.md"),
        ("z/n.md", "y/z/n.md"),
    ]


def test_hidden_file_that_is_named_is_read(docs: Path, tmp_path: Path) -> None:
    assert [name for name, _ in source_files(recipe(tmp_path, "docs/.hidden.md"))] == [".hidden.md"]


def test_links_are_followed_once_and_broken_links_are_counted(docs: Path, base: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "d.md").write_text("Dates are dry.")
    (outside / "back").symlink_to(docs, target_is_directory=True)
    (docs / "loop").symlink_to(docs, target_is_directory=True)
    (docs / "away").symlink_to(outside, target_is_directory=True)
    (docs / "self.md").symlink_to(docs / "self.md")
    (docs / "twin.md").symlink_to(docs / "a.md")
    os.mkfifo(docs / "pipe.md")
    names = [name for name, _ in source_files(recipe(tmp_path, "docs", "outside"))]
    assert names == [
        "a.md",
        "away/d.md",
        "copy.txt",
        "picture.png",
        "pipe.md",
        "rows.jsonl",
        "self.md",
        "sub/b.txt",
    ] + ["title-only.md"]
    assert source_digest(recipe(tmp_path, "docs"))
    run = RunFolder.create(tmp_path / "run")
    assert ingest(run, recipe(tmp_path, "docs", base=base)).rejected["not a regular file"] == 2


def test_a_link_that_leaves_the_named_folders_is_counted_and_not_read(docs: Path, base: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    (secret / "deep").mkdir(parents=True)
    (secret / "deep" / "password.txt").write_text("Tuna is the word that opens it.")
    (docs / "etc").symlink_to(secret, target_is_directory=True)
    (docs / "password.txt").symlink_to(secret / "deep" / "password.txt")
    (docs / "sub" / "dots.txt").symlink_to("../../secret/deep/password.txt")
    (docs / "chain.txt").symlink_to(docs / "password.txt")
    (docs / "up").symlink_to("..", target_is_directory=True)
    before = source_digest(recipe(tmp_path, "docs"))
    run = RunFolder.create(tmp_path / "run")
    assert (
        ingest(run, recipe(tmp_path, "docs", base=base)).rejected["a link out of the named folders"] == 3
    )  # each target once
    assert "Tuna" not in run.file("documents.jsonl").read_text() + run.file("chunks.jsonl").read_text()
    (secret / "deep" / "password.txt").write_text("Another word.")
    assert source_digest(recipe(tmp_path, "docs")) == before
    asked = RunFolder.create(tmp_path / "asked")
    ingest(asked, recipe(tmp_path, "docs", "secret", base=base))
    assert "Another word." in asked.file("documents.jsonl").read_text()


def test_a_link_that_is_named_itself_is_followed(docs: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(docs, target_is_directory=True)
    assert [name for name, _ in source_files(recipe(tmp_path, "link"))] == [
        name for name, _ in source_files(recipe(tmp_path, "docs"))
    ]
    assert source_digest(recipe(tmp_path, "link")) == source_digest(recipe(tmp_path, "docs"))


def test_a_document_whose_chunking_takes_too_long_is_counted(
    docs: Path, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunewright.documents.stage.TIMEOUT_S", -1.0)
    with pytest.raises(DocumentError, match="no document is left") as caught:
        ingest(RunFolder.create(tmp_path / "run"), recipe(tmp_path, "docs", base=base))
    assert "characters: chunking took longer than" in caught.value.cause


def test_names_that_are_not_unicode_get_through(base: str, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for raw, text in ((b"caf\xe9.md", "One."), (b"caf\xc3\xa9.md", "Two."), (b"y" * 252 + b".md", "Three.")):
        Path(os.fsdecode(os.fsencode(tmp_path / "docs") + b"/" + raw)).write_text(text)
    run = RunFolder.create(tmp_path / "run")
    ingest(run, recipe(tmp_path, "docs", base=base))
    documents = run.read_records("documents.jsonl", Document)
    assert {document.source: document.text for document in documents} == {
        "caf\\xe9.md": "One.",
        "café.md": "Two.",
        "y" * 252 + ".md": "Three.",
    }


def test_source_digest_follows_content_and_names_only(docs: Path, tmp_path: Path) -> None:
    settings = recipe(tmp_path, "docs")
    first = source_digest(settings)
    os.utime(docs / "a.md", (0, 0))
    (docs / ".hidden.md").write_text("changed")
    (docs / "picture.png").write_bytes(b"changed")
    assert source_digest(settings) == first
    (docs / "a.md").write_text("changed")
    second = source_digest(settings)
    (docs / "a.md").rename(docs / "b.md")
    assert len({first, second, source_digest(settings)}) == 3


def test_no_paths_missing_paths_and_empty_folders_are_errors(base: str, tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DocumentError, match="names no documents") as no_paths:
        ingest(run, recipe(tmp_path, base=base))
    with pytest.raises(DocumentError, match="no file or folder nowhere/x.md") as missing:
        source_digest(recipe(tmp_path, "empty", "nowhere/x.md"))
    with pytest.raises(DocumentError, match="cannot read empty"):
        source_files(recipe(tmp_path, "empty\0.md"))
    with pytest.raises(DocumentError, match="no files in empty") as empty:
        ingest(run, recipe(tmp_path, "empty", base=base))
    assert all(caught.value.hint for caught in (no_paths, missing, empty))


def test_a_folder_with_nothing_readable_gives_the_first_reasons(base: str, tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    for name in ("a.pdf", "b.docx", "c.png", "d.md"):
        (folder / name).write_bytes(b"" if name == "d.md" else b"garbage")
    run = RunFolder.create(tmp_path / "run")
    with pytest.raises(DocumentError, match=r"none of 4 file\(s\) could be read") as caught:
        ingest(run, recipe(tmp_path, "docs", base=base))
    assert "b.docx: unreadable (not a .docx" in caught.value.cause
    assert ".md" in caught.value.hint
    assert len(run.read_records("rejected.jsonl", Rejection)) == 4
    assert not run.file("documents.jsonl").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_closed_files_and_folders_are_counted(docs: Path, base: str, tmp_path: Path) -> None:
    (docs / "a.md").chmod(0)
    (docs / "sub").chmod(0)
    run = RunFolder.create(tmp_path / "run")
    assert source_digest(recipe(tmp_path, "docs"))
    assert ingest(run, recipe(tmp_path, "docs", base=base)).rejected["unreadable"] == 2


def test_parts_that_are_not_read_and_encodings_are_counted_and_shown(
    base: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    write_pdf(docs / "scans.pdf", [["Some words stand on this page."], [], []])
    write_pdf(docs / "scans2.pdf", [["Some words stand on this page."], []])  # a duplicate, but for its scan
    (docs / "page.html").write_text("<nav>Home</nav><p>The pier is 40 m long.</p><footer>Elm 1999</footer>")
    (docs / "russian.txt").write_bytes("Портовый сбор составляет триста крон в день. Капитан платит.".encode("cp1251"))
    (docs / "short.txt").write_bytes("Grüße aus Köln".encode("cp1252"))
    run = RunFolder.create(tmp_path / "run")
    summary = ingest(run, recipe(tmp_path, "docs", base=base))
    assert (summary.num_in, summary.num_out, summary.rejected) == (5, 4, {"duplicate document": 1})
    assert summary.figures["parts left out"] == "2 boilerplate, 2 no text"
    assert summary.figures["encodings"] == "1 windows-1251, 1 windows-1252"
    rejected = {(r.id, r.reason) for r in run.read_records("rejected.jsonl", Rejection)}
    assert rejected == {
        ("scans.pdf#pages 2-3", "no text"),
        ("scans2.pdf#page 2", "no text"),
        ("scans2.pdf", "duplicate document"),
        ("page.html#navigation", "boilerplate"),
        ("page.html#footer", "boilerplate"),
    }
    shown = " ".join(capfd.readouterr().err.split())
    assert "scans.pdf#pages 2-3: no text (2 of 3 pages" in shown
    assert "short.txt: its encoding is not sure (read as windows-1252): save it as UTF-8" in shown
    assert "boilerplate left out of 1 document(s): 1 navigation, 1 footer" in shown
    assert "russian.txt" not in shown
