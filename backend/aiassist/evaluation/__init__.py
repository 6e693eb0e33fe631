"""Measure segmenters on cases with ground truth, through the product's own path."""
