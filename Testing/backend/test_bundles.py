"""MONAI bundles as models: what they hold is looked through, imported, run, and taken back."""

from __future__ import annotations

import copy
import json
import shutil
import sys
import threading
import zipfile

import numpy as np
import pytest
import torch
from bundle_helpers import CONFIG, METADATA, block, changed, linear, linear_net, load, make_bundle, tissues
from monai.networks.nets import UNet

from aiassist import cli
from aiassist.engine import LocalBackend, SegmentRequest
from aiassist.errors import MissingExtraError, ModelError
from aiassist.groundtruth import GroundTruthStore
from aiassist.imaging import Geometry, Volume, read_labelmap, write_volume
from aiassist.learning.networks import check_own_name
from aiassist.segmenters.base import run
from aiassist.segmenters.bundle_import import import_bundle
from aiassist.segmenters.bundle_metadata import card_of_bundle, is_background
from aiassist.segmenters.model_store import ASKED, MODELS, PLAN, RUN, ModelStore
from aiassist.segmenters.recipe import read_recipe
from aiassist.segmenters.registry import load_network_folder


@pytest.fixture
def studies(tmp_path):
    folder = tmp_path / "studies"
    GroundTruthStore(folder).close()
    return folder


def aiassist(*arguments) -> int:
    return cli.main([str(argument) for argument in arguments])


def test_a_bundle_is_imported_runs_in_the_images_own_grid_and_is_taken_back(tmp_path, studies, volume, capsys):
    bundle = make_bundle(tmp_path / "tissues")
    assert aiassist("models", "import", bundle, "--studies", studies, "--author", "Ada") == 0
    said = capsys.readouterr().out
    assert said == "tissues-by-grey-level version 1 is used from now on; it finds fat, muscle. Licence: Apache-2.0.\n"
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


UNET = {
    "_target_": "UNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 3,
    "channels": [4, 8],
    "strides": [2],
}


def test_weights_become_the_network_that_the_recipe_describes(tmp_path):
    torch.manual_seed(0)
    net = UNet(spatial_dims=3, in_channels=1, out_channels=3, channels=[4, 8], strides=[2]).eval()
    described = changed("network_def", UNET)
    bundle = make_bundle(tmp_path / "unet", described, weights={"model": net.state_dict()})
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
    model, image = load(tmp_path, path), block(100)
    assert (run(model.segment(image)).to_labelmap(image.shape) == tissues(image.voxels)).mean() > 0.9


def test_what_is_no_bundle_or_does_not_fit_is_said_and_nothing_is_kept(tmp_path, studies, capsys):
    two = changed("network_def", CONFIG["network_def"] | {"in_channels": 2})
    nothing = make_bundle(tmp_path / "nothing")
    (nothing / "models" / "model.pt").unlink()
    evil = make_bundle(tmp_path / "evil", weights=linear_net(3))  # a pickled program, not numbers
    outside = changed("checkpointloader", {"_target_": "CheckpointLoader", "load_path": "$@bundle_root + '/../x.pt'"})
    nameless = {**METADATA, "network_data_format": {}}
    wrong = {
        tmp_path / "none": "There is no bundle",
        make_bundle(tmp_path / "a" / "bundle").parent.parent / "studies": "it has no configs/inference.json",
        nothing: "model.pt is missing; download the weights as the bundle's page says.",
        evil: "model.pt is damaged, or holds more than numbers.",
        make_bundle(tmp_path / "other", two): "model.pt does not fit the network",
        make_bundle(tmp_path / "outside", outside): "lie outside of it",
        make_bundle(tmp_path / "nameless", metadata=nameless): "names no structure in its channel_def",
        make_bundle(tmp_path / "parts", {k: v for k, v in CONFIG.items() if k != "inferer"}): "has no inferer",
    }
    for path, sentence in wrong.items():
        assert aiassist("models", "import", path, "--studies", studies) == 2
        assert sentence in capsys.readouterr().err, path
    assert ModelStore(studies / MODELS).names() == []


