"""NVIDIA Clara's Medical Model ARchives (MMAR, of Clara Train 4 with PyTorch) as MONAI bundles, which took their place.

See https://docs.nvidia.com/clara/clara-train-sdk/pt/mmar.html for the format; examples (Apache-2.0):
https://github.com/NVIDIA/clara-train-examples
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from aiassist.errors import ModelError
from aiassist.segmenters.bundle_metadata import is_background
from aiassist.segmenters.recipe import read_config

#: Files in ``config`` that say how to segment, the first that is there.
FILES = ("config_inference.json", "config_validation.json")
#: What the variables of an archive stand for when its ``environment.json`` says nothing of them.
USUAL = {"MMAR_CKPT_DIR": "models", "MMAR_CKPT": "models/model.pt", "MMAR_TORCHSCRIPT": "models/model.ts"}
#: Names that MONAI has changed since.
_RENAMED = {"dimensions": "spatial_dims", "sigmoid_thresh": "threshold"}
#: Arguments that MONAI has no more, or that make of labels what is not wanted here.
_GONE = {
    "AsDiscreted": {"n_classes", "num_classes", "to_onehot", "threshold_values", "logit_thresh"},
    "Invertd": {"meta_keys"},
}
#: What a transform for validation calls the truth, which a model does not get.
_TRUTH = "label"
#: Transforms that MONAI has no more, or that can no longer be inverted, and what does the same.
_REPLACED = {"AddChanneld": ("EnsureChannelFirstd", {"channel_dim": "no_channel"}), "ToTensord": ("EnsureTyped", {})}


def is_mmar(folder: Path) -> bool:
    """Whether a folder is an archive that can be read here."""
    return any((folder / "config" / name).is_file() for name in FILES)


def bundle_of(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configuration and the metadata of the bundle that an archive's folder would be today.

    Raises
    ------
    ModelError
        When the archive does not say how its model is built, or what it finds.
    """
    path = next(folder / "config" / name for name in FILES if (folder / "config" / name).is_file())
    said, found = read_config(path), _read_if_there(folder / "config" / "config_aiaa.json")
    known = {**USUAL, **_read_if_there(folder / "config" / "environment.json"), **said}
    said = _filled(said, known)
    config = {
        "bundle_root": ".",
        "preprocessing": _transforms(folder, said, "pre_transforms"),
        "postprocessing": _transforms(folder, said, "post_transforms"),
        **_model(folder, said),
    }
    if "inferer" in said:
        config["inferer"] = _component(said["inferer"])
    has_background = not any(one.get("sigmoid") for one in config["postprocessing"])
    return config, _metadata(folder, found, _read_if_there(folder / "resources" / "metadata.json"), has_background)


def _read_if_there(path: Path) -> dict[str, Any]:
    return read_config(path) if path.is_file() else {}


def _filled(value: Any, known: dict) -> Any:
    """The value with its variables, as ``{MMAR_CKPT}``, replaced by what they stand for, and the names of today."""
    if isinstance(value, dict):
        return {key: _filled(inner, known) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, known) for inner in value]
    if not isinstance(value, str):
        return value
    whole = re.fullmatch(r"\{(\w+)\}", value)
    if whole is not None and whole[1] in known:
        return known[whole[1]]
    value = re.sub(r"\{(\w+)\}", lambda match: str(known.get(match[1], match[0])), value)
    return value.replace("@pre_transforms", "@preprocessing").replace("@post_transforms", "@postprocessing")


def _transforms(folder: Path, said: dict, part: str) -> list[dict]:
    """The transforms of a part, of the image and the answer only."""
    listed = said.get(part) or []
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise ModelError(f"The {part} of {folder} are no list of transforms, as those of an MMAR are.")
    each = [_without_truth(_component(one)) for one in listed if not one.get("disabled")]
    return [one for one in each if one.get("keys") != []]


def _without_truth(transform: dict) -> dict:
    """The transform for what is not the truth; of arguments with a value for each key, the others' are kept."""
    keys = transform.get("keys")
    if not isinstance(keys, list):
        return {**transform, "keys": []} if keys == _TRUTH else transform
    kept = [number for number, key in enumerate(keys) if key != _TRUTH]
    each = {name: value for name, value in transform.items() if isinstance(value, list) and len(value) == len(keys)}
    return {**transform, **{name: [value[number] for number in kept] for name, value in each.items()}}


def _component(said: dict) -> dict:
    """A component as a bundle has it."""
    if not isinstance(said, dict) or not isinstance(said.get("args", {}), dict):
        raise ModelError(f"The MMAR holds {str(said)[:80]!r} where a class and its arguments belong.")
    name = str(said.get("path") or said.get("name") or "")
    kind, given = name.rpartition(".")[2], said.get("args", {})
    arguments = {_RENAMED.get(key, key): value for key, value in given.items() if key not in _GONE.get(kind, ())}
    if kind == "AsDiscreted" and "threshold_values" in given:
        arguments["threshold"] = _thresholds(given["threshold_values"], given.get("logit_thresh", 0.5))
    name, more = _REPLACED.get(kind, (name, {}))
    return {"_target_": name, **arguments, **more}


def _thresholds(are_used: Any, values: Any) -> Any:
    """Where masks end, for each key where one of the two is said for each: a value counts only where it is used."""
    if not isinstance(are_used, list) and not isinstance(values, list):
        return values if are_used else None
    count = len(are_used if isinstance(are_used, list) else values)
    each = [one if isinstance(one, list) else [one] * count for one in (are_used, values)]
    return [value if is_used else None for is_used, value in zip(*each, strict=False)]


def _model(folder: Path, said: dict) -> dict[str, Any]:
    """Where the weights lie, and the network that they are for; TorchScript brings its own."""
    models = said.get("model", [])
    models = models if isinstance(models, list) else [models]
    models = [one for one in models if isinstance(one, dict) and not one.get("disabled")]
    script = next((one["ts_path"] for one in models if "ts_path" in one), None)
    weights = next((one["ckpt_path"] for one in models if "ckpt_path" in one), USUAL["MMAR_CKPT"])
    network = next((one for one in models if "name" in one or "path" in one), None)
    if network is None:
        train = _read_if_there(folder / "config" / "config_train.json").get("train")
        network = train.get("model") if isinstance(train, dict) else None
    if script is not None and (network is None or not (folder / str(weights)).is_file()):
        weights = script
    elif network is None:
        raise ModelError(f"{folder} does not say of what kind its network is, neither for inference nor for training.")
    loader = {"_target_": "CheckpointLoader", "load_path": f"$@bundle_root + '/{weights}'"}
    built = _component(network) if network is not None else {"_target_": "UNet"}  # which TorchScript never needs
    return {"network_def": built, "checkpointloader": loader}


def _metadata(folder: Path, found: dict, more: dict, has_background: bool) -> dict[str, Any]:
    """What the archive's description for AIAA says, as a bundle says it; whether channel 0 is the background."""
    labels = found.get("labels")
    if not isinstance(labels, list) or not labels:
        raise ModelError(
            f"{folder / 'config' / 'config_aiaa.json'} is missing or names no labels, so what it finds is not known."
        )
    labels = labels[1:] if has_background and is_background(str(labels[0])) else labels
    named = [str(label) for label in labels if str(label).lower() != "background"]
    channels = {str(n): text for n, text in enumerate(["background", *named] if has_background else named)}
    return {
        "name": str(more.get("name") or folder.name),
        "version": str(found.get("version", "")),
        "description": str(found.get("description") or "A model of NVIDIA Clara."),
        "network_data_format": {"inputs": {"image": {}}, "outputs": {"pred": {"channel_def": channels}}},
    }
