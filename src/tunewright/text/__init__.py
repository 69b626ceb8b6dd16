"""Operations on text that every stage shares: normalization, perturbation, injection patterns, prompts, tables."""
