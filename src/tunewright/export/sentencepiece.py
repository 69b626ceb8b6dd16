"""How llama.cpp tokenizes with a SentencePiece vocabulary, to check before writing one that it agrees."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator, Sequence

SPACE = "\u2581"
# After these, Phi-3's white space is kept; after its other special tokens llama.cpp takes it away.
_KEEPS_SPACE = ("<unk>", "<s>", "<|endoftext|>")


class Pieces:
    """A vocabulary of pieces with scores; of two neighbours that make a piece, those of the highest score merge first.

    Args:
        tokens: the text of each token.
        scores: of each.
        special: the numbers of those that are cut out of the text before.
        space_prefix: whether a space is put before text that stands first or after a special token.
        strips: whether white space after a special token belongs to it.
    """

    def __init__(
        self, tokens: Sequence[str], scores: Sequence[float], special: Sequence[int], space_prefix: bool, strips: bool
    ) -> None:
        self.tokens = tokens
        self.numbers = {text: number for number, text in enumerate(tokens)}
        self.scores = scores
        self.space_prefix = space_prefix
        self.strips = strips
        longest_first = sorted((tokens[number] for number in special), key=len, reverse=True)
        self._special = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")" if special else "($^)")

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text whose special tokens count as such."""
        ids: list[int] = []
        before: str | None = ""  # the special token that the next text follows
        for place, part in enumerate(self._special.split(text)):
            if place % 2:
                ids.append(self.numbers[part])
                before = part
                continue
            if self.strips and before and before not in _KEEPS_SPACE:
                part = part.lstrip()
            if part:
                prefix = SPACE if self.space_prefix and before is not None else ""
                ids += self._merge(prefix + part.replace(" ", SPACE))
                before = None
        return ids

    def _merge(self, text: str) -> Iterator[int]:
        parts = list(text)
        following = [*range(1, len(parts)), -1]
        previous = list(range(-1, len(parts) - 1))
        queue: list[tuple[float, int, int, str]] = []

        def offer(left: int, right: int) -> None:
            if left >= 0 and right >= 0:
                number = self.numbers.get(parts[left] + parts[right])
                if number is not None:
                    heapq.heappush(queue, (-self.scores[number], left, right, parts[left] + parts[right]))

        for left in range(len(parts) - 1):
            offer(left, left + 1)
        while queue:
            _, left, right, whole = heapq.heappop(queue)
            if not parts[left] or not parts[right] or parts[left] + parts[right] != whole:
                continue
            parts[left], parts[right] = whole, ""
            following[left] = following[right]
            if following[right] >= 0:
                previous[following[right]] = left
            offer(previous[left], left)
            offer(left, following[left])
        for part in filter(None, parts):
            if part in self.numbers:
                yield self.numbers[part]
            else:
                yield from (self.numbers.get(f"<0x{byte:02X}>", -1) for byte in part.encode())
