"""The server: FastAPI over the engine and the ground truth."""
