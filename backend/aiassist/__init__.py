"""AI-assisted annotation of medical images: the backend of SlicerAIAssist.

Importing this package imports nothing heavy: no torch, no monai, no fastapi.
"""

__version__ = "0.1.0"
