"""One index for everything that is searched: words (BM25), meaning (sentence vectors) and named titles."""
