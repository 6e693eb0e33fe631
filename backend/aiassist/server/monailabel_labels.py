"""Labels of MONAI Label's clients, to and fro: one labelmap, and what its values are called."""

from __future__ import annotations

from collections.abc import Generator, Mapping

import numpy as np

from aiassist.errors import NotStoredError, UploadError
from aiassist.groundtruth.index import State
from aiassist.groundtruth.names import key_of
from aiassist.groundtruth.records import LabelVersion
from aiassist.imaging import Geometry, MaskPatch, Volume
from aiassist.imaging.image_files import LABELS_OFF
from aiassist.segmenters.base import Step
from aiassist.server.asked import NewVersion
from aiassist.server.forms import image_bytes
from aiassist.server.service import Service
from aiassist.server.tokens import Person

#: Most structures that a labelmap names, letters of a name, as on all routes, and the largest value of one.
STRUCTURES, LETTERS, VALUE = 1000, 200, 65535


def saving(
    service: Service, person: Person, study: str, label: Volume, params: dict, comment: str
) -> Generator[Step, None, list[str]]:
    """Save each named value of a labelmap that holds something, when it differs from what is there; returns the names.

    An empty one says nothing: clients name all structures that they know, drawn or not. What is the newest version
    already makes none, but a draft is submitted.
    """
    check_grid(label, service.studies.geometry(study))
    named = _drawn(label, _named(params))  # all are checked before any is saved
    saved = []
    for number, (name, value) in enumerate(named):
        yield Step("save", number / len(named))
        patch = MaskPatch.of_mask(label.voxels == value)
        if not _is_saved(service, study, name, patch):
            service.save(person, study, name, NewVersion(patch, comment=comment, state=State.SUBMITTED))
            saved.append(name)
    return saved


def label_info(labels: Mapping[str, LabelVersion]) -> list[dict]:
    """What the values of `labelmap_file` are called, by the newest versions of a study's structures."""
    return [{"name": name, "idx": value} for value, name in enumerate(labels, 1)]


def labelmap_file(service: Service, person: Person, study: str) -> bytes:
    """The newest labels as one NRRD; where structures overlap, the voxels are those of the one that was saved last."""
    labels = list(service.store.latest(study).values()) if service.store.has(study) else []
    if not labels:
        raise NotStoredError(f"There are no labels of the study {study} here.")
    geometry = service.store.geometry(study)
    labelmap = np.zeros(geometry.shape, np.uint8 if len(labels) < 256 else np.uint16)
    for value, version in sorted(enumerate(labels, 1), key=lambda one: one[1].made):
        mask = service.store.mask(version)
        labelmap[mask.region.slices][mask.mask] = value
    data, ending = image_bytes(labelmap, geometry, {}, ".nrrd")
    service.note(person, "export", study=study, ending=ending)
    return data


def check_grid(label: Volume, geometry: Geometry) -> None:
    """Raise `UploadError` unless a labelmap lies on its image's grid."""
    if not label.geometry.same_grid(geometry, LABELS_OFF):
        raise UploadError(f"The labelmap lies on another grid than its image: {label.geometry.difference(geometry)}.")


def _named(params: dict) -> list[tuple[str, int]]:
    """The names of a labelmap's values, and the values; `UploadError` where one cannot be."""
    said = params.get("label_info")
    if not isinstance(said, list) or not all(isinstance(one, dict) and one.get("name") for one in said):
        raise UploadError('params must say what the labelmap holds: {"label_info": [{"name": "spleen", "idx": 1}]}.')
    if len(said) > STRUCTURES:
        raise UploadError(f"label_info names {len(said):,} structures; at most {STRUCTURES:,} are taken.")
    named = [(str(one["name"]), one.get("idx", number)) for number, one in enumerate(said, 1)]
    for name, value in named:
        if len(name) > LETTERS:
            raise UploadError(f"The name {name[:20]!r}... has {len(name):,} letters; at most {LETTERS} are taken.")
        if type(value) is not int or value < 1:
            raise UploadError(f"The idx {str(value)[:20]!r} of {name[:80]!r} is no structure; 1 is the first.")
        if value > VALUE:
            raise UploadError(f"The idx {str(value)[:20]} of {name[:80]!r} is too large; {VALUE} is the last.")
        key_of(name)
    return named


def _drawn(label: Volume, named: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Those of which a labelmap holds voxels; `UploadError` when two of them have one name."""
    values = np.array([value for _, value in named])
    is_there = np.zeros(len(values), bool)
    for plane in label.voxels:
        is_there |= np.isin(values, np.unique(plane))
    drawn: dict[str, tuple[str, int]] = {}
    for (name, value), is_drawn in zip(named, is_there, strict=True):
        if is_drawn and drawn.setdefault(key_of(name), (name, value)) != (name, value):
            raise UploadError(f"Two segments are called {name[:80]!r}; give each structure a name of its own.")
    return list(drawn.values())


def _is_saved(service: Service, study: str, name: str, patch: MaskPatch) -> bool:
    """Whether these voxels are the newest version of a structure, and no draft."""
    versions = service.store.history(study, name) if service.store.has(study) else []
    return bool(versions) and versions[-1].mask == patch.version and versions[-1].state is not State.DRAFT
