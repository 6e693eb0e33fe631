"""Mask patches travel unharmed, say what is wrong with damaged bytes, and replace only their region."""

from __future__ import annotations

import json
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import patches, regions

from aiassist.errors import PatchError
from aiassist.imaging import MaskPatch, Region
from aiassist.imaging.patch import FORMAT, MAGIC, MAX_VOXELS

#: Holds every region that the strategies draw.
WHOLE = (13, 13, 13)


def forged(header, payload: bytes = b"") -> bytes:
    """Bytes with a right checksum around any header."""
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    data = MAGIC + struct.pack("<BI", FORMAT, len(head)) + head + zlib.compress(payload)
    return data + struct.pack("<I", zlib.crc32(data))


def header(**changes) -> dict:
    return {"kind": "bits", "dtype": "bool", "start": [0, 0, 0], "stop": [2, 2, 2]} | changes


@given(patches())
def test_bytes_return_the_patch(patch):
    back = MaskPatch.from_bytes(patch.to_bytes())
    assert (back.region, back.kind, back.voxels.dtype) == (patch.region, patch.kind, patch.voxels.dtype)
    assert np.array_equal(back.voxels, patch.voxels)
    assert back.version == patch.version


def test_an_empty_patch_travels():
    back = MaskPatch.from_bytes(MaskPatch.empty().to_bytes())
    assert back.region.is_empty
    assert back.voxels.shape == (0, 0, 0)


def test_bytes_written_by_hand_are_read():
    patch = MaskPatch.from_bytes(forged(header(start=[1, 2, 3], stop=[3, 3, 4]), b"\x40"))
    assert patch.region == Region((3, 2, 1), (4, 3, 3))
    assert patch.voxels.tolist() == [[[False, True]]]


