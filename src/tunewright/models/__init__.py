"""The student: where it comes from, loading, adapters, templates, generation."""
