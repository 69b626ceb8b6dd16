"""The retention suite: general questions, formats and texts that measure forgetting, written for tunewright."""