def test_what_its_channels_stand_for_is_what_is_found(tmp_path):
    sigmoid = copy.deepcopy(CONFIG)
    sigmoid["postprocessing"]["transforms"][0] = {"_target_": "Activationsd", "keys": "pred", "sigmoid": True}
    sigmoid["postprocessing"]["transforms"][2] = {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5}
    dark, bright, never = (-80.0, 24.0), (80.0, -36.0), (0.0, -9.0)  # the block is bright
    cases = [
        ("three masks", sigmoid, ["water", "nothing", "muscle"], [dark, never, bright], {1: "water", 3: "muscle"}),
        ("one mask, the first name", sigmoid, ["muscle"], [bright], {0: "", 1: "muscle"}),
        ("one mask, the second name", sigmoid, ["Background", "muscle"], [bright], {0: "", 1: "muscle"}),
        ("the likeliest, the first is the rest", CONFIG, ["exterior", "muscle"], [dark, bright], {0: "", 1: "muscle"}),
    ]
    for what, config, names, lines, wanted in cases:
        net = {**CONFIG["network_def"], "out_channels": len(lines)}
        answer = {"channel_def": {str(number): name for number, name in enumerate(names)}}
        metadata = {**METADATA, "network_data_format": {"outputs": {"pred": answer}}}
        weights = linear([scale for scale, _ in lines], [offset for _, offset in lines])
        bundle = make_bundle(tmp_path / what / "bundle", {**config, "network_def": net}, metadata, weights)
        model = load(tmp_path / what, bundle)
        found = run(model.segment(block(100))).to_labelmap((20, 24, 28))
        assert {int(found[0, 0, 0]), int(found[10, 9, 9])} == set(wanted), what
        named = {label.value: label.name for label in model.card.labels}
        assert wanted.items() - {(0, "")} <= named.items() and ("exterior" not in named.values()), what


@pytest.mark.parametrize(
    "name",
    ["Background", "Background (air)", "back-ground", "background_class", "BG", "unlabeled", "Unlabelled voxels"],
)
def test_the_background_has_many_names(name):
    assert is_background(name)


@pytest.mark.parametrize("name", ["rest", "everything else", "the rest of the image", "none", "background - air"])
def test_so_has_what_is_left(name):
    assert is_background(name)


@pytest.mark.parametrize(
    "name",
    [
        "rest of the liver",
        "background parenchymal enhancement",
        "bgx",
        "nonenhancing tumor",
        "other",
        "unlabeled lesion",
    ],
)
def test_of_masks_of_their_own_no_structure_is_taken_for_the_background(tmp_path, name):
    assert not is_background(name)
    config = copy.deepcopy(CONFIG)
    config["postprocessing"]["transforms"][0] = {"_target_": "Activationsd", "keys": "pred", "sigmoid": True}
    config["postprocessing"]["transforms"][2] = {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5}
    answer = {"channel_def": {"0": name, "1": "muscle"}}
    bundle = make_bundle(tmp_path / "b", config, {**METADATA, "network_data_format": {"outputs": {"pred": answer}}})
    assert [(label.value, label.name) for label in card_of_bundle("m", 1, bundle).labels] == [(1, name), (2, "muscle")]


def test_what_was_imported_under_other_names_keeps_the_values_that_its_card_has(tmp_path):
    answer = {"channel_def": {"0": "exterior", "1": "muscle"}}
    metadata = {**METADATA, "network_data_format": {"outputs": {"pred": answer}}}
    net = {**CONFIG["network_def"], "out_channels": 2}
    bundle = make_bundle(tmp_path / "b", changed("network_def", net), metadata, linear([-80.0, 80.0], [24.0, -36.0]))
    assert [label.name for label in load(tmp_path, bundle).card.labels] == ["muscle"]
    folder, image = tmp_path / "models" / "model" / "1", block(100)
    card = json.loads((folder / "card.json").read_text())
    (muscle,) = card["labels"]
    card["labels"] = [muscle | {"name": "exterior"}, muscle | {"value": 2}]  # as it was written once
    (folder / "card.json").write_text(json.dumps(card))
    found = run(load_network_folder(folder).segment(image)).to_labelmap(image.shape)
    assert (found[0, 9, 9], found[10, 9, 9]) == (1, 2)


@pytest.mark.parametrize(
    "transform, is_so",
    [
        ({"_target_": "Activationsd", "keys": "pred", "softmax": True}, True),
        ({"_target_": "AsDiscreted", "keys": ["pred", "label"], "argmax": [True, False]}, True),
        ({"_target_": "AsDiscreted", "keys": "pred", "argmax": "@fine"}, True),
        ({"_target_": "Lambdad", "keys": "pred", "func": "$lambda x: x.argmax(0, keepdim=True)"}, True),
        ({"_target_": "AsDiscreted", "keys": "pred_softmax", "argmax": False, "threshold": 0.5}, False),
        ({"_target_": "Activationsd", "keys": "pred", "softmax": "@image_key", "sigmoid": True}, False),
    ],
)
def test_whether_each_voxel_goes_to_one_channel_is_what_the_transforms_say(tmp_path, transform, is_so):
    config = changed("postprocessing", {"_target_": "Compose", "transforms": [transform]})
    assert read_recipe(make_bundle(tmp_path / "b", config)).has_one_channel_a_voxel() == is_so


