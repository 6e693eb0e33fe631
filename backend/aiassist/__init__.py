"""AI-assisted annotation of medical images: the backend of SlicerAIAssist.

Importing this package imports nothing heavy: no torch, no monai, no fastapi.
"""

import os

__version__ = "0.1.0"

# ONNX Runtime tells its maker of each session unless this is set before it is imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
