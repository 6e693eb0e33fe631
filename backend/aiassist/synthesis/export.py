"""Weights as an ONNX file, for running without torch."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from aiassist.files import whole_file
from aiassist.segmenters.onnx_runner import HALF
from aiassist.segmenters.torch_runner import load_network


def export_onnx(weights: Path, path: Path) -> None:
    """Write the network of ``.safetensors`` weights as ONNX, with the same metadata.

    Weights are stored in half precision and widened when the file is loaded, so that the file is half
    as large and the arithmetic the same on every processor.
    """
    from safetensors import safe_open

    net, cells = load_network(weights)
    with safe_open(weights, "pt") as file:
        meta = file.metadata()
    sample = torch.zeros(1, net.shape.inputs, cells, cells, cells)
    with whole_file(path) as temporary:
        torch.onnx.export(
            net.eval(),
            (sample,),
            str(temporary),
            input_names=["channels"],
            output_names=["logits"],
            do_constant_folding=False,  # keeps every weight under its own name; ONNX Runtime folds when it loads
            dynamo=False,
        )
        model = onnx.load(str(temporary))
        _halve(model.graph)
        helper.set_model_props(model, meta)
        onnx.save(model, str(temporary))


def _halve(graph: onnx.GraphProto) -> None:
    """Store all float32 weights as float16, each followed by a cast back."""
    casts = []
    for number, tensor in enumerate(graph.initializer):
        if tensor.data_type != TensorProto.FLOAT:
            continue
        name = tensor.name
        half = numpy_helper.from_array(numpy_helper.to_array(tensor).astype("float16"), name + HALF)
        graph.initializer[number].CopyFrom(half)
        casts.append(helper.make_node("Cast", [name + HALF], [name], to=TensorProto.FLOAT))
    for node in reversed(casts):
        graph.node.insert(0, node)
