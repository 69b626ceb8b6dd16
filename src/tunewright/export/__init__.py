"""Model card and hub."""
