"""The capped child process against hostile files: each is reported, and none stops the others."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import zlib
from pathlib import Path

import docx
import pytest

from support.document_files import docx_members, write_package, write_pdf
from tunewright.documents.markup import Reading
from tunewright.documents.sandbox import read_files


def read_all(files: list[Path], timeout_s: float = 60, memory_mb: int = 512) -> list[Reading]:
    read = list(read_files(files, timeout_s, memory_mb))
    assert [file for file, _ in read] == files
    return [reading for _, reading in read]


def reasons(reading: Reading) -> list[str]:
    return [failure.reason for failure in reading.failures]


def good(folder: Path, name: str = "good.md") -> Path:
    path = folder / name
    path.write_text(f"# Good\n\nThis is {path.stem[:10]}.\n")
    return path


def test_every_format_passes_through_the_child(tmp_path: Path) -> None:
    paper = docx.Document()
    paper.add_paragraph("In a docx.")
    paper.save(str(tmp_path / "a.docx"))
    contents = {"md": "In md.", "txt": "In txt.", "html": "<p>In html.", "csv": "text\nIn csv.", "jsonl": '"In jsonl."'}
    for extension, text in contents.items():
        (tmp_path / f"a.{extension}").write_text(text)
    write_pdf(tmp_path / "a.pdf", [["In a pdf."]])
    files = sorted(tmp_path.iterdir())
    texts = [reading.documents[0].text for reading in read_all(files)]
    assert texts == ["In csv.", "In a docx.", "In html.", "In jsonl.", "In md.", "In a pdf.", "In txt."]


def test_garbage_is_reported_and_the_rest_is_read(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    garbage = os.urandom(20_000)
    names = ["a.pdf", "b.docx", "c.txt", "d.jsonl", "e.csv", "f.md"]
    for name in names:
        (tmp_path / name).write_bytes(garbage)
    (tmp_path / "g.html").write_bytes(b"<div>" * 100 + b"<p" + garbage)
    (tmp_path / "h.pdf").write_bytes(b"%PDF-1.7\n" + garbage)
    (tmp_path / "i.md").write_bytes(b"")
    write_package(tmp_path / "j.docx", {"word/document.xml": garbage})
    cut = write_pdf(tmp_path / "k.pdf", [["Some words."]])
    cut.write_bytes(cut.read_bytes()[:150])
    files = [*sorted(tmp_path.iterdir()), tmp_path / "missing.md", good(tmp_path, "z.md")]
    *bad, last = read_all(files)
    assert last.documents[0].text == "Good\n\nThis is z."
    by_name = {file.name: reading for file, reading in zip(files, bad, strict=False)}
    assert [name for name, reading in by_name.items() if not reading.failures] == []
    assert reasons(by_name["c.txt"]) == reasons(by_name["g.html"]) == ["not text"]
    assert reasons(by_name["i.md"]) == ["empty file"]
    assert by_name["missing.md"].failures[0].detail == "No such file or directory"
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_a_large_file_runs_out_of_its_memory_and_not_of_ours(tmp_path: Path) -> None:
    large = tmp_path / "large.txt"
    large.write_bytes(b"word " * (6 * 2**20))
    first, second = read_all([large, good(tmp_path)], memory_mb=64)
    assert reasons(first) == ["too much memory"]
    assert second.documents[0].title == "Good"


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    docx.Document().save(str(tmp_path / "plain.docx"))
    members = docx_members(tmp_path / "plain.docx")
    members["word/document.xml"] += b" " * (40 * 2**20)
    bomb = write_package(tmp_path / "bomb.docx", members)
    assert bomb.stat().st_size < 2**20
    (reading,) = read_all([bomb], memory_mb=128)
    assert reasons(reading) == ["too large"]


def pdf_of(stream: bytes, filters: str) -> bytes:
    """Return a page whose content is a stream with these filters."""
    parts = (
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Contents 4 0 R>>",
        b"<</Length %d/Filter[%s]>>stream\n%s\nendstream" % (len(stream), filters.encode(), stream),
    )
    body = b"".join(b"%d 0 obj%s\nendobj\n" % (number, part) for number, part in enumerate(parts, 1))
    return b"%PDF-1.7\n" + body + b"trailer<</Root 1 0 R/Size 5>>\n%%EOF"


def test_a_pdf_bomb_is_ended_within_its_limits(tmp_path: Path) -> None:
    inner = zlib.compress(bytes(200 * 2**20), 1)
    bombs = {
        "once": pdf_of(inner, "/FlateDecode"),
        "twice": pdf_of(zlib.compress(inner), "/FlateDecode/FlateDecode"),
        "numbers": pdf_of(zlib.compress(b"1 " * 10**7), "/FlateDecode"),
        "pages": pdf_of(b"", "/FlateDecode").replace(b"/Count 1>>", b"/Count 999999999>>").replace(b"[3 0", b"[2 0"),
        "lengths": pdf_of(b"x", "/ASCIIHexDecode").replace(b"/Length 1/", b"/Length 99999999999999/"),
    }
    for name, content in bombs.items():
        (tmp_path / f"{name}.pdf").write_bytes(content)
    files = [*sorted(tmp_path.iterdir()), good(tmp_path, "z.md")]
    *refused, last = read_all(files, timeout_s=5, memory_mb=512)
    assert all(reading.failures and not reading.documents for reading in refused)
    assert last.documents[0].title == "Good"


def test_a_huge_text_is_refused_at_once_with_its_size(tmp_path: Path) -> None:
    huge = tmp_path / "huge.txt"
    with huge.open("wb") as file:
        file.truncate(200 * 2**20)  # sparse: takes no disk
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(b'{"text": "A row of a table with words."}\n' * 2_000_000)
    start = time.monotonic()
    first, table, second = read_all([huge, rows, good(tmp_path)], memory_mb=128)
    assert time.monotonic() - start < 30  # of which the start of the child takes the most
    assert first.failures[0].reason == table.failures[0].reason == "too large"
    assert first.failures[0].detail == "200 MB; a text may have 64 MB: split the file"
    assert "78 MB" in table.failures[0].detail
    assert second.documents[0].title == "Good"


def test_slow_file_is_ended_and_the_next_is_read(tmp_path: Path) -> None:
    slow = tmp_path / "slow.html"
    slow.write_text("<b>x" * 100_000)  # every piece of text stands in all earlier tags: minutes of work
    before, ended, after = read_all([good(tmp_path), slow, good(tmp_path, "after.md")], timeout_s=2)
    assert before.documents[0].title == after.documents[0].title == "Good"
    assert [(failure.reason, failure.detail) for failure in ended.failures] == [("timed out", "took longer than 2 s")]


def test_entities_are_not_expanded(tmp_path: Path) -> None:
    docx.Document().save(str(tmp_path / "plain.docx"))
    members = docx_members(tmp_path / "plain.docx")
    entities = "".join(f"<!ENTITY e{n} '{f'&e{n - 1};' * 10 if n else 'boom'}'>" for n in range(9))
    xml = members["word/document.xml"].decode().replace("<w:body>", "<w:body><w:p><w:r><w:t>&e8;</w:t></w:r></w:p>")
    declaration, rest = xml.split("?>", 1)
    members["word/document.xml"] = f"{declaration}?><!DOCTYPE x [{entities}]>{rest}".encode()
    (reading,) = read_all([write_package(tmp_path / "entities.docx", members)])
    assert "boom" not in reading.model_dump_json()


def test_names_of_any_kind_are_read(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/not-utf8-\xff\xfe.md"
    names = ["ü 文 \U0001f600 'quote'\n.md", "x" * 252 + ".md"]
    files = [Path(os.fsdecode(raw)), *(tmp_path / name for name in names)]
    for file in files:
        file.write_text("# Good\n\nBody.\n")
    assert [reading.documents[0].title for reading in read_all(files)] == ["Good"] * 3


def test_modules_beside_the_documents_are_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "json.py").write_text("open('canary', 'w')\n")
    (tmp_path / "pypdf.py").write_text("open('canary', 'w')\n")
    monkeypatch.chdir(tmp_path)
    (reading,) = read_all([write_pdf(tmp_path / "a.pdf", [["Words."]])])
    assert reading.documents[0].text == "Words."
    assert not (tmp_path / "canary").exists()


def test_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys, subprocess; from pathlib import Path; from tunewright.documents.sandbox import read_files\n"
        "for file, reading in read_files([Path(sys.argv[1])] * 2, 60, 256):\n"
        "    print(subprocess.run(['ps', '-o', 'pid=', '--ppid', str(__import__('os').getpid())],"
        " capture_output=True, text=True).stdout.split()[0], flush=True)\n"
        "    sys.stdin.read()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(good(tmp_path))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert "worker" in Path(f"/proc/{child}/cmdline").read_text()
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 30
    while _runs(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _runs(child)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
