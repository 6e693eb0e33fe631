"""A headless Slicer: real scene, views and editor logic; Qt made to behave as it does in Slicer's Python."""