@given(patches(), st.data())
def test_any_flipped_byte_is_noticed(patch, data):
    altered = bytearray(patch.to_bytes())
    altered[data.draw(st.integers(0, len(altered) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(PatchError, match="not a mask patch"):
        MaskPatch.from_bytes(altered)


def test_every_flipped_byte_of_one_patch_is_noticed():
    whole = MaskPatch.of_mask(np.random.default_rng(0).random((6, 7, 8)) > 0.5).to_bytes()
    for place in range(len(whole)):
        altered = bytearray(whole)
        altered[place] ^= 0x10
        with pytest.raises(PatchError):
            MaskPatch.from_bytes(altered)


def test_every_truncation_of_one_patch_is_noticed():
    whole = MaskPatch.of_mask(np.random.default_rng(0).random((6, 7, 8)) > 0.5).to_bytes()
    for length in range(len(whole)):
        with pytest.raises(PatchError, match=f"These {length} bytes"):
            MaskPatch.from_bytes(whole[:length])


@given(st.binary(max_size=200))
def test_any_other_bytes_are_refused(data):
    for candidate in (data, MAGIC + bytes([FORMAT]) + data, forged(data)):
        with pytest.raises(PatchError):
            MaskPatch.from_bytes(candidate)


@pytest.mark.parametrize(
    "bad",
    [
        header(stop=[2**11, 2**11, 2**10]),
        header(stop=[2**40, 2**40, 2**40]),
        header(stop=[10**300, 1, 1]),
        header(stop=[float("inf"), 1, 1]),
        header(stop=[2.5, 2, 2]),
        header(start=[-1, 0, 0]),
        header(start=[0, 0], stop=[1, 1]),
        header(dtype="object"),
        header(dtype="float64"),
        header(dtype="uint8"),
        header(dtype="nonsense"),
        header(dtype="f8,(100000000,)f8"),
        header(dtype="i4,("),
        header(dtype=None),
        header(kind="labels", dtype=">u2"),
        header(kind="labels", dtype="bool"),
        header(kind="contour"),
        header(kind=[]),
        {"kind": "bits"},
        [],
        b"[" * 4000,
        b'{"kind": "bits",' + b" " * 5000,
        b"\xff\xfe",
    ],
    ids=str,
)
def test_a_lying_header_is_refused_without_taking_memory(bad):
    data = forged(bad, bytes(8))
    tracemalloc.start()
    try:
        with pytest.raises(PatchError, match="not a mask patch"):
            MaskPatch.from_bytes(data)
        assert tracemalloc.get_traced_memory()[1] < 2e6
    finally:
        tracemalloc.stop()


def test_a_payload_never_unpacks_beyond_its_promise():
    bomb = forged(header(), bytes(200_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(PatchError, match="2 bytes of voxels where 1 are due"):
            MaskPatch.from_bytes(bomb)
        assert tracemalloc.get_traced_memory()[1] < 2e6
    finally:
        tracemalloc.stop()


def test_the_largest_region_can_be_set():
    data = MaskPatch.of_mask(np.ones((3, 3, 3), bool)).to_bytes()
    assert MaskPatch.from_bytes(data, max_voxels=27).mask.all()
    with pytest.raises(PatchError, match="27 voxels, more than the 26 allowed"):
        MaskPatch.from_bytes(data, max_voxels=26)
    assert MAX_VOXELS == 2**31


@pytest.mark.parametrize(
    ("voxels", "kind", "named"),
    [
        (np.zeros((2, 2, 2), bool), "contour", "contour"),
        (np.zeros((2, 2, 3), bool), "bits", "(2, 2, 3)"),
        (np.zeros((2, 2, 2), np.float32), "probabilities", "float32"),
        (np.zeros((2, 2, 2), np.int16), "labels", "int16"),
    ],
)
def test_voxels_that_do_not_fit_are_refused_by_value(voxels, kind, named):
    with pytest.raises(PatchError) as error:
        MaskPatch(Region((0, 0, 0), (2, 2, 2)), voxels, kind)
    assert named in str(error.value)


def test_a_patch_cannot_start_before_the_volume():
    with pytest.raises(PatchError, match="-1"):
        MaskPatch(Region((-1, 0, 0), (0, 1, 1)), np.ones((1, 1, 1), bool))


@given(patches(kinds=["bits"]), st.booleans())
def test_paste_replaces_its_region_and_leaves_the_rest(patch, ground):
    target = np.full(WHOLE, ground)
    patch.paste(target)
    outside = np.ones(WHOLE, bool)
    outside[patch.region.slices] = False
    assert np.array_equal(target[patch.region.slices], patch.voxels)
    assert (target[outside] == ground).all()


@given(patches(kinds=["labels"]))
def test_paste_of_labels_keeps_their_values(patch):
    target = np.full(WHOLE, 7, np.uint16)
    patch.paste(target)
    assert np.array_equal(target[patch.region.slices], patch.voxels)


def test_paste_beyond_the_volume_is_refused_and_changes_nothing():
    target = np.zeros((3, 3, 3), bool)
    patch = MaskPatch(Region((2, 2, 2), (4, 3, 3)), np.ones((2, 1, 1), bool))
    with pytest.raises(PatchError, match="beyond"):
        patch.paste(target)
    assert not target.any()


@given(patches())
def test_the_mask_of_a_patch_is_any_label_or_half_a_probability(patch):
    expected = patch.voxels >= 128 if patch.kind == "probabilities" else patch.voxels > 0
    assert patch.mask.dtype == bool
    assert np.array_equal(patch.mask, expected)


@given(patches(), regions(low=0))
def test_within_sees_the_mask_through_another_region(patch, window):
    assert np.array_equal(patch.within(window), patch.to_mask(WHOLE)[window.slices])


@given(patches(), patches(kinds=["bits"]))
def test_over_replaces_the_region_in_the_base(patch, base):
    expected = base.to_mask(WHOLE)
    expected[patch.region.slices] = patch.mask
    whole = patch.over(base)
    assert np.array_equal(whole.to_mask(WHOLE), expected)
    assert whole.region == Region.of_mask(expected)


@given(patches())
def test_over_nothing_crops_to_the_structure(patch):
    whole = patch.over(None)
    assert np.array_equal(whole.to_mask(WHOLE), patch.to_mask(WHOLE))
    assert whole.region == Region.of_mask(patch.to_mask(WHOLE))


@given(patches(kinds=["bits"]))
def test_an_empty_patch_over_a_mask_changes_nothing(base):
    assert MaskPatch.empty().over(base).version == base.version


@given(patches(), regions(low=0))
def test_version_depends_on_the_true_voxels_alone(patch, around):
    surrounding = patch.region.union(around)
    wider = MaskPatch(surrounding, patch.within(surrounding))
    assert wider.version == patch.version == patch.over(None).version
    assert MaskPatch.of_mask(patch.to_mask(WHOLE)).version == patch.version


@given(patches(kinds=["bits"]), st.data())
def test_version_changes_with_one_voxel_and_with_the_place(patch, data):
    mask = patch.to_mask(WHOLE)
    voxel = tuple(data.draw(st.integers(0, 12)) for _ in range(3))
    mask[voxel] ^= True
    assert MaskPatch.of_mask(mask).version != patch.version
    if patch.mask.any():
        assert MaskPatch(patch.region.shift((0, 0, 1)), patch.voxels).version != patch.version
