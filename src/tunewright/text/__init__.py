"""What every stage does to text: normalization, edits, planted instructions, prompts, tables."""
