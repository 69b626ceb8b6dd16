"""The fast path: decoder layers with a backward pass of their own. decoder.py says when it is taken."""
