"""Export: a run's tuned model as files that other programs load, each proven equal to what was examined."""
