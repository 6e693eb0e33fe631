"""Labels of MONAI Label's clients, to and fro: one labelmap, and what its values are called."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np

from aiassist.errors import NotStoredError, UploadError
from aiassist.groundtruth.index import State
from aiassist.groundtruth.names import key_of
from aiassist.groundtruth.records import LabelVersion, Newest
from aiassist.groundtruth.store import GroundTruthStore
from aiassist.imaging import Geometry, MaskPatch, Volume
from aiassist.imaging.image_files import LABELS_OFF
from aiassist.imaging.nrrd_files import write_nrrd
from aiassist.segmenters.base import Step
from aiassist.server.asked import NewVersion
from aiassist.server.service import Service
from aiassist.server.tokens import Person

#: Most structures that a labelmap names, letters of a name, as on all routes, and the largest value of one.
STRUCTURES, LETTERS, VALUE = 1000, 200, 65535


def saving(
    service: Service, person: Person, study: str, label: Volume, params: dict, comment: str
) -> Generator[Step, None, list[str]]:
    """Save each named value of a labelmap that holds something, when it differs from what is there; returns the names.

    An empty one says nothing: clients name all structures that they know, drawn or not. What is the newest version
    already, or is what a labelmap that was fetched showed of it, makes none, but a draft is submitted, as it is.
    """
    check_grid(label, service.studies.geometry(study))
    named = _drawn(label, _named(params))
    history, kept = {}, []
    for version in service.store.history(study):
        history.setdefault(key_of(version.structure), []).append(version)
    for name, value in named:  # all are compared before any is saved, so that a fault leaves nothing half done
        yield Step("compare", 0.0)
        kept.append((yield from _kept(service.store, history, key_of(name), MaskPatch.of_mask(label.voxels == value))))
    saved = []
    for number, ((name, value), same) in enumerate(zip(named, kept, strict=True)):
        yield Step("save", number / len(named))
        if same is None or same.state is State.DRAFT:
            mask = MaskPatch.of_mask(label.voxels == value)
            if same is not None and same.mask != mask.version:  # a part of it is hidden
                mask = service.store.mask(same)
            service.save(person, study, name, NewVersion(mask, comment=comment, state=State.SUBMITTED))
            saved.append(name)
    return saved


def label_info(labels: Sequence[Newest]) -> list[dict]:
    """What the values of `labelmap_file` are called, by `GroundTruthStore.structures` of a study.

    A structure that is added gets a value of its own and changes no other: clients ask for names and file one by one.
    """
    return [{"name": label.structure, "idx": value} for value, label in enumerate(labels, 1)]


def labelmap_file(service: Service, person: Person, study: str) -> bytes:
    """The newest labels as one NRRD; where structures overlap, the voxels are those of the one that was saved last.

    What the values are called stands in its header, as in that of a segmentation of 3D Slicer.
    """
    store = service.store
    labels = store.structures(study).get(study, [])
    if not labels:
        raise NotStoredError(f"There are no labels of the study {study} here.")
    geometry = store.geometry(study)
    labelmap = np.zeros(geometry.shape, np.uint8 if len(labels) < 256 else np.uint16)
    for value, label in sorted(enumerate(labels, 1), key=lambda one: one[1].made):
        mask = store.mask(store.version(study, label.structure, label.number))
        labelmap[mask.region.slices][mask.mask] = value
    fields = {}
    for one in label_info(labels):
        segment = f"Segment{one['idx'] - 1}"
        fields |= {f"{segment}_Name": one["name"], f"{segment}_LabelValue": str(one["idx"])}
    with tempfile.TemporaryDirectory(prefix="aiassist-") as folder:
        path = Path(folder) / "labels.nrrd"
        write_nrrd(path, Volume(labelmap, geometry), fields)
        data = path.read_bytes()
    service.note(person, "export", study=study, ending=".nrrd")
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
    """Those of which a labelmap holds voxels.

    `UploadError` when it holds a value that has no name, or two, or when two values have one name.
    """
    values = np.array([0, *(value for _, value in named)])
    is_there = np.zeros(len(values), bool)
    for plane in label.voxels:
        found = np.unique(plane)
        is_there |= np.isin(values, found)
        unnamed = found[~np.isin(found, values)]
        if len(unnamed):
            raise UploadError(
                f"The labelmap holds the value {unnamed[0].item()}, which label_info does not name; name each value."
            )
    drawn: dict[str, tuple[str, int]] = {}
    names: dict[int, str] = {}
    for name, value in (one for one, is_drawn in zip(named, is_there[1:], strict=True) if is_drawn):
        if drawn.setdefault(key_of(name), (name, value)) != (name, value):
            raise UploadError(f"Two segments are called {name[:80]!r}; give each structure a name of its own.")
        if (other := names.setdefault(value, name)) != name:
            raise UploadError(f"label_info calls the value {value} {other[:80]!r} and {name[:80]!r}; give it one name.")
    return list(drawn.values())


def _kept(
    store: GroundTruthStore, history: dict[str, list[LabelVersion]], key: str, patch: MaskPatch
) -> Generator[Step, None, LabelVersion | None]:
    """The newest version of a structure, when a patch is it, or is all that a labelmap showed of it at any time.

    `history` holds the versions of the study's structures, by their keys.
    """
    own = history.get(key)
    if own is None or own[-1].mask == patch.version:
        return own[-1] if own else None
    mask = store.mask(own[-1])
    is_seen = patch.within(mask.region)[mask.mask]
    if is_seen.sum() != patch.mask.sum():  # it has voxels besides
        return None
    same = [version.made for version in own if version.mask == own[-1].mask]
    later = [(v.made, other, v) for other, of in history.items() if other != key for v in of if v.made > same[0]]
    others = []
    for made, other, version in sorted(later, key=lambda one: one[0]):
        yield Step("compare", 0.0)
        others.append((made, other, np.packbits(store.mask(version).within(mask.region)[mask.mask])))
    return own[-1] if any(_was_hidden(np.packbits(~is_seen), others, since) for since in same) else None


def _was_hidden(unseen: np.ndarray, others: list[tuple[datetime, str, np.ndarray]], since: datetime) -> bool:
    """Whether others that were saved since hid just these of a structure's voxels, before or after one of them.

    Clients go on with the labelmap that they fetched, so what hid a part may have been corrected meanwhile. Voxels are
    bits; of the others it is when they were made, their keys, and which voxels they hide.
    """
    hidden: dict[str, np.ndarray] = {}
    for made, other, hides in others:
        if made > since:
            hidden[other] = hides
            if np.array_equal(np.bitwise_or.reduce(list(hidden.values())), unseen):
                return True
    return False
