"""The learning loop: a model learns from corrected labels, and replaces the published one only when it is better."""
