"""Networks by ONNX Runtime, on the CPU and without torch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from aiassist.errors import MissingExtraError, ModelError

#: Ending of the names of weights that are stored in half precision.
HALF = ".half"
#: Endings of the names of weights that are stored in eight bits, and of the scales that they are multiplied by.
BYTES, SCALE = ".int8", ".scale"


class OnnxRunner:
    """Runs an ONNX file; see `aiassist.segmenters.promptable.Runner`.

    Parameters
    ----------
    path : Path
        A network with one input (1, n, c, c, c) and one output (1, m, c, c, c), both float32; m is 1 unless it tells
        several structures apart. Where c is left open, its metadata say on how many cells it was trained.
    threads : int
        0 lets ONNX Runtime choose.

    Raises
    ------
    ModelError
        When the file is missing, damaged or of another network.
    """

    def __init__(self, path: Path, threads: int = 0):
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError("onnxruntime", "network", "The bundled network") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise ModelError(f"The weights {path} cannot be read; reinstall the model.") from error
        (self._input,) = self._session.get_inputs()
        shape, meta = self._input.shape, self._session.get_modelmeta().custom_metadata_map
        self.takes_any = len(shape) == 5 and not isinstance(shape[-1], int)
        cells = json.loads(meta.get("settings", "{}")).get("cells") if self.takes_any else shape[-1]
        if len(shape) != 5 or not isinstance(cells, int):
            raise ModelError(f"The weights {path} are of another network: their input is {shape}.")
        self.inputs, self.cells = shape[1], cells

    def __call__(self, channels: np.ndarray) -> np.ndarray:
        return self.all(channels)[0]

    def all(self, channels: np.ndarray) -> np.ndarray:
        """Logits (m, c, c, c) of all structures."""
        (logits,) = self._session.run(None, {self._input.name: channels[np.newaxis]})
        return logits[0]
