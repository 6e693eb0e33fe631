"""The models that there are to begin from and to compare with: the network that ships, and published versions."""

from __future__ import annotations

from pathlib import Path

from aiassist.errors import ModelError, UnknownModelError
from aiassist.resources import resource
from aiassist.segmenters.base import ModelCard
from aiassist.segmenters.model_store import ModelStore, check_model_name
from aiassist.segmenters.registry import BUNDLED, DEFAULT, load_network_folder


def check_own_name(models: ModelStore, name: str, kind: str) -> str:
    """The name, when a trained model of a kind may be called so; else `ModelError`."""
    if check_model_name(name) in BUNDLED:
        raise ModelError(f"{name!r} is a model that ships with aiassist; give yours another name.")
    versions = models.versions(name)
    if versions and (known := card_of(models.folder_of(name, versions[-1])).kind) != kind:
        raise ModelError(f"{name!r} has versions that are {known}; give the one that is {kind} another name.")
    if models.is_imported(name):
        raise ModelError(f"{name!r} is a bundle that was imported; give the model that learns another name.")
    return name


def base_of(models: ModelStore, name: str, kind: str, base: str | None = None) -> Path:
    """The folder of the network that a run of a model begins from; one that needs prompts.

    Parameters
    ----------
    models : ModelStore
    name, kind : str
        Of the model that learns.
    base : str, optional
        Name of a published model, or of the one that ships. When absent, the published version of `name` if it is
        promptable, else the one that ships.
    """
    if base is None:
        base = name if kind == "promptable" and models.published(name) is not None else DEFAULT
    if base == DEFAULT:
        return resource("Models", DEFAULT)
    if base in BUNDLED:
        raise ModelError(f"The model {base!r} has no weights to begin from; begin from {DEFAULT!r}.")
    version = models.published(base)
    if version is None:
        known = ", ".join([DEFAULT, *models.published_folders()])
        raise ModelError(f"No model {base!r} is published in {models.folder}; begin from one of {known}.")
    folder = models.folder_of(base, version)
    if card_of(folder).kind != "promptable":
        raise ModelError(f"The model {base!r} is automatic; begin from one that needs prompts, as {DEFAULT!r}.")
    return folder


def begun_from(models: ModelStore, name: str, version: str) -> Path:
    """Where a version of a network lies that a run began from; `UnknownModelError` when it is not here any more."""
    if name != DEFAULT:
        return models.folder_of(name, int(version))
    shipped = resource("Models", DEFAULT)
    if (now := card_of(shipped).version) != version:
        raise UnknownModelError(f"{DEFAULT!r} is of version {now} here.")
    return shipped


def rival_of(models: ModelStore, name: str, kind: str) -> Path | None:
    """What a version has to be better than: the published one, else the network that ships, or no automatic model."""
    version = models.published(name)
    if version is not None:
        return models.folder_of(name, version)
    return resource("Models", DEFAULT) if kind == "promptable" else None


def card_of(folder: Path) -> ModelCard:
    """The card of the model in a folder."""
    return load_network_folder(folder).card
