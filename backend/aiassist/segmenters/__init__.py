"""Segmenters: they turn a volume and prompts into mask patches."""