def test_of_masks_that_overlap_the_smaller_lies_on_the_larger_in_any_order(tmp_path):
    config = copy.deepcopy(CONFIG)
    config["postprocessing"]["transforms"][0] = {"_target_": "Activationsd", "keys": "pred", "sigmoid": True}
    config["postprocessing"]["transforms"][2] = {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5}
    config["network_def"]["out_channels"] = 2
    voxels = block(100).voxels.copy()
    voxels[8:12, 8:12, 8:12] = 300
    image = Volume(voxels, block(100).geometry)
    whole, core = ("whole", 40.0, -16.0), ("core", 80.0, -64.0)  # from 0 HU, from 200 HU
    for order in ((whole, core), (core, whole)):
        names = {str(number): name for number, (name, _, _) in enumerate(order)}
        metadata = {**METADATA, "network_data_format": {"outputs": {"pred": {"channel_def": names}}}}
        weights = linear([scale for _, scale, _ in order], [offset for _, _, offset in order])
        folder = tmp_path / order[0][0]
        model = load(folder, make_bundle(folder / "bundle", config, metadata, weights))
        found = run(model.segment(image)).to_labelmap(image.shape)
        values = {label.name: label.value for label in model.card.labels}
        assert found[10, 10, 10] == values["core"] and found[10, 2, 2] == values["whole"] and not found[0, 0, 0]


def test_a_voxel_that_is_no_number_takes_nothing_from_the_others(tmp_path):
    config = copy.deepcopy(CONFIG)
    config["preprocessing"]["transforms"][4] = {"_target_": "ScaleIntensityd", "keys": "@image_key"}
    model = load(tmp_path, make_bundle(tmp_path / "bundle", config))
    image = block(100)
    voxels = image.voxels.astype(np.float32)
    voxels[0, 0, 0] = np.nan
    found, whole = (run(model.segment(Volume(v, image.geometry))).to_labelmap(v.shape) for v in (voxels, image.voxels))
    assert (whole == 2).mean() == 0.5 and np.array_equal(found.ravel()[1:], whole.ravel()[1:])


def test_files_of_a_bundle_that_may_not_be_written_are_copied_so_that_they_may(tmp_path):
    bundle = make_bundle(tmp_path / "bundle")
    (bundle / "models" / "model.pt").chmod(0o444)
    models = ModelStore(tmp_path / "models")
    name, number, _ = import_bundle(bundle, models)
    copied = models.folder_of(name, number) / "bundle" / "models" / "model.pt"
    assert copied.stat().st_mode & 0o200 and copied.read_bytes() == (bundle / "models" / "model.pt").read_bytes()


def test_a_network_that_finds_more_than_is_named_is_refused(tmp_path):
    fewer = {"outputs": {"pred": {"label_def": {"0": "background", "1": "fat"}}}}
    bundle = make_bundle(tmp_path / "bundle", metadata={**METADATA, "network_data_format": fewer})
    with pytest.raises(ModelError, match=r"answers in 3 channels, but its metadata names 2 \(background, fat\)"):
        load(tmp_path, bundle)


@pytest.mark.parametrize(
    "part, value",
    [
        ("network_data_format", [1]),
        ("network_data_format", {"inputs": []}),
        ("network_data_format", {"outputs": {"pred": {"channel_def": ["background", "fat"]}}}),
        ("network_data_format", {"outputs": {"pred": {"channel_def": None}}}),
        ("network_data_format", {"outputs": {"pred": {"channel_def": {"0": "background", "70000": "fat"}}}}),
        ("eval_metrics", ["x"]),
        ("network_data_format", {"outputs": {"pred": "fat"}}),
    ],
)
def test_metadata_that_is_not_as_agreed_is_said(tmp_path, part, value):
    bundle = make_bundle(tmp_path / "bundle", metadata={**METADATA, part: value})
    with pytest.raises(ModelError, match=r"The bundle's configs/metadata\.json (holds|names)"):
        load(tmp_path, bundle)


