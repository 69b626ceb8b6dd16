"""Blind marks by people: the plan, the page, the reading, the summary."""
