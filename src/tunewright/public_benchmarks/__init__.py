"""Public benchmarks on base and tuned: lm-eval's tasks by name or from files, and a small environment for agents."""
