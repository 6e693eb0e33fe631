"""Weights as an ONNX file, for running without torch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from aiassist.errors import ModelError
from aiassist.files import whole_file
from aiassist.segmenters.onnx_runner import BYTES, HALF, SCALE
from aiassist.segmenters.torch_runner import load_network


def export_folder(
    weights: Path,
    folder: Path,
    name: str,
    version: str,
    machine: str,
    results: dict | None = None,
    corrections: Path | None = None,
    mean_with: Path | None = None,
    mean_share: float = 0.5,
) -> None:
    """Write a model folder: ``weights.onnx``, and ``card.json`` that says where the weights come from.

    Weights are stored in eight bits. With `corrections` also ``corrections.onnx``, by which clicks correct; without,
    one that is there is removed.

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
        The model's summary in what ``aiassist evaluate --json`` wrote; its numbers go into the card.
    corrections : Path, optional
        ``weights.safetensors`` of a run on corrections.
    mean_with : Path, optional
        Weights to take the mean with, as a rule those that the run began from (Wortsman et al. 2022, arXiv:2109.01903).
    mean_share : float
        How much these count, between 0 and 1; the run's own count the rest.

    Raises
    ------
    ModelError
        When weights are missing, damaged, or of something else.
    """
    metrics = _training(weights)
    if corrections is not None:
        metrics |= {f"corrections, {key}": value for key, value in _training(corrections).items()}
    if results is not None:
        metrics |= _metrics(results)
    folder.mkdir(parents=True, exist_ok=True)
    export_onnx(weights, folder / "weights.onnx", eight_bits=True, mean_with=mean_with, mean_share=mean_share)
    if corrections is not None:
        export_onnx(corrections, folder / "corrections.onnx", eight_bits=True)
    else:
        (folder / "corrections.onnx").unlink(missing_ok=True)
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


def _meta(weights: Path) -> dict[str, str]:
    """What training wrote beside weights; `ModelError` when they are damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, "pt") as file:
            return file.metadata() or {}
    except (SafetensorError, FileNotFoundError) as error:
        raise ModelError(f"The weights {weights} cannot be read; they are missing or damaged.") from error


def _training(weights: Path) -> dict[str, float]:
    """How long weights were trained, and from which seed; `ModelError` when they do not say."""
    meta = _meta(weights)
    try:
        settings = json.loads(meta["settings"])
        numbers = {"steps": int(meta["step"]), "batch": settings["batch"], "seed": settings["seed"]}
        return numbers | {"hours": float(meta["hours"])}
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"The weights {weights} were not written by aiassist synth train.") from error


def _metrics(summary: dict) -> dict[str, float]:
    """The headline numbers of a summary of results."""
    dice, median = ({int(n): v for n, v in summary["oracle"][name].items()} for name in ("dice", "dice_median"))
    found = {"dice, mean over strata": dice[0], "dice, median": median[0]}
    most = max(dice)
    if most > 0:
        found[f"dice after {most} clicks, mean over strata"] = dice[most]
    return {name: round(value, 4) for name, value in found.items()}


def export_onnx(
    weights: Path, path: Path, eight_bits: bool = False, mean_with: Path | None = None, mean_share: float = 0.5
) -> None:
    """Write the network of ``.safetensors`` weights as ONNX, with the same metadata.

    Weights are stored in half precision and widened when the file is loaded, so that the file is half
    as large and the arithmetic the same on every processor. It runs on any number of cells that the network can halve;
    the metadata say on how many it was trained. With `eight_bits` those of convolutions are
    stored as bytes with a scale for each first index, which halves the file once more. `mean_with` and `mean_share`
    as for `export_folder`.
    """
    net, cells = load_network(weights)
    if mean_with is not None:
        other = load_network(mean_with, net.shape)[0].state_dict()
        net.load_state_dict({name: value.lerp(other[name], mean_share) for name, value in net.state_dict().items()})
    sample = torch.zeros(1, net.shape.inputs, cells, cells, cells)
    with whole_file(path) as temporary:
        torch.onnx.export(
            net.eval(),
            (sample,),
            str(temporary),
            input_names=["channels"],
            output_names=["logits"],
            dynamic_axes={name: {axis: "cells" for axis in (2, 3, 4)} for name in ("channels", "logits")},
            do_constant_folding=False,  # keeps every weight under its own name; ONNX Runtime folds when it loads
            dynamo=False,
        )
        model = onnx.load(str(temporary))
        _narrow(model.graph, eight_bits)
        helper.set_model_props(model, _meta(weights))
        onnx.save(model, str(temporary))


def _narrow(graph: onnx.GraphProto, eight_bits: bool) -> None:
    """Store all float32 weights in fewer bits, each followed by what widens it."""
    stored, nodes = [], []
    for tensor in graph.initializer:
        array, name = numpy_helper.to_array(tensor), tensor.name
        if tensor.data_type != TensorProto.FLOAT:
            stored.append(tensor)
        elif eight_bits and array.ndim == 5:
            scale = np.abs(array).max(axis=(1, 2, 3, 4), keepdims=True) / 127 + 1e-12
            stored.append(numpy_helper.from_array(np.rint(array / scale).astype(np.int8), name + BYTES))
            stored.append(numpy_helper.from_array(scale.astype(np.float32), name + SCALE))
            nodes.append(helper.make_node("Cast", [name + BYTES], [name + ".wide"], to=TensorProto.FLOAT))
            nodes.append(helper.make_node("Mul", [name + ".wide", name + SCALE], [name]))
        else:
            stored.append(numpy_helper.from_array(array.astype(np.float16), name + HALF))
            nodes.append(helper.make_node("Cast", [name + HALF], [name], to=TensorProto.FLOAT))
    del graph.initializer[:]
    graph.initializer.extend(stored)
    for node in reversed(nodes):
        graph.node.insert(0, node)
