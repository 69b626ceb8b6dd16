"""Templates, style and SVG figures: no knowledge of a run."""
