"""NVIDIA Clara's MMARs as models, by way of the bundles that they would be today."""

from __future__ import annotations

import json

import pytest
import torch
from bundle_helpers import block, linear, load, tissues
from monai.networks.nets import UNet

from aiassist.errors import ModelError
from aiassist.imaging import Geometry, Volume
from aiassist.segmenters.base import run
from aiassist.segmenters.bundle_import import import_bundle
from aiassist.segmenters.mmar import bundle_of
from aiassist.segmenters.model_store import ModelStore


class Levels(torch.nn.Module):
    """What `bundle_helpers.LEVELS` does, as a program."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fat, muscle = (x - 0.15) * 40, (x - 0.45) * 80
        return torch.cat([torch.zeros_like(x), fat, fat + muscle], 1)


def make_mmar(folder, labels=("fat", "muscle"), **more):
    """An archive as Clara Train 4.1 laid them out; its model tells grey levels apart."""
    (folder / "config").mkdir(parents=True)
    (folder / "models").mkdir()
    keys = {"keys": ["image"]}
    scale = {"keys": "image", "a_min": -200, "a_max": 300, "b_min": 0.0, "b_max": 1.0, "clip": True}
    inverse = {"keys": "pred", "transform": "@pre_transforms", "orig_keys": "image", "meta_keys": "pred_meta_dict"}
    inference = {
        "CLARA_TRAIN_VERSION": "4.1.0",
        "amp": True,
        "model": {"ts_path": "{MMAR_TORCHSCRIPT}"},
        "pre_transforms": [
            {"name": "LoadImaged", "args": keys},
            {"name": "AddChanneld", "args": keys},
            {"name": "Spacingd", "args": {**keys, "pixdim": [1.5, 1.5, 1.5], "mode": ["bilinear"]}},
            {"name": "ScaleIntensityRanged", "args": scale},
            {"name": "CropForegroundd", "args": {**keys, "source_key": "image"}},
            {"name": "ToTensord", "args": keys},
        ],
        "inferer": {
            "name": "SlidingWindowInferer",
            "args": {"roi_size": [48, 48, 48], "sw_batch_size": 4, "overlap": 0.5},
        },
        "handlers": [{"name": "StatsHandler", "args": {"output_transform": "lambda x: None"}}],
        "post_transforms": [
            {"name": "Activationsd", "args": {"keys": "pred", "softmax": True}},
            {"name": "Invertd", "args": {**inverse, "nearest_interp": False, "to_tensor": True, "device": "cuda"}},
            {"name": "AsDiscreted", "args": {"keys": "pred", "argmax": True, "to_onehot": True, "n_classes": 3}},
            {"name": "SaveImaged", "args": {"keys": "pred", "output_dir": "{MMAR_EVAL_OUTPUT_PATH}"}},
        ],
        "evaluator": {"name": "SupervisedEvaluator", "args": {"network": "@model", "amp": "{amp}"}},
        **more,
    }
    environment = {"MMAR_EVAL_OUTPUT_PATH": "eval", "MMAR_TORCHSCRIPT": "models/levels.ts"}
    aiaa = {"version": 1, "type": "segmentation", "labels": labels, "description": "Fat and muscle in CT"}
    for name, content in (("config_inference", inference), ("environment", environment), ("config_aiaa", aiaa)):
        (folder / "config" / f"{name}.json").write_text(json.dumps(content))
    torch.jit.script(Levels()).save(str(folder / "models" / "levels.ts"))
    return folder


def test_an_mmar_of_clara_is_imported_as_a_bundle(tmp_path, volume):
    mmar = make_mmar(tmp_path / "clara_tissues")
    with pytest.raises(ModelError, match=r"is a program, models/levels.ts \(TorchScript\)"):
        load(tmp_path, mmar)
    model = load(tmp_path, mmar, is_trusted=True)
    assert [(label.name, label.value) for label in model.card.labels] == [("fat", 1), ("muscle", 2)]
    part = volume.voxels[10:40, 40:90, 30:90]
    found = run(model.segment(Volume(part, Geometry(part.shape, volume.geometry.affine)))).to_labelmap(part.shape)
    assert (found == tissues(part)).mean() > 0.8


def test_an_mmars_checkpoint_needs_the_network_of_its_training(tmp_path):
    torch.manual_seed(0)
    net = UNet(spatial_dims=3, in_channels=1, out_channels=3, channels=[4, 8], strides=[2])
    mmar = make_mmar(tmp_path / "mmar", model=[{"ckpt_path": "{MMAR_CKPT}"}, {"ts_path": "x.ts", "disabled": True}])
    torch.save({"model": net.state_dict(), "epoch": 3}, mmar / "models" / "model.pt")
    models = ModelStore(tmp_path / "models")
    with pytest.raises(ModelError, match="does not say of what kind its network is"):
        import_bundle(mmar, models)
    arguments = {"dimensions": 3, "in_channels": 1, "out_channels": 3, "channels": [4, 8], "strides": [2]}
    train = {"train": {"model": {"name": "UNet", "args": arguments}}}
    (mmar / "config" / "config_train.json").write_text(json.dumps(train))
    name, number, card = import_bundle(mmar, models)
    assert (name, number, card.description) == ("mmar", 1, "Fat and muscle in CT")
    (mmar / "config" / "config_aiaa.json").unlink()
    with pytest.raises(ModelError, match="is missing or names no labels"):
        import_bundle(mmar, models)


LINEAR = {"channels": [1, 1], "strides": [1], "kernel_size": 1, "up_kernel_size": 1, "act": None, "norm": None}


def with_network(mmar, weights):
    """The archive with numbers in the place of its program."""
    count = len(weights["model.2.conv.bias"])
    arguments = {"dimensions": 3, "in_channels": 1, "out_channels": count, **LINEAR}
    train = {"train": {"model": {"name": "UNet", "args": arguments}}}
    (mmar / "config" / "config_train.json").write_text(json.dumps(train))
    torch.save({"model": weights}, mmar / "models" / "model.pt")
    return mmar


def test_labels_of_an_mmar_are_those_of_its_channels(tmp_path):
    masks = [
        {"name": "Activationsd", "args": {"keys": "pred", "sigmoid": True}},
        {"name": "Invertd", "args": {"keys": "pred", "transform": "@pre_transforms", "orig_keys": "image"}},
        {"name": "AsDiscreted", "args": {"keys": "pred", "threshold_values": True, "logit_thresh": 0.5}},
    ]
    mmar = with_network(make_mmar(tmp_path / "masks", post_transforms=masks), linear([-80.0, 80.0], [24.0, -36.0]))
    image = block(100)
    model = load(tmp_path / "a", mmar)
    found = run(model.segment(image)).to_labelmap(image.shape)
    assert [(label.name, label.value) for label in model.card.labels] == [("fat", 1), ("muscle", 2)]
    assert (found[0, 9, 9], found[10, 9, 9]) == (1, 2)
    mmar = with_network(
        make_mmar(tmp_path / "named", labels=["background", "fat", "muscle"]), linear([0.0, 40, 120], [0.0, -6, -42])
    )
    model = load(tmp_path / "b", mmar)
    assert [(label.name, label.value) for label in model.card.labels] == [("fat", 1), ("muscle", 2)]


@pytest.mark.parametrize(
    "part, value",
    [("inferer", "SlidingWindowInferer"), ("pre_transforms", [{"name": "AddChanneld", "args": [1]}]), ("model", 5)],
)
def test_an_mmar_of_another_shape_is_said(tmp_path, part, value):
    with pytest.raises(ModelError, match=r"where a class and its arguments belong|of what kind its network is"):
        load(tmp_path, make_mmar(tmp_path / "mmar", **{part: value}))


def test_an_archive_that_only_says_how_to_validate_does_without_the_truth(tmp_path):
    mmar = with_network(make_mmar(tmp_path / "mmar"), linear([0.0, 40, 120], [0.0, -6, -42]))
    inference = mmar / "config" / "config_inference.json"
    config = json.loads(inference.read_text())
    inference.unlink()
    for one in config["pre_transforms"]:
        one["args"]["keys"] = ["image", "label"]
    config["pre_transforms"][2]["args"]["mode"] = ["bilinear", "nearest"]
    config["post_transforms"][2]["args"] = {"keys": ["pred", "label"], "argmax": [True, False]}
    (mmar / "config" / "config_validation.json").write_text(json.dumps(config))
    image = block(100)
    found = run(load(tmp_path, mmar).segment(image)).to_labelmap(image.shape)
    assert (found == tissues(image.voxels)).mean() > 0.9


@pytest.mark.parametrize(
    "said, threshold",
    [
        ({"argmax": True, "threshold_values": False, "logit_thresh": 0.5}, None),
        ({"argmax": True, "logit_thresh": 0.5}, None),
        ({"threshold_values": True}, 0.5),
        ({"threshold_values": True, "logit_thresh": 0.3}, 0.3),
        ({"threshold_values": [True, False], "logit_thresh": 0.3, "keys": ["pred", "label"]}, [0.3]),
        ({"threshold_values": True, "logit_thresh": [0.3, 0.4], "keys": ["pred", "label"]}, [0.3]),
        ({"threshold": 0.4}, 0.4),
    ],
)
def test_a_threshold_of_claras_day_counts_only_where_it_was_used(tmp_path, said, threshold):
    discrete = {"name": "AsDiscreted", "args": {"keys": "pred", **said}}
    config, _metadata = bundle_of(make_mmar(tmp_path / "mmar", post_transforms=[discrete]))
    (transform,) = config["postprocessing"]
    assert transform.get("threshold") == threshold and not {"logit_thresh", "threshold_values"} & transform.keys()


def test_labels_stay_apart_where_a_threshold_was_said_but_not_used(tmp_path):
    unused = {"threshold_values": False, "logit_thresh": 0.5}
    likeliest = [
        {"name": "Activationsd", "args": {"keys": "pred", "softmax": True}},
        {"name": "AsDiscreted", "args": {"keys": "pred", "argmax": True, **unused}},
    ]
    mmar = make_mmar(tmp_path / "mmar", ["unlabelled", "fat", "muscle"], post_transforms=likeliest)
    inference = mmar / "config" / "config_inference.json"
    config = json.loads(inference.read_text())
    turn = {"name": "Orientationd", "args": {"keys": "image", "axcodes": "RAS"}}
    config["pre_transforms"] = [*config["pre_transforms"][:2], turn, *config["pre_transforms"][2:4]]
    inference.write_text(json.dumps(config))
    voxels = block(100).voxels.copy()
    voxels[:3, :4, :5] = -200
    image = Volume(voxels, block(100).geometry)
    model = load(tmp_path, with_network(mmar, linear([0.0, 40, 120], [0.0, -6, -42])))
    assert [(label.name, label.value) for label in model.card.labels] == [("fat", 1), ("muscle", 2)]
    found = run(model.segment(image)).to_labelmap(image.shape)
    assert (found == tissues(voxels)).all()  # turned back without Invertd, too


def test_errors_in_an_mmar_name_it_and_not_the_bundle_that_it_becomes(tmp_path):
    mmar = with_network(make_mmar(tmp_path / "mmar"), linear([0.0, 40, 120], [0.0, -6, -42]))
    inference = mmar / "config" / "config_inference.json"
    config = json.loads(inference.read_text())
    del config["inferer"]
    inference.write_text(json.dumps(config))
    with pytest.raises(ModelError) as told:
        load(tmp_path, mmar)
    assert str(told.value).startswith(f"{mmar}") and "has no inferer" in str(told.value)
