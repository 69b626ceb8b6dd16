"""The split of documents into training and exam: near-duplicates grouped by MinHash, then a seeded split by group."""

from __future__ import annotations

from collections.abc import Sequence

from tunewright.errors import DocumentError
from tunewright.records import Document, Side, SplitEntry, digest
from tunewright.text.near_duplicates import near_duplicate_indexes


def near_duplicate_groups(documents: Sequence[Document], threshold: float) -> list[list[Document]]:
    """Return the documents in groups of linked near-duplicates (``near_duplicate_indexes``), each sorted by source."""
    ordered = sorted(documents, key=lambda document: document.source)
    texts = [document.text for document in ordered]
    return [[ordered[index] for index in group] for group in near_duplicate_indexes(texts, threshold)]


def exam_groups(sizes: Sequence[int], share: float) -> set[int]:
    """Return the ranks of the exam's groups: in order, each group that brings the exam closer to its share.

    With two or more groups and a share between 0 and 1 (both exclusive), each side has at least one group.

    Args:
        sizes: number of documents of each group, in rank order.
        share: the exam's share of the documents, 0 to 1.
    """
    target = share * sum(sizes)
    taken: set[int] = set()
    count = 0
    for rank, size in enumerate(sizes):
        if abs(count + size - target) < abs(count - target):
            taken.add(rank)
            count += size
    if 0 < share < 1 and len(sizes) > 1:
        smallest = min(range(len(sizes)), key=lambda rank: sizes[rank])
        if not taken:
            taken = {smallest}
        elif len(taken) == len(sizes):
            taken.remove(smallest)
    return taken


def split_documents(
    documents: Sequence[Document], exam_share: float, near_duplicate: float, seed: int
) -> list[SplitEntry]:
    """Return each document's side, in the order of the documents; a group has the name of its smallest source.

    Groups are ranked by the seed and that source, not by content, so that an edited document moves no other document.

    Raises:
        DocumentError: the exam share is above 0, and all documents are near-duplicates of each other.
    """
    groups = near_duplicate_groups(documents, near_duplicate)
    if 0 < exam_share < 1 and len(groups) < 2:
        raise DocumentError(
            "the documents cannot be split into training and exam",
            "there is only one document"
            if len(documents) == 1
            else f"all {len(documents)} documents are near-duplicates of each other (curation.near_duplicate = "
            f"{near_duplicate:g})",
            "add a different document, or train without unseen questions: --set split.exam_share=0",
        )
    groups.sort(key=lambda group: digest(seed, group[0].source))
    taken = exam_groups([len(group) for group in groups], exam_share)
    entries: dict[str, SplitEntry] = {}
    for rank, group in enumerate(groups):
        side: Side = "exam" if rank in taken else "train"
        for document in group:
            entries[document.id] = SplitEntry(document=document.id, side=side, group=group[0].source)
    return [entries[document.id] for document in documents]
