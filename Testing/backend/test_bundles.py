"""MONAI bundles as models: what they hold is looked through, imported, run, and taken back."""

from __future__ import annotations

import copy
import json
import shutil
import sys
import zipfile

import numpy as np
import pytest
import torch
from monai.networks.nets import UNet

from aiassist import cli
from aiassist.engine import LocalBackend, SegmentRequest
from aiassist.errors import MissingExtraError, ModelError
from aiassist.groundtruth import GroundTruthStore
from aiassist.imaging import Geometry, Volume, read_labelmap, write_volume
from aiassist.segmenters.base import run
from aiassist.segmenters.bundle_import import import_bundle
from aiassist.segmenters.model_store import MODELS, ModelStore
from aiassist.segmenters.recipe import read_recipe
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
        "channels": [4, 8],
        "strides": [2],
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


class Levels(torch.nn.Module):
    """Fat where the grey level is some, muscle where it is higher: what anybody can check."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fat, muscle = (x - 0.15) * 40, (x - 0.45) * 80
        return torch.cat([torch.zeros_like(x), fat, fat + muscle], 1)


def make_bundle(folder, config=CONFIG, metadata=METADATA, weights=None):
    """A bundle's folder; its model tells grey levels apart, or is a U-Net of these weights."""
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    (folder / "LICENSE").write_text("Apache License\nVersion 2.0, January 2004")
    if weights is None:
        torch.jit.script(Levels()).save(str(folder / "models" / "model.ts"))
    else:
        torch.save(weights, folder / "models" / "model.pt")
    return folder


@pytest.fixture
def studies(tmp_path):
    folder = tmp_path / "studies"
    GroundTruthStore(folder).close()
    return folder


def aiassist(*arguments) -> int:
    return cli.main([str(argument) for argument in arguments])


def tissues(voxels) -> np.ndarray:
    """What `Levels` stands for: fat from -125 HU, muscle from 25."""
    return np.digitize(voxels, [-125, 25])


def changed(part: str, value) -> dict:
    config = copy.deepcopy(CONFIG)
    config[part] = value
    return config


def test_a_bundle_is_imported_runs_in_the_images_own_grid_and_is_taken_back(tmp_path, studies, volume, capsys):
    bundle = make_bundle(tmp_path / "tissues")
    assert aiassist("models", "import", bundle, "--studies", studies, "--author", "Ada") == 0
    said = capsys.readouterr().out
    assert said == "tissues-by-grey-level version 1 is used from now on; it finds fat, muscle.\n"
    image, found = tmp_path / "image.nii.gz", tmp_path / "labels.nii.gz"
    write_volume(image, volume)
    assert aiassist("segment", image, "-o", found, "--model", "tissues-by-grey-level", "--studies", studies) == 0
    labels, truth = read_labelmap(found, like=volume).voxels, tissues(volume.voxels)
    for value in (1, 2):
        overlap = 2 * ((labels == value) & (truth == value)).sum() / ((labels == value).sum() + (truth == value).sum())
        assert overlap > 0.85, value  # seen at 1.5 mm
    card = load_network_folder(studies / MODELS / "tissues-by-grey-level" / "1").card
    assert (card.kind, card.modalities, card.licence) == ("automatic", ("CT",), "Apache-2.0")
    assert [(label.name, label.value) for label in card.labels] == [("fat", 1), ("muscle", 2)]
    assert card.metrics == {"mean_dice": 0.9} and "Tissues by grey level 0.3.1" in card.provenance
    assert aiassist("models", "rollback", "tissues-by-grey-level", "--studies", studies) == 0
    with LocalBackend(threaded=False, models=studies / MODELS) as backend:
        assert "tissues-by-grey-level" not in [card.name for card in backend.models()]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_turned_images_get_the_same_labels(tmp_path, volume, order):
    model = load(tmp_path, make_bundle(tmp_path / "tissues"))
    voxels = volume.voxels[10:40, 40:90, 30:90]
    part = Volume(voxels, Geometry(voxels.shape, volume.geometry.affine))
    plain = run(model.segment(part)).to_labelmap(part.shape)
    matrix = part.geometry.affine.copy()
    matrix[:3, :3] = part.geometry.affine[:3, [2 - axis for axis in reversed(order)]]
    turned = Volume(part.voxels.transpose(order), Geometry(tuple(part.shape[axis] for axis in order), matrix))
    found = run(model.segment(turned)).to_labelmap(turned.shape)
    assert (found == plain.transpose(order)).mean() > 0.999


def load(tmp_path, bundle, **options):
    models = ModelStore(tmp_path / "models")
    name, number, _card = import_bundle(bundle, models, "model", **options)
    return load_network_folder(models.folder_of(name, number))