def test_archives_that_cannot_be_unpacked_are_said_and_what_macos_adds_is_passed_over(tmp_path):
    bundle, path = make_bundle(tmp_path / "spleen"), tmp_path / "spleen.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("__MACOSX/spleen/._LICENSE", "x")
        for file in bundle.rglob("*"):
            archive.write(file, file.relative_to(tmp_path))
    assert load(tmp_path, path).card.version == "1"
    content = path.read_bytes()
    at = content.index(b'"bundle_root"')
    (tmp_path / "damaged.zip").write_bytes(content[:at] + b"\0" * 9 + content[at + 9 :])
    with pytest.raises(ModelError, match=r"damaged\.zip cannot be unpacked: Bad CRC-32"):
        load(tmp_path, tmp_path / "damaged.zip")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "x")
    with pytest.raises(ModelError, match=r"other\.zip is no MONAI bundle"):
        load(tmp_path, tmp_path / "other.zip")
    zipfile.ZipFile(tmp_path / "empty.zip", "w").close()
    with pytest.raises(ModelError, match=r"empty\.zip is no MONAI bundle"):
        load(tmp_path, tmp_path / "empty.zip")


def zipped(path, bundle):
    """An archive of what lies in a bundle's folder."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in bundle.rglob("*"):
            archive.write(file, file.relative_to(bundle))
    return path


def test_errors_in_an_archive_name_it_and_not_a_temporary_folder(tmp_path):
    bundle, path = make_bundle(tmp_path / "a"), tmp_path / "spleen.zip"
    (bundle / "configs" / "metadata.json").write_text("{")
    with pytest.raises(ModelError) as told:
        load(tmp_path, zipped(path, bundle))
    assert str(told.value).startswith(f"{path / 'configs' / 'metadata.json'} cannot be read: ")
    (bundle / "configs" / "metadata.json").unlink()
    for one in (zipped(path, bundle), bundle):
        with pytest.raises(ModelError) as told:
            load(tmp_path, one)
        assert str(told.value).startswith(f"{one} has no configs/metadata.json")
    nameless = {key: value for key, value in METADATA.items() if key != "name"}
    (bundle / "configs" / "metadata.json").write_text(json.dumps(nameless))
    assert import_bundle(zipped(path, bundle), ModelStore(tmp_path / "models"))[0] == "spleen"


def test_a_folder_may_be_given_from_here(tmp_path, monkeypatch, capsys):
    make_bundle(tmp_path / "tissues")
    GroundTruthStore(tmp_path / "studies").close()
    write_volume(tmp_path / "image.nii.gz", block(100))
    monkeypatch.chdir(tmp_path)
    assert aiassist("models", "import", "tissues", "--studies", "studies", "--name", "fat") == 0
    assert aiassist("segment", "image.nii.gz", "-o", "found.nii.gz", "--model", "fat", "--studies", "studies") == 0
    assert set(np.unique(read_labelmap(tmp_path / "found.nii.gz").voxels)) == {1, 2}
    assert aiassist("models", "rollback", "fat", "--studies", "studies") == 0
    capsys.readouterr()
    assert aiassist("models", "publish", "fat", "--studies", "studies") == 0  # it lies there, and none judges it
    assert capsys.readouterr().out == (
        "fat version 1 is used from now on; it finds fat, muscle. Licence: Apache-2.0.\n"
    )
    assert aiassist("segment", "image.nii.gz", "-o", "again.nii.gz", "--model", "fat", "--studies", "studies") == 0
    assert aiassist("models", "publish", "fat", "--studies", "studies") == 2
    assert "Version 1 of 'fat' is published already." in capsys.readouterr().err
    assert aiassist("models", "publish", "fat", "--version", "2", "--studies", "studies") == 2
    assert "There is no version 2 of the model 'fat'" in capsys.readouterr().err


def test_a_loader_that_also_puts_the_channel_first_is_made_up_for(tmp_path):
    config = copy.deepcopy(CONFIG)
    loader, _first, *others = config["preprocessing"]["transforms"]
    inner = {"_target_": "Compose", "transforms": [{**loader, "ensure_channel_first": True}]}
    crop = {"_target_": "CropForegroundd", "keys": "image", "source_key": "image"}
    config["preprocessing"]["transforms"] = [inner, crop, *others]
    model = load(tmp_path, make_bundle(tmp_path / "bundle", config))
    image = block(100)
    assert (run(model.segment(image)).to_labelmap(image.shape)[5:15] == 2).mean() > 0.9


def test_transforms_that_are_disabled_do_nothing_and_those_that_are_computed_are_refused(tmp_path):
    config = copy.deepcopy(CONFIG)
    wrong = {"_target_": "MapLabelValued", "keys": "pred", "orig_labels": [1], "target_labels": [2]}
    disabled = {"_target_": "Compose", "transforms": [wrong], "_disabled_": True}
    config["postprocessing"]["transforms"].append(disabled)
    image = block(0)
    assert set(np.unique(run(load(tmp_path, make_bundle(tmp_path / "a", config)).segment(image)).voxels)) == {1}
    for transforms in ("$@first + @second", "@postprocessing"):
        config["postprocessing"] = {"_target_": "Compose", "transforms": transforms}
        config |= {"first": [wrong], "second": []}
        with pytest.raises(ModelError, match=r"makes its transforms by .* write them out as a list"):
            load(tmp_path, make_bundle(tmp_path / transforms.strip("$@"), config))


def test_masks_whose_channels_are_not_those_of_the_network_are_refused(tmp_path):
    config = copy.deepcopy(CONFIG)
    config["postprocessing"]["transforms"].append({"_target_": "LabelToMaskd", "keys": "pred", "select_labels": [1, 2]})
    config["postprocessing"]["transforms"][2] |= {"to_onehot": 3}
    with pytest.raises(ModelError, match="make 2 channels of 3, so their names are not known"):
        load(tmp_path, make_bundle(tmp_path / "selected", config))
    config["postprocessing"]["transforms"] = config["postprocessing"]["transforms"][1:2]  # the network's own numbers
    image = block(100)
    found = run(load(tmp_path, make_bundle(tmp_path / "bare", config)).segment(image)).to_labelmap(image.shape)
    assert (found == tissues(image.voxels)).mean() > 0.9


def test_a_studies_folder_may_have_any_name(tmp_path):
    assert load(tmp_path / "store#1 @b", make_bundle(tmp_path / "bundle")).card.version == "1"


def test_only_what_is_free_under_apache_and_nothing_else_is_called_so(tmp_path):
    bundle = make_bundle(tmp_path / "bundle")
    with (bundle / "LICENSE").open("a") as licence:
        licence.write("\n\nModel Weights License: for non-commercial use only.")
    assert load(tmp_path, bundle).card.licence == "LicenseRef-bundle"


def test_segmenting_is_cancelled_between_calls_of_the_network(tmp_path):
    model = load(tmp_path, make_bundle(tmp_path / "bundle"))
    image = block(100, (120, 120, 120))
    work, steps = model.segment(image), []
    while len(steps) < 6:
        steps.append(next(work))
    assert [step.phase for step in steps] == ["load", "crop", "pass", "pass", "pass", "pass"]
    assert [step.fraction for step in steps] == sorted(step.fraction for step in steps)
    before = threading.active_count()
    work.close()
    assert threading.active_count() == before - 1  # which the windows went on in


def test_without_monai_one_sentence_says_what_to_install(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "monai"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "monai", None)
    models = ModelStore(tmp_path / "models")
    with pytest.raises(MissingExtraError, match="This model needs the package monai"):
        import_bundle(make_bundle(tmp_path / "bundle"), models, "fat")
    assert models.names() == []


@pytest.mark.parametrize("name", ["network", "lungs-ct"])
def test_no_bundle_takes_the_name_of_a_model_that_ships(tmp_path, name):
    with pytest.raises(ModelError, match="is a model that ships with aiassist"):
        import_bundle(make_bundle(tmp_path / "bundle"), ModelStore(tmp_path / "models"), name)


def test_names_of_trained_models_and_bundles_do_not_mix(tmp_path):
    models = ModelStore(tmp_path / "models")
    with models.new_version("liver") as (folder, _number):
        (folder / "card.json").write_text("{}")
    with pytest.raises(ModelError, match="'liver' is a model that was trained here"):
        import_bundle(make_bundle(tmp_path / "bundle"), models, "liver")
    plan = tmp_path / "models" / "spleen" / RUN / PLAN
    plan.parent.mkdir(parents=True)
    plan.write_text(json.dumps({"config": dict.fromkeys(ASKED), "teaching": [], "judging": []}))
    with pytest.raises(ModelError, match="'spleen' is a model that was trained here"):
        import_bundle(tmp_path / "bundle", models, "spleen")
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
