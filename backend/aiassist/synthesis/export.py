"""Weights as an ONNX file, for running without torch."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from aiassist.files import whole_file
from aiassist.segmenters.onnx_runner import HALF
from aiassist.segmenters.torch_runner import load_network


def export_folder(
    weights: Path, folder: Path, name: str, version: str, machine: str, results: dict | None = None
) -> None:
    """Write a model folder: ``weights.onnx``, and ``card.json`` that says where the weights come from.

    Parameters
    ----------
    weights : Path
        ``weights.safetensors`` of a run.
    folder : Path
        Made when missing.
    name, version : str
        Of the model.
    machine : str
        What it was trained on, in words.
    results : dict, optional
        What ``aiassist evaluate --json`` wrote; the numbers of model `name` go into the card.
    """
    from safetensors import safe_open

    folder.mkdir(parents=True, exist_ok=True)
    export_onnx(weights, folder / "weights.onnx")
    with safe_open(weights, "pt") as file:
        meta = file.metadata()
    settings = json.loads(meta["settings"])
    metrics = {"steps": int(meta["step"]), "batch": settings["batch"], "seed": settings["seed"]}
    metrics["hours"] = float(meta["hours"])
    if results is not None:
        metrics |= _metrics(results["models"][name]["all"])
    card = {
        "name": name,
        "version": version,
        "kind": "promptable",
        "description": "Any structure in any modality, from a few points; a small 3D network.",
        "licence": "Apache-2.0",
        "metrics": metrics,
        "provenance": f"Trained by aiassist synth train on synthetic volumes only, on {machine}; has seen no patient.",
        "devices": ["cpu", "cuda"],
    }
    with whole_file(folder / "card.json") as temporary:
        temporary.write_text(json.dumps(card, indent=2) + "\n", encoding="utf8")


def _metrics(summary: dict) -> dict[str, float]:
    """The headline numbers of a summary of results."""
    dice, median = ({int(n): v for n, v in summary["oracle"][name].items()} for name in ("dice", "dice_median"))
    found = {"dice, mean over strata": dice[0], "dice, median": median[0]}
    most = max(dice)
    if most > 0:
        found[f"dice after {most} clicks, mean over strata"] = dice[most]
    return {name: round(value, 4) for name, value in found.items()}


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
