"""Arms, metrics, statistics, verdict and report."""
