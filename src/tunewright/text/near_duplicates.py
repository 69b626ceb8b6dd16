"""Groups of texts that nearly repeat each other, by MinHash with exact Jaccard similarity."""

from __future__ import annotations

from collections.abc import Sequence

from tunewright.text.normalization import jaccard, shingles, words

_SHINGLE_WORDS = 5
_NUM_HASHES = 128
_MAX_MISS = 1e-4  # probability that a pair exactly at the threshold is not compared


def _bands(threshold: float) -> tuple[int, int]:
    """Return (bands, rows): the most selective banding that misses at most ``_MAX_MISS`` at the threshold.

    A pair of similarity s is compared with probability 1 - (1 - s^rows)^bands (Leskovec, Rajaraman, Ullman:
    Mining of Massive Datasets, section 3.4).
    """
    for rows in range(_NUM_HASHES // 2, 1, -1):  # the index needs at least two bands
        bands = _NUM_HASHES // rows
        if (1 - threshold**rows) ** bands <= _MAX_MISS:
            return bands, rows
    return _NUM_HASHES, 1


def near_duplicate_indexes(texts: Sequence[str], threshold: float) -> list[list[int]]:
    """Return the indexes of the texts in groups of linked near-duplicates, in the order of their first members.

    Two texts are near-duplicates if the Jaccard similarity of their word 5-grams reaches the threshold. MinHash
    (Broder 1997) only selects the candidates; their similarity is computed exactly.
    """
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(num_perm=_NUM_HASHES, params=_bands(threshold))
    leader = list(range(len(texts)))

    def find(member: int) -> int:
        while leader[member] != member:
            leader[member] = leader[leader[member]]
            member = leader[member]
        return member

    for number, text in enumerate(texts):
        own = shingles(words(text), _SHINGLE_WORDS)
        signature = MinHash(num_perm=_NUM_HASHES, seed=1)
        signature.update_batch(["\0".join(shingle).encode("utf-8", "replace") for shingle in own])
        for other in index.query(signature):
            low, high = sorted((find(number), find(other)))
            # Candidates are rare: their shingles are computed again, since keeping all would fill the memory.
            if low != high and own:
                others = shingles(words(texts[other]), _SHINGLE_WORDS)
                if jaccard(own, others) >= threshold:
                    leader[high] = low
        index.insert(number, signature)
    groups: dict[int, list[int]] = {}
    for number in range(len(texts)):
        groups.setdefault(find(number), []).append(number)
    return list(groups.values())
