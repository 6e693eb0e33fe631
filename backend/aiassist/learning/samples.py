"""What a model can learn from: the accepted labels of a studies folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from aiassist.errors import StoreError
from aiassist.evaluation.cases import MIN_COMPONENT, MIN_SHARE, components
from aiassist.groundtruth import GroundTruthStore, State
from aiassist.groundtruth.index import ACCEPTED
from aiassist.groundtruth.names import key_of
from aiassist.groundtruth.records import LabelVersion
from aiassist.imaging import Region

#: Pieces of a label that count, the largest.
MOST = 20


@dataclass(frozen=True)
class Sample:
    """One label of one study: its structure's key, the version's number, and the hash of its voxels."""

    study: str
    structure: str
    number: int
    mask: str

    @classmethod
    def of(cls, version: LabelVersion) -> Sample:
        """A version of a label as a sample."""
        return cls(version.study, key_of(version.structure), version.number, version.mask)


def find_samples(
    store: GroundTruthStore, structures: Sequence[str] = (), drafts: bool = False, absent: bool = False
) -> list[Sample]:
    """The labels of a store that a model may learn from, oldest study first.

    Of each structure of a study it is the newest version that is no draft, if that was not rejected; a draft that
    somebody began on top of it changes nothing, even when it is rejected.

    Parameters
    ----------
    store : GroundTruthStore
    structures : sequence of str
        Names of the structures that count; all when empty.
    drafts : bool
        Whether drafts count as well.
    absent : bool
        Whether empty labels count, which say that the structure is not there.

    Raises
    ------
    StoreError
        When there is none.
    """
    wanted = set(map(key_of, structures))
    found, present = [], False
    for versions in store.accepted(drafts).values():
        chosen = [v for v in versions if not wanted or key_of(v.structure) in wanted]
        found += [Sample.of(v) for v in chosen if v.voxels or absent]
        present |= any(v.voxels for v in chosen)
    if not present:
        states = (*ACCEPTED, State.DRAFT) if drafts else ACCEPTED
        what = f"no {' or '.join(s.value for s in states)} label"
        of = f" of {', '.join(structures)}" if structures else ""
        raise StoreError(
            f"{store.folder} holds {what}{of} to learn from; submit some in Slicer, or: aiassist truth add."
        )
    return found


def check_each(store: GroundTruthStore, samples: Sequence[Sample], structures: Sequence[str]) -> None:
    """Raise `StoreError` when one of some structures, by name, has no label among those that were found."""
    missing = sorted(set(map(key_of, structures)) - {sample.structure for sample in samples})
    if missing:
        raise StoreError(f"{store.folder} holds no label of {' or '.join(missing)} to learn from; check the spelling.")


def targets(mask: np.ndarray) -> Iterator[np.ndarray]:
    """The structures of a label, as bool masks ``(k, j, i)``: itself, or its largest pieces where it is in several.

    As in `aiassist evaluate`, a label is one structure when `MIN_SHARE` of it hangs together; else each piece of
    `MIN_COMPONENT` voxels or more is one, as a patient's lesions are; `MOST` of them at most.
    """
    box = Region.of_mask(mask).slices
    parts, sizes = components(mask[box])
    if not sizes.size or sizes.max() >= MIN_SHARE * sizes.sum():
        yield from [mask] if sizes.sum() >= MIN_COMPONENT else []
        return
    largest = np.argsort(-sizes, kind="stable")[:MOST]
    for number in largest[sizes[largest] >= MIN_COMPONENT]:
        piece = np.zeros_like(mask)
        piece[box] = parts == 1 + number
        yield piece
