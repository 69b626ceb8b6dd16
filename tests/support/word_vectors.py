"""Token vectors of a few whole words, some of them near each other."""

from __future__ import annotations

import numpy as np

from tunewright.models.tensors import TokenVectors

_TEXT = "dog hound cat rose tulip stone house ran walked slept saw a the in of by what did"
WORDS = tuple(_TEXT.split())


def vectors() -> TokenVectors:
    """Whole words as tokens; dog and hound, ran and walked, rose and tulip are near each other."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    table = np.random.default_rng(0).standard_normal((len(WORDS) + 1, 32)).astype(np.float32) + 0.5
    for first, second in (("dog", "hound"), ("ran", "walked"), ("rose", "tulip")):
        near = table[WORDS.index(first)] + 0.02
        table[WORDS.index(second)] = near
    tokenizer = Tokenizer(models.WordLevel({**{word: n for n, word in enumerate(WORDS)}, "?": len(WORDS)}, "?"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return TokenVectors(table, tokenizer)