def test_weights_become_the_network_that_the_recipe_describes(tmp_path):
    torch.manual_seed(0)
    net = UNet(spatial_dims=3, in_channels=1, out_channels=3, channels=[4, 8], strides=[2]).eval()
    bundle = make_bundle(tmp_path / "unet", weights={"model": net.state_dict()})
    rng = np.random.default_rng(0)
    voxels = rng.normal(50, 100, (48, 48, 48)).astype(np.float32)
    isotropic = Volume(voxels, Geometry.from_spacing(voxels.shape, (1.5, 1.5, 1.5)))  # which no transform resamples
    found = run(load(tmp_path, bundle).segment(isotropic)).to_labelmap(voxels.shape)
    with torch.no_grad():
        seen = torch.from_numpy(((voxels + 200) / 500).clip(0, 1).transpose(2, 1, 0)[::-1, ::-1].copy())  # RAS
        answer = net(seen[None, None])[0].argmax(0).numpy()[::-1, ::-1].transpose(2, 1, 0)
    assert len(np.unique(answer)) == 3 and (found == answer).mean() > 0.999


def test_an_archive_is_as_good_as_a_folder_and_other_names_of_parts_too(tmp_path):
    config = copy.deepcopy(CONFIG)
    config["pre_processing"] = config.pop("preprocessing")
    config["postprocessing"]["transforms"][1]["transform"] = "$@pre_processing"
    bundle = make_bundle(tmp_path / "inner" / "tissues", config)
    path = tmp_path / "tissues.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in bundle.rglob("*"):
            archive.write(file, file.relative_to(bundle.parent))
    shutil.rmtree(bundle)
    model = load(tmp_path, path)
    voxels = np.full((20, 24, 28), -100, np.int16)
    voxels[5:15] = 100
    found = run(model.segment(Volume(voxels, Geometry.from_spacing(voxels.shape, (1.5, 1.5, 1.5)))))
    assert (found.to_labelmap(voxels.shape) == tissues(voxels)).mean() > 0.9


PROGRAMS = {
    "a call": ("fine", "$print('here')"),
    "another module": ("fine", "$__import__('os').system('true')"),
    "an attribute": ("pixdim", "$@fine.__class__"),
    "a function": ("inferer", {"_target_": "SlidingWindowInferer", "roi_size": "$lambda: 48"}),
    "a comprehension": ("pixdim", "$[1.5 for _ in range(3)]"),
    "another file": ("inferer", "%other.json#inferer"),
    "another class": ("network_def", {"_target_": "subprocess.Popen", "args": ["true"]}),
    "a class of its own": ("network_def", {"_target_": "scripts.nets.Net"}),
    "a function as a class": ("network_def", {"_target_": "monai.networks.nets.unet.warnings.warn", "message": "x"}),
    "a transform that calls": ("preprocessing", [{"_target_": "Lambdad", "keys": "image", "func": "@fine"}]),
    "a transform that writes": ("preprocessing", [{"_target_": "monai.transforms.io.array.WriteFileMapping"}]),
    "an address": ("network_def", {"_target_": "HoVerNet", "pretrained_url": "https://example.org/x.pt"}),
    "a mode": ("inferer", {"_target_": "SlidingWindowInferer", "_mode_": "debug", "roi_size": 48}),
}


@pytest.mark.parametrize("what", PROGRAMS)
def test_a_bundle_that_holds_a_program_is_refused_and_nothing_is_kept(tmp_path, what):
    part, value = PROGRAMS[what]
    models = ModelStore(tmp_path / "models")
    with pytest.raises(ModelError, match="can import it with --trust"):
        import_bundle(make_bundle(tmp_path / "bundle", changed(part, value)), models)
    assert models.names() == []


def test_whoever_trusts_a_bundle_lets_it_run_what_it_brings(tmp_path):
    bundle = make_bundle(tmp_path / "bundle", changed("pixdim", "$[1.5 for _ in range(3)]"))
    (bundle / "scripts").mkdir()
    (bundle / "scripts" / "__init__.py").write_text("")
    (bundle / "scripts" / "own.py").write_text("class Same:\n    def __call__(self, x): return x\n")
    config = json.loads((bundle / "configs" / "inference.json").read_text())
    config["preprocessing"]["transforms"].append({"_target_": "scripts.own.Same"})
    (bundle / "configs" / "inference.json").write_text(json.dumps(config))
    model = load(tmp_path, bundle, is_trusted=True)
    voxels = np.full((20, 24, 28), 100, np.int16)
    found = run(model.segment(Volume(voxels, Geometry.from_spacing(voxels.shape))))
    assert (found.to_labelmap(voxels.shape) == 2).all()


