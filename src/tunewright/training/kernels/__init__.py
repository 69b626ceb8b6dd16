"""The fast path: decoder layers with a backward pass of their own; compute_path.py decides when it is taken."""
