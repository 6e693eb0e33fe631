"""The networks that there are to begin from and to compare with: the one that ships, and published versions."""

from __future__ import annotations

from pathlib import Path

from aiassist.errors import ModelError
from aiassist.resources import resource
from aiassist.segmenters.model_store import ModelStore, check_model_name
from aiassist.segmenters.registry import BUNDLED, DEFAULT, load_network_folder


def check_own_name(name: str) -> str:
    """The name, when a trained model may be called so; else `ModelError`."""
    if check_model_name(name) in BUNDLED:
        raise ModelError(f"{name!r} is a model that ships with aiassist; give yours another name.")
    return name


def base_of(models: ModelStore, name: str, base: str | None = None) -> Path:
    """The folder of the network that a run of a model begins from.

    Parameters
    ----------
    models : ModelStore
    name : str
        Of the model that learns.
    base : str, optional
        Name of a published model, or of the one that ships; when absent, the published version of `name`, else the
        one that ships.
    """
    if base is None:
        base = name if models.published(name) is not None else DEFAULT
    if base == DEFAULT:
        return resource("Models", DEFAULT)
    if base in BUNDLED:
        raise ModelError(f"The model {base!r} has no weights to begin from; begin from {DEFAULT!r}.")
    version = models.published(base)
    if version is None:
        known = ", ".join([DEFAULT, *models.published_folders()])
        raise ModelError(f"No model {base!r} is published in {models.folder}; begin from one of {known}.")
    return models.folder_of(base, version)


def rival_of(models: ModelStore, name: str, base: Path) -> Path:
    """What a new version has to be better than: the published one, else the network that it began from."""
    version = models.published(name)
    return base if version is None else models.folder_of(name, version)


def card_of(folder: Path) -> tuple[str, str]:
    """Name and version of the model in a folder."""
    card = load_network_folder(folder).card
    return card.name, card.version
