"""Answers of MONAI bundles come back onto the image's own grid, whether by their own transforms or not."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from bundle_helpers import CONFIG, LEVELS, linear_net, load, make_bundle, tissues
from monai.bundle import ConfigParser
from monai.data import MetaTensor

from aiassist.errors import ModelError
from aiassist.imaging import Geometry, Volume, read_volume, write_volume
from aiassist.segmenters import bundle_import
from aiassist.segmenters.base import run

SOFTMAX, INVERT, ARGMAX, SAVE = CONFIG["postprocessing"]["transforms"]
LOAD, FIRST, TURN, SPACE, *SCALE = CONFIG["preprocessing"]["transforms"]
LOSE = {"_target_": "FromMetaTensord", "keys": "pred"}
FORGET = [LOSE, {"_target_": "DeleteItemsd", "keys": "pred_meta_dict"}, {"_target_": "ToMetaTensord", "keys": "pred"}]


@pytest.fixture(scope="module")
def corner() -> Volume:
    """Fat around muscle in one corner, on the axes that DICOM images have: no mirror image is the same."""
    voxels = np.full((20, 34, 26), -300, np.int16)
    voxels[2:9, 4:15, 5:21] = -50
    voxels[3:6, 6:11, 6:10] = 200
    return Volume(voxels, Geometry.from_spacing(voxels.shape, (1.0, 1.3, 2.2)))


def made(folder, pre, post, **more):
    """A bundle that prepares images and answers so."""
    config = copy.deepcopy(CONFIG) | more
    config["preprocessing"]["transforms"], config["postprocessing"]["transforms"] = [LOAD, FIRST, *pre], post
    return make_bundle(folder / "bundle", config)


def found(folder, bundle, image: Volume) -> np.ndarray:
    return run(load(folder, bundle).segment(image)).to_labelmap(image.shape)


def of_monais_own_file(folder, bundle, image: Volume) -> np.ndarray:
    """What MONAI itself writes for an image that lies in a file."""
    write_volume(folder / "image.nii.gz", image)
    parser = ConfigParser()
    parser.read_config(bundle / "configs" / "inference.json")
    parser["device"], parser["output_dir"] = torch.device("cpu"), str(folder / "saved")
    net = linear_net(3)
    net.load_state_dict(LEVELS)
    with torch.inference_mode():
        seen = parser.get_parsed_content("preprocessing")({"image": str(folder / "image.nii.gz")})
        answer = parser.get_parsed_content("inferer")(seen["image"][None], net)[0]
        pred = MetaTensor(answer, meta=seen["image"].meta, applied_operations=seen["image"].applied_operations)
        parser.get_parsed_content("postprocessing")({**seen, "pred": pred})
    (path,) = (folder / "saved").rglob("*.nii.gz")
    saved = read_volume(path)
    assert saved.geometry.same_grid(image.geometry)
    return saved.voxels


@pytest.mark.parametrize("pre", [[TURN], [TURN, SPACE], [SPACE]], ids=["turned", "turned and spaced", "spaced"])
def test_an_answer_that_only_its_file_would_bring_back_lies_where_monais_own_file_has_it(tmp_path, corner, pre):
    bundle = made(tmp_path, [*pre, *SCALE], [SOFTMAX, ARGMAX, {**SAVE, "resample": True}])
    labels = found(tmp_path, bundle, corner)
    assert np.array_equal(labels, of_monais_own_file(tmp_path, bundle, corner))
    truth = tissues(corner.voxels)
    assert np.array_equal(labels, truth) if SPACE not in pre else (labels == truth).mean() > 0.95


def test_masks_of_several_channels_come_back_as_one_of_them_does(tmp_path, corner):
    apart = {**ARGMAX, "to_onehot": 3}
    assert np.array_equal(
        found(tmp_path, made(tmp_path, [TURN, *SCALE], [SOFTMAX, apart]), corner), tissues(corner.voxels)
    )


def test_nothing_is_found_outside_of_what_was_cut_out_for_the_network(tmp_path, corner):
    bright = Volume(np.where(corner.voxels == 200, 200, 0).astype(np.int16), corner.geometry)
    cut = {"_target_": "CropForegroundd", "keys": "image", "source_key": "image"}
    labels = found(tmp_path, made(tmp_path, [TURN, cut, *SCALE], [SOFTMAX, ARGMAX]), bright)
    assert np.array_equal(labels, np.where(bright.voxels == 200, 2, 0))


@pytest.mark.parametrize("lose", [[LOSE], FORGET], ids=["no affine", "another affine"])
def test_an_answer_whose_place_is_lost_is_refused_unless_it_was_turned_back_before(tmp_path, corner, lose):
    with pytest.raises(ModelError, match="turn the image and lose where the answer lies; have Invertd turn it back"):
        load(tmp_path / "a", made(tmp_path / "a", [TURN, *SCALE], [SOFTMAX, ARGMAX, *lose]))
    for name, pre, post in (("b", [TURN], [SOFTMAX, INVERT, ARGMAX]), ("c", [], [SOFTMAX, ARGMAX])):
        bundle = made(tmp_path / name, [*pre, *SCALE], [*post, *lose])
        assert np.array_equal(found(tmp_path / name, bundle, corner), tissues(corner.voxels)), name


class Half(torch.nn.Module):
    """Answers for every second voxel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([0 * x, x - 0.2, x - 0.4], 1)[:, :, ::2, ::2, ::2]


def test_an_answer_in_other_voxels_than_the_network_saw_is_not_guessed_onto_the_image(tmp_path):
    bundle = made(tmp_path, [TURN, *SCALE], [SOFTMAX, ARGMAX], inferer={"_target_": "SimpleInferer"})
    (bundle / "models" / "model.pt").unlink()
    torch.jit.script(Half()).save(str(bundle / "models" / "model.ts"))
    with pytest.raises(ModelError, match=r"answers in 40 x 32 x 24 voxels to an image of 80 x 64 x 48"):
        load(tmp_path, bundle, is_trusted=True)


def test_a_bundle_is_tried_on_an_image_of_which_no_mirror_image_is_the_same(tmp_path, monkeypatch):
    tried = []

    class Watched(bundle_import.BundleModel):
        def segment(self, volume):
            tried.append(volume.voxels)
            return super().segment(volume)

    monkeypatch.setattr(bundle_import, "BundleModel", Watched)
    load(tmp_path, made(tmp_path, [TURN, *SCALE], [SOFTMAX, INVERT, ARGMAX]))
    (voxels,) = tried
    assert not any(np.array_equal(voxels, np.flip(voxels, axis)) for axis in range(3))
    assert len(set(voxels.shape)) == 3


def test_an_answer_with_its_axes_changed_is_noticed_when_a_bundle_is_imported(tmp_path):
    change = {"_target_": "Transposed", "keys": "pred", "indices": [0, 2, 1, 3]}
    with pytest.raises(ModelError, match="not that of the image"):
        load(tmp_path, made(tmp_path, [TURN, *SCALE], [SOFTMAX, INVERT, ARGMAX, change]))
