"""The exam's third ring: general questions, formats and texts of tunewright's own, by which forgetting is seen."""
