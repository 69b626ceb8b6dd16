"""One index for everything that is searched: words (BM25) and meaning (sentence vectors), fused."""
