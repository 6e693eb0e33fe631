"""Make a version of a model of a MONAI bundle, or of an MMAR, in a folder of models."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from aiassist.errors import ModelError
from aiassist.imaging import Geometry, Volume
from aiassist.segmenters.base import ModelCard, run
from aiassist.segmenters.bundle import TRUSTED, BundleModel
from aiassist.segmenters.bundle_files import OWN, TAKEN, copy_bundle, unpacked
from aiassist.segmenters.bundle_metadata import card_of_bundle, name_of_bundle
from aiassist.segmenters.model_store import BUNDLE, ModelStore, check_model_name
from aiassist.segmenters.recipe import read_recipe
from aiassist.segmenters.registry import BUNDLED

#: Voxels along the sides of the image on which a bundle is tried: an answer with its axes changed does not fit.
TRIAL = (48, 64, 80)


def import_bundle(
    path: Path, models: ModelStore, name: str | None = None, is_trusted: bool = False
) -> tuple[str, int, ModelCard]:
    """Copy a bundle or MMAR, a folder or a zip archive, as a new version of a model, once it ran on a small image.

    Parameters
    ----------
    path : Path
    models : ModelStore
    name : str, optional
        Of the model; made of the bundle's own when absent.
    is_trusted : bool
        Whether it may run programs of its own, see `aiassist.segmenters.harmless`.

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
        When it is no bundle, cannot be built or run, or the name belongs to another model; nothing is kept.
    """
    with unpacked(path) as bundle:
        name = _check_name(name or _as_name(name_of_bundle(bundle)), models)
        if not is_trusted:
            read_recipe(bundle).config()  # before anything is copied
        with models.held(name, "training"), models.new_version(name) as (folder, number):
            card = card_of_bundle(name, number, bundle)
            copy_bundle(bundle, folder / BUNDLE, TAKEN + (OWN if is_trusted else ()))
            if is_trusted:
                (folder / BUNDLE / TRUSTED).touch()
            (folder / "card.json").write_text(json.dumps(card.to_json(), indent=1) + "\n", encoding="utf8")
            _try(BundleModel(folder / BUNDLE, card))
    return name, number, card


def _check_name(name: str, models: ModelStore) -> str:
    """The name, when a bundle may be called so."""
    if check_model_name(name) in BUNDLED:
        raise ModelError(f"{name!r} is a model that ships with aiassist; give the bundle another --name.")
    is_trained = models.versions(name) and not models.is_imported(name)
    if is_trained or models.unfinished(name) is not None:
        raise ModelError(f"{name!r} is a model that was trained here; give the bundle another --name.")
    return name


def _as_name(text: str) -> str:
    """A model's name made of any text."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:64].strip("-") or "bundle"


def _try(model: BundleModel) -> None:
    """Run the bundle once: what cannot work is said now, and not to whoever asks for it first."""
    run(model.segment(_trial()))


def _trial() -> Volume:
    """A ball, bright in its middle and 0 around, which lies elsewhere in each mirror image."""
    sides = np.reshape(TRIAL, (3, 1, 1, 1))
    away = np.linalg.norm(np.indices(TRIAL) - 0.4 * sides, axis=0)
    ball = np.round(1000 * np.exp(-((away / (min(TRIAL) / 4)) ** 2))).astype(np.int16)
    return Volume(ball, Geometry.from_spacing(ball.shape, (2.0, 2.0, 2.0)))
