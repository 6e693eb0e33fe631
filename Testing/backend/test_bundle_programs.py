"""What a MONAI bundle may do: nothing but compute, unless whoever imports it trusts its makers."""

from __future__ import annotations

import inspect
import json
import re

import monai.transforms
import pytest
import torch
from bundle_helpers import block, changed, linear_net, load, make_bundle

from aiassist.errors import ModelError
from aiassist.segmenters.base import run
from aiassist.segmenters.bundle_import import import_bundle
from aiassist.segmenters.harmless import harmless
from aiassist.segmenters.model_store import ModelStore

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
    "a transform that writes, of another module": (
        "postprocessing",
        [{"_target_": "SaveClassificationd", "keys": "pred", "output_dir": ".", "filename": "predictions.csv"}],
    ),
    "an address": ("network_def", {"_target_": "HoVerNet", "pretrained_url": "https://example.org/x.pt"}),
    "a fetch by default": ("network_def", {"_target_": "EfficientNetBN", "model_name": "efficientnet-b0"}),
    "a class by its name": ("inferer", {"_target_": "PatchInferer", "merger_cls": "antigravity.X"}),
    "a string that ends where MONAI puts a reference": ("fine", """$'x @pixdim {print(1)}' != ''"""),
    "a comment that MONAI makes a slice": ("fine", "$(1, 1)[0 # print('here') or 1\n]"),
    "a comment in a line": ("fine", "$1 # print('here')"),
    "a reference in a string": ("fine", "$'@pixdim'"),
    "an f-string": ("fine", "$f'{print(1)}'"),
    "an escape": ("fine", "$'\\x40pixdim'"),
    "a method of a constant": ("fine", "$monai.utils.CommonKeys._convert_"),
    "a key function": ("fine", "$max([1], key=@pixdim)"),
    "arguments of a mapping": ("fine", "$str(1, **@pixdim)"),
    "an endless expression": ("fine", "$" + "-" * 20_000 + "1"),
    "a mode": ("inferer", {"_target_": "SlidingWindowInferer", "_mode_": "debug", "roi_size": 48}),
}
#: What the source of a class holds that does more than compute.
TOUCHES = re.compile(r"\bopen\(|Saver|Writer|\.save\(|unlink|torch\.load|import_module|subprocess\.\w")


@pytest.mark.parametrize("what", PROGRAMS)
def test_a_bundle_that_holds_a_program_is_refused_and_nothing_is_kept(tmp_path, what):
    part, value = PROGRAMS[what]
    models = ModelStore(tmp_path / "models")
    with pytest.raises(ModelError, match="can import it with --trust"):
        import_bundle(make_bundle(tmp_path / "bundle", changed(part, value)), models)
    assert models.names() == []


def test_no_transform_that_may_be_built_touches_files_or_programs():
    may = [name for name in dir(monai.transforms) if _may_be_built(name)]
    assert len(may) > 150 and "Spacingd" in may and "KeepLargestConnectedComponent" in may
    for name in may:
        assert not TOUCHES.search(inspect.getsource(getattr(monai.transforms, name))), name


def _may_be_built(name: str) -> bool:
    try:
        return isinstance(harmless({"_target_": name}, "preprocessing"), dict) and hasattr(monai.transforms, name)
    except ModelError:
        return False


def test_torchscript_is_a_program_too(tmp_path):
    bundle = make_bundle(tmp_path / "bundle")
    (bundle / "models" / "model.pt").unlink()
    torch.jit.script(linear_net(3).eval()).save(str(bundle / "models" / "model.ts"))
    with pytest.raises(ModelError, match=r"is a program, models/model.ts \(TorchScript\), .* with --trust"):
        load(tmp_path, bundle)
    assert ModelStore(tmp_path / "models").names() == []
    assert load(tmp_path, bundle, is_trusted=True).card.version == "1"


def with_scripts(bundle, text: str):
    """The bundle with a module of its own, whose class ``Own`` is its last transform."""
    (bundle / "scripts").mkdir()
    (bundle / "scripts" / "__init__.py").write_text("")
    (bundle / "scripts" / "own.py").write_text(text)
    config = json.loads((bundle / "configs" / "inference.json").read_text())
    config["postprocessing"]["transforms"].append({"_target_": "scripts.own.Own"})
    (bundle / "configs" / "inference.json").write_text(json.dumps(config))
    return bundle


def test_each_trusted_bundle_has_classes_of_its_own(tmp_path):
    own = "class Own:\n    def __call__(self, x):\n        x['pred'] = x['pred'] * 0 + {}\n        return x\n"
    for value in (1, 2):
        bundle = with_scripts(make_bundle(tmp_path / f"bundle{value}"), own.format(value))
        model = load(tmp_path, bundle, is_trusted=True)
        assert (run(model.segment(block(100))).to_labelmap((20, 24, 28)) == value).all()


def test_whoever_trusts_a_bundle_lets_it_run_what_it_brings(tmp_path):
    same = "class Own:\n    def __call__(self, x):\n        return x\n"
    bundle = with_scripts(make_bundle(tmp_path / "bundle", changed("pixdim", "$[1.5 for _ in range(3)]")), same)
    with pytest.raises(ModelError, match="is a program"):
        load(tmp_path, bundle)
    model = load(tmp_path, bundle, is_trusted=True)
    assert (run(model.segment(block(100))).to_labelmap((20, 24, 28))[5:15] == 2).all()


def test_a_trusted_bundle_gets_the_modules_that_it_imports(tmp_path):
    config = changed("imports", ["$import os"])
    config["checkpointloader"]["load_path"] = "$os.path.join(@bundle_root, 'models', 'model.pt')"
    assert load(tmp_path, make_bundle(tmp_path / "bundle", config), is_trusted=True).card.kind == "automatic"


def test_links_that_lead_out_of_a_bundle_are_not_followed(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("a password")
    bundle = make_bundle(tmp_path / "bundle")
    (bundle / "docs").mkdir()
    for target in (secret, "..", tmp_path / "gone"):
        (bundle / "docs" / "link").symlink_to(target)
        with pytest.raises(ModelError, match="docs/link is a link; put the file itself there"):
            load(tmp_path, bundle)
        (bundle / "docs" / "link").unlink()
    assert ModelStore(tmp_path / "models").names() == []
    (bundle / "docs" / "licence").symlink_to("../LICENSE")
    assert load(tmp_path, bundle).card.version == "1"


def test_a_yaml_that_repeats_itself_without_end_is_refused(tmp_path):
    bundle = make_bundle(tmp_path / "bundle")
    config = json.loads((bundle / "configs" / "inference.json").read_text())
    (bundle / "configs" / "inference.json").unlink()
    (bundle / "configs" / "inference.yaml").write_text(json.dumps(config))  # JSON is YAML
    assert load(tmp_path, bundle).card.version == "1"
    (bundle / "configs" / "inference.yaml").write_text("a: &a [x]\nb: [*a, *a]\n")
    with pytest.raises(ModelError, match="repeats parts by YAML's aliases"):
        load(tmp_path, bundle)
