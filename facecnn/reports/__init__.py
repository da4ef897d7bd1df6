"""Output for people: plots, the report page, the model card, explanations, contact sheets."""