def test_what_is_no_bundle_or_does_not_fit_is_said_and_nothing_is_kept(tmp_path, studies, capsys):
    net = UNet(spatial_dims=3, in_channels=1, out_channels=3, channels=[4, 8], strides=[2])
    two = changed("network_def", CONFIG["network_def"] | {"in_channels": 2})
    nothing = make_bundle(tmp_path / "nothing")
    (nothing / "models" / "model.ts").unlink()
    evil = make_bundle(tmp_path / "evil", weights=net)  # a pickled program, not numbers
    outside = changed("checkpointloader", {"_target_": "CheckpointLoader", "load_path": "$@bundle_root + '/../x.pt'"})
    nameless = {**METADATA, "network_data_format": {}}
    wrong = {
        tmp_path / "none": "There is no bundle",
        make_bundle(tmp_path / "a" / "bundle").parent.parent / "studies": "it has no configs/inference.json",
        nothing: "model.pt is missing; download the weights as the bundle's page says.",
        evil: "model.pt is damaged, or holds more than numbers.",
        make_bundle(tmp_path / "other", two, weights=net.state_dict()): "do not fit the network",
        make_bundle(tmp_path / "outside", outside): "lie outside of it",
        make_bundle(tmp_path / "nameless", metadata=nameless): "names no structure in its channel_def",
        make_bundle(tmp_path / "parts", {k: v for k, v in CONFIG.items() if k != "inferer"}): "has no inferer",
    }
    for path, sentence in wrong.items():
        assert aiassist("models", "import", path, "--studies", studies) == 2
        assert sentence in capsys.readouterr().err, path
    assert ModelStore(studies / MODELS).published_folders() == {}
    assert not list((studies / MODELS).glob("*/[0-9]*"))


def test_without_monai_one_sentence_says_what_to_install(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "monai"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "monai", None)
    models = ModelStore(tmp_path / "models")
    with pytest.raises(MissingExtraError, match="This model needs the package monai"):
        import_bundle(make_bundle(tmp_path / "bundle"), models, "fat")
    assert models.names() == []


def test_names_of_trained_models_and_bundles_do_not_mix(tmp_path):
    models = ModelStore(tmp_path / "models")
    with models.new_version("liver") as (folder, _number):
        (folder / "card.json").write_text("{}")
    with pytest.raises(ModelError, match="'liver' is a model that was trained here"):
        import_bundle(make_bundle(tmp_path / "bundle"), models, "liver")
    from aiassist.learning.networks import check_own_name

    import_bundle(tmp_path / "bundle", models, "fat")
    with pytest.raises(ModelError, match="'fat' is a bundle that was imported"):
        check_own_name(models, "fat", "automatic")


def test_the_server_and_slicer_offer_it_as_any_model(tmp_path, studies, volume):
    models = ModelStore(studies / MODELS)
    name, number, _card = import_bundle(make_bundle(tmp_path / "bundle"), models)
    models.publish(name, number, "Ada")
    with LocalBackend(threaded=False, models=studies / MODELS) as backend:
        answer = backend.segment(SegmentRequest(backend.open_study(volume), name))
        assert set(answer.seconds) >= {"load", "crop", "pass", "paste"} and answer.model_version == "1"
        assert set(np.unique(answer.patch.voxels)) == {0, 1, 2}


def test_what_a_recipe_needs_and_no_more_is_taken_of_the_configuration(tmp_path):
    recipe = read_recipe(make_bundle(tmp_path / "bundle"))
    assert set(recipe.rest) == {"bundle_root", "device", "fine", "image_key", "pixdim"}
    config = recipe.config("cuda")
    assert config["device"] == "cuda" and config["preprocessing"]["transforms"][-1]["device"] == "@device"
    names = [one["_target_"] for one in config["preprocessing"]["transforms"]]
    assert names[0] == "monai.transforms.EnsureChannelFirstd" and len(names) == 5


# What came before bundles


def make_mmar(folder, **more):
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
    aiaa = {"version": 1, "type": "segmentation", "labels": ["fat", "muscle"], "description": "Fat and muscle in CT"}
    for name, content in (("config_inference", inference), ("environment", environment), ("config_aiaa", aiaa)):
        (folder / "config" / f"{name}.json").write_text(json.dumps(content))
    torch.jit.script(Levels()).save(str(folder / "models" / "levels.ts"))
    return folder


def test_an_mmar_of_clara_is_imported_as_a_bundle(tmp_path, volume):
    model = load(tmp_path, make_mmar(tmp_path / "clara_tissues"))
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
