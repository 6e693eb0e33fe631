"""A MONAI bundle that anybody can check: it tells grey levels apart."""

from __future__ import annotations

import copy
import json

import numpy as np
import torch
from monai.networks.nets import UNet

from aiassist.imaging import Geometry, Volume
from aiassist.segmenters.base import Segmenter
from aiassist.segmenters.bundle_import import import_bundle
from aiassist.segmenters.model_store import ModelStore
from aiassist.segmenters.registry import load_network_folder

#: As those of MONAI's model zoo: a U-Net in a sliding window over 1.5 mm voxels, turned to the patient.
CONFIG = {
    "imports": ["$import glob", "$import os"],
    "bundle_root": ".",
    "image_key": "image",
    "output_dir": "$@bundle_root + '/eval'",
    "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
    "fine": True,
    "pixdim": "$[1.5, 1.5, 1.5] if @fine else [3.0, 3.0, 3.0]",
    "network_def": {
        "_target_": "UNet",
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 3,
        "channels": [1, 1],
        "strides": [1],
        "kernel_size": 1,
        "up_kernel_size": 1,
        "act": None,
        "norm": None,
    },
    "network": "$@network_def.to(@device)",
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "LoadImaged", "keys": "@image_key"},
            {"_target_": "EnsureChannelFirstd", "keys": "@image_key"},
            {"_target_": "Orientationd", "keys": "@image_key", "axcodes": "RAS"},
            {"_target_": "Spacingd", "keys": "@image_key", "pixdim": "@pixdim", "mode": "bilinear"},
            {
                "_target_": "ScaleIntensityRanged",
                "keys": "@image_key",
                "a_min": -200,
                "a_max": 300,
                "b_min": 0,
                "b_max": 1,
                "clip": True,
            },
            {"_target_": "EnsureTyped", "keys": "@image_key", "device": "@device"},
        ],
    },
    "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [48, 48, 48], "sw_batch_size": 2, "overlap": 0.25},
    "postprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "Activationsd", "keys": "pred", "softmax": True},
            {
                "_target_": "Invertd",
                "keys": "pred",
                "transform": "@preprocessing",
                "orig_keys": "@image_key",
                "nearest_interp": False,
                "to_tensor": True,
            },
            {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
            {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir"},
        ],
    },
    "checkpointloader": {
        "_target_": "CheckpointLoader",
        "load_path": "$@bundle_root + '/models/model.pt'",
        "load_dict": {"model": "@network"},
    },
}
METADATA = {
    "version": "0.3.1",
    "name": "Tissues by grey level",
    "description": "Fat and muscle in CT.",
    "authors": "The tests",
    "eval_metrics": {"mean_dice": 0.9, "why": "because"},
    "network_data_format": {
        "inputs": {"image": {"modality": "CT", "num_channels": 1}},
        "outputs": {"pred": {"channel_def": {"0": "background", "1": "fat", "2": "muscle"}}},
    },
}


def linear(scale: list[float], offset: list[float]) -> dict:
    """Weights of a `linear_net`: each channel of its answer is the grey level, scaled and moved."""
    weights = linear_net(len(scale)).state_dict()
    weights = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
    weights["model.0.conv.weight"] += 1
    weights["model.2.conv.weight"][0] = torch.tensor(scale).reshape(-1, 1, 1, 1)
    weights["model.2.conv.bias"] = torch.tensor(offset)
    return weights


def linear_net(channels: int) -> UNet:
    """A U-Net, as that of `CONFIG`, that looks at one voxel."""
    options = {"channels": [1, 1], "strides": [1], "kernel_size": 1, "up_kernel_size": 1, "act": None, "norm": None}
    return UNet(spatial_dims=3, in_channels=1, out_channels=channels, **options)


#: Fat where the grey level is some, muscle where it is higher: what anybody can check.
LEVELS = linear([0.0, 40.0, 120.0], [0.0, -6.0, -42.0])


def make_bundle(folder, config=CONFIG, metadata=METADATA, weights=LEVELS):
    """A bundle's folder; its model tells grey levels apart, or has these weights."""
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    (folder / "LICENSE").write_text("Apache License\nVersion 2.0, January 2004")
    torch.save(weights, folder / "models" / "model.pt")
    return folder


def changed(part: str, value) -> dict:
    """`CONFIG` with another part."""
    config = copy.deepcopy(CONFIG)
    config[part] = value
    return config


def load(folder, bundle, **options) -> Segmenter:
    """The model "model" that a bundle makes, in a folder of models."""
    models = ModelStore(folder / "models")
    name, number, _card = import_bundle(bundle, models, "model", **options)
    return load_network_folder(models.folder_of(name, number))


def block(value: int, shape=(20, 24, 28)) -> Volume:
    """A volume of -100 with slices of a value, on the grid that the bundle works on."""
    voxels = np.full(shape, -100, np.int16)
    voxels[5:15] = value
    return Volume(voxels, Geometry.from_spacing(shape, (1.5, 1.5, 1.5)))


def tissues(voxels) -> np.ndarray:
    """What `LEVELS` stands for: fat from -125 HU, muscle from 25."""
    return np.digitize(voxels, [-125, 25])
