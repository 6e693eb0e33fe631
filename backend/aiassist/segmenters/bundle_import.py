"""Make a version of a model of a MONAI bundle, or of an MMAR, its forerunner, in a folder of models."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from aiassist.errors import ModelError
from aiassist.imaging import Geometry, Label, Volume, describe_structure
from aiassist.segmenters.base import ModelCard, run
from aiassist.segmenters.bundle import TRUSTED, BundleModel
from aiassist.segmenters.mmar import bundle_of, is_mmar
from aiassist.segmenters.model_store import BUNDLE, ModelStore, check_model_name
from aiassist.segmenters.recipe import FILES, read_config, read_recipe

#: What is taken over of a bundle's folder; of one that is trusted also its own classes.
TAKEN, OWN = ("configs", "models", "LICENSE", "LICENSE.txt", "docs"), ("scripts",)
#: Most bytes of an archive, unpacked.
LARGEST = 16 * 2**30
#: DICOM modalities, by the names that bundles have for them.
MODALITIES = {"ct": "CT", "mr": "MR", "mri": "MR", "pet": "PT", "pt": "PT", "us": "US", "x-ray": "DX"}
#: Voxels along each side of the image on which a bundle is tried.
TRIAL = 48


def import_bundle(
    path: Path, models: ModelStore, name: str | None = None, is_trusted: bool = False
) -> tuple[str, int, ModelCard]:
    """Copy a bundle or MMAR, a folder or a zip archive, as a new version of a model, once it ran on an empty image.

    Parameters
    ----------
    path : Path
    models : ModelStore
    name : str, optional
        Of the model; made of the bundle's own when absent.
    is_trusted : bool
        Whether it may run programs of its own, see `aiassist.segmenters.recipe`.

    Returns
    -------
    str
        The model's name.
    int
        The version; it is not published.
    ModelCard

    Raises
    ------
    ModelError
        When it is no bundle, cannot be built or run, or the name belongs to a model that was trained; nothing is kept.
    """
    with _unpacked(path) as bundle:
        metadata = read_config(bundle / "configs" / "metadata.json")
        name = check_model_name(name or _as_name(str(metadata.get("name") or bundle.name)))
        if models.versions(name) and not models.is_imported(name):
            raise ModelError(f"{name!r} is a model that was trained here; give the bundle another --name.")
        if not is_trusted:
            read_recipe(bundle).config()  # before anything is copied
        with models.held(name, "training"), models.new_version(name) as (folder, number):
            card = _card(name, number, bundle, metadata)
            _copy(bundle, folder / BUNDLE, is_trusted)
            (folder / "card.json").write_text(json.dumps(card.to_json(), indent=1) + "\n", encoding="utf8")
            _try(BundleModel(folder / BUNDLE, card))
    return name, number, card


@contextmanager
def _unpacked(path: Path) -> Iterator[Path]:
    """The folder of a bundle, taken from its archive where it is one."""
    if path.is_dir():
        with _as_bundle(path) as bundle:
            yield bundle
        return
    if not path.exists():
        raise FileNotFoundError(2, "There is no bundle", str(path))
    if not zipfile.is_zipfile(path):
        raise ModelError(f"{path} is neither a folder nor a zip archive, so no bundle.")
    with tempfile.TemporaryDirectory(prefix="aiassist-") as folder, zipfile.ZipFile(path) as archive:
        if sum(one.file_size for one in archive.infolist()) > LARGEST:
            raise ModelError(f"{path} holds more than {LARGEST // 2**30} GB, so it is not unpacked.")
        archive.extractall(folder)  # which leaves no way out of the folder
        with _as_bundle(Path(folder)) as bundle:
            yield bundle


@contextmanager
def _as_bundle(folder: Path) -> Iterator[Path]:
    """The bundle in a folder, or in the only folder in it; of an MMAR, what it would be as a bundle."""
    inner = [one for one in sorted(folder.iterdir()) if one.is_dir()]
    for place in (folder, *inner[:1]):
        if any((place / "configs" / name).is_file() for name in FILES):
            yield place
            return
        if is_mmar(place):
            with tempfile.TemporaryDirectory(prefix="aiassist-") as made:
                yield _translated(place, Path(made) / place.resolve().name)
            return
    raise ModelError(f"{folder} is no MONAI bundle: it has no configs/{FILES[0]}.")


def _translated(mmar: Path, bundle: Path) -> Path:
    config, metadata = bundle_of(mmar)
    (bundle / "configs").mkdir(parents=True)
    for name, content in (("inference.json", config), ("metadata.json", metadata)):
        (bundle / "configs" / name).write_text(json.dumps(content, indent=1), encoding="utf8")
    for name in ("models", "docs"):
        if (mmar / name).is_dir():
            shutil.copytree(mmar / name, bundle / name)
    return bundle


def _as_name(text: str) -> str:
    """A model's name made of any text."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:64].strip("-") or "bundle"


def _card(name: str, number: int, bundle: Path, metadata: dict) -> ModelCard:
    inputs, outputs = (metadata.get("network_data_format", {}).get(key, {}) for key in ("inputs", "outputs"))
    image = next(iter(inputs.values()), {})
    modality = MODALITIES.get(str(image.get("modality", "")).lower())
    metrics = {
        str(k): float(v) for k, v in dict(metadata.get("eval_metrics") or {}).items() if isinstance(v, int | float)
    }
    said = [f"MONAI bundle {metadata.get('name', bundle.name)} {metadata.get('version', '')}".strip()]
    said += [str(metadata[key]) for key in ("authors", "copyright", "data_source", "intended_use") if metadata.get(key)]
    return ModelCard(
        name=name,
        version=str(number),
        kind="automatic",
        description=str(metadata.get("description") or metadata.get("task") or "A MONAI bundle."),
        licence=_licence(bundle),
        modalities=(modality,) if modality is not None else (),
        labels=_labels(next(iter(outputs.values()), {}).get("channel_def", {}), bundle),
        metrics=metrics,
        provenance=". ".join(said),
        devices=("cpu", "cuda"),
    )


def _labels(channels: dict, bundle: Path) -> tuple[Label, ...]:
    """What the bundle finds: its channels, but for the background."""
    named = {int(value): str(text) for value, text in dict(channels).items() if str(value).isdecimal()}
    labels = [(value, text) for value, text in sorted(named.items()) if value > 0 and text.lower() != "background"]
    if not labels:
        raise ModelError(f"{bundle / 'configs' / 'metadata.json'} names no structure in its channel_def.")
    return tuple(describe_structure(text, value) for value, text in labels)


def _licence(bundle: Path) -> str:
    """The SPDX identifier of a licence that is told by its text, else what tells people to read it."""
    files = [bundle / name for name in ("LICENSE", "LICENSE.txt") if (bundle / name).is_file()]
    text = files[0].read_text(encoding="utf8", errors="replace") if files else ""
    return "Apache-2.0" if "Apache License" in text and "Version 2.0" in text else "LicenseRef-bundle"


def _copy(bundle: Path, target: Path, is_trusted: bool) -> None:
    for name in TAKEN + (OWN if is_trusted else ()):
        source = bundle / name
        if source.is_dir():
            shutil.copytree(source, target / name)
        elif source.is_file():
            shutil.copyfile(source, target / name)
    if is_trusted:
        (target / TRUSTED).touch()


def _try(model: BundleModel) -> None:
    """Run the bundle once: what cannot work is said now, and not to whoever asks for it first."""
    empty = Volume(np.zeros((TRIAL,) * 3, np.int16), Geometry.from_spacing((TRIAL,) * 3, (2.0, 2.0, 2.0)))
    run(model.segment(empty))
