"""What travels back: a mask inside a region."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from aiassist.errors import AIAssistError, PatchError
from aiassist.imaging.region import Region

MAGIC = b"AAMP"
FORMAT = 1
#: Largest region that `MaskPatch.from_bytes` unpacks, in voxels, unless told otherwise.
MAX_VOXELS = 2**31
MAX_HEADER = 4096

Kind = Literal["bits", "labels", "probabilities"]
_DTYPES = {"bits": (np.bool_,), "labels": (np.uint8, np.uint16), "probabilities": (np.uint8,)}


@dataclass(frozen=True, eq=False)
class MaskPatch:
    """A mask inside a region; it *replaces* what was there and says nothing of the rest.

    Parameters
    ----------
    region : Region
        Which voxels of the study it covers; may be empty.
    voxels : numpy.ndarray
        Array ``(k, j, i)`` of the region's shape: bool for "bits" (one structure), uint8 or uint16
        for "labels" (several), uint8 for "probabilities" (0 = 0, 255 = 1).
    kind : {"bits", "labels", "probabilities"}
    """

    region: Region
    voxels: np.ndarray
    kind: Kind = "bits"

    def __post_init__(self):
        if self.kind not in _DTYPES:
            raise PatchError(f"A mask patch holds bits, labels or probabilities, not {self.kind!r}.")
        if self.voxels.shape != self.region.shape:
            raise PatchError(f"Voxels of shape {self.voxels.shape} do not fill {self.region}.")
        if self.voxels.dtype not in _DTYPES[self.kind]:
            raise PatchError(f"A patch of {self.kind} cannot hold {self.voxels.dtype} voxels.")
        if min(self.region.start) < 0:
            raise PatchError(f"A patch cannot start before the volume, at {self.region.start} (k, j, i).")

    @classmethod
    def of_mask(cls, mask: np.ndarray) -> MaskPatch:
        """The patch of bits around all true voxels of a whole-volume mask ``(k, j, i)``."""
        region = Region.of_mask(mask)
        return cls(region, mask[region.slices] != 0)

    @classmethod
    def empty(cls) -> MaskPatch:
        """A patch of bits that covers nothing."""
        return cls(Region((0, 0, 0), (0, 0, 0)), np.zeros((0, 0, 0), bool))

    @property
    def mask(self) -> np.ndarray:
        """Bool ``(k, j, i)``: where the structure is (any label, or probability of one half); not to be written to."""
        if self.kind == "bits":
            return self.voxels
        return self.voxels > 127 if self.kind == "probabilities" else self.voxels != 0

    def paste(self, target: np.ndarray) -> None:
        """Replace the voxels of `target` (a whole volume, ``(k, j, i)``) inside the region."""
        inside = self.region.clip(target.shape)
        if inside != self.region:
            raise PatchError(f"The patch at {self.region} reaches beyond a volume of {target.shape} (k, j, i).")
        target[self.region.slices] = self.voxels

    def to_mask(self, shape) -> np.ndarray:
        """A whole-volume bool mask of `shape` with this patch on empty ground."""
        mask = np.zeros(shape, bool)
        MaskPatch(self.region, self.mask).paste(mask)
        return mask

    def to_labelmap(self, shape) -> np.ndarray:
        """A whole-volume labelmap of `shape`, uint8 or uint16: bits become 1, labels stay as they are."""
        voxels = self.voxels if self.kind == "labels" else self.mask.astype(np.uint8)
        labelmap = np.zeros(shape, voxels.dtype)
        MaskPatch(self.region, voxels, "labels").paste(labelmap)
        return labelmap

    def within(self, region: Region) -> np.ndarray:
        """Bool mask of `region`'s shape: this patch on empty ground, seen through `region`."""
        out = np.zeros(region.shape, bool)
        shared = self.region.intersect(region)
        if not shared.is_empty:
            out[shared.within(region)] = self.mask[shared.within(self.region)]
        return out

    def over(self, base: MaskPatch | None) -> MaskPatch:
        """The whole structure after this patch replaced its region in `base`, cropped tightly."""
        if base is None:
            region, whole = self.region, self.mask
        else:
            region = self.region.union(base.region)
            whole = base.within(region)
            whole[self.region.within(region)] = self.mask
        tight = Region.of_mask(whole)
        return MaskPatch(tight.shift(region.start if not tight.is_empty else (0, 0, 0)), whole[tight.slices])

    @cached_property
    def version(self) -> str:
        """Hash of the true voxels, 32 hexadecimal digits; two patches of the same mask agree."""
        mask = self.mask
        tight = Region.of_mask(mask)
        place = tight.shift(self.region.start) if not tight.is_empty else tight
        digest = hashlib.blake2b(json.dumps(place.to_json()).encode(), digest_size=16)
        digest.update(np.packbits(mask[tight.slices]).data)
        return digest.hexdigest()

    def to_bytes(self) -> bytes:
        """The patch as bytes: magic, header (JSON), zlib-compressed voxels, CRC-32 of all before."""
        if self.kind == "bits":
            payload = np.packbits(self.voxels)
        else:
            payload = np.ascontiguousarray(self.voxels, dtype=self.voxels.dtype.newbyteorder("<"))
        header = {"kind": self.kind, "dtype": self.voxels.dtype.name, **self.region.to_json()}
        head = json.dumps(header).encode()
        data = MAGIC + struct.pack("<BI", FORMAT, len(head)) + head + zlib.compress(payload.tobytes(), 3)
        return data + struct.pack("<I", zlib.crc32(data))

    @classmethod
    def from_bytes(cls, data: bytes, max_voxels: int = MAX_VOXELS) -> MaskPatch:
        """Read what `to_bytes` wrote.

        Never unpacks more than the header promises, nor more than `max_voxels`.

        Raises
        ------
        PatchError
            When the bytes are anything else, truncated or altered.
        """
        try:
            return cls._parse(bytes(data), max_voxels)
        except (struct.error, zlib.error, ValueError, LookupError, TypeError, OverflowError, RecursionError) as error:
            reason = str(error) if isinstance(error, AIAssistError) else "they are damaged"
            raise PatchError(f"These {len(data)} bytes are not a mask patch: {reason}") from error

    @classmethod
    def _parse(cls, data: bytes, max_voxels: int) -> MaskPatch:
        if data[:4] != MAGIC or data[4] != FORMAT:
            raise PatchError("they do not begin as one of this version.")
        if struct.unpack("<I", data[-4:])[0] != zlib.crc32(data[:-4]):
            raise PatchError("the checksum differs, so they were cut or altered on the way.")
        (length,) = struct.unpack_from("<I", data, 5)
        if length > MAX_HEADER:
            raise PatchError(f"their header claims {length} bytes, more than the {MAX_HEADER} allowed.")
        header = json.loads(data[9 : 9 + length])
        region, dtypes = Region.from_json(header), {np.dtype(t).name: np.dtype(t) for t in _DTYPES[header["kind"]]}
        dtype = dtypes.get(header["dtype"])
        if dtype is None:
            raise PatchError(f"a patch of {header['kind']} cannot hold {header['dtype']!s:.40} voxels.")
        if region.voxels > max_voxels:
            raise PatchError(f"they promise {region.voxels} voxels, more than the {max_voxels} allowed.")
        size = -(-region.voxels // 8) if header["kind"] == "bits" else region.voxels * dtype.itemsize
        unpacker = zlib.decompressobj()
        raw = unpacker.decompress(data[9 + length : -4], size + 1)
        if len(raw) != size:
            raise PatchError(f"they hold {len(raw)} bytes of voxels where {size} are due.")
        if header["kind"] == "bits":
            voxels = np.unpackbits(np.frombuffer(raw, np.uint8), count=region.voxels).view(bool)
        else:
            voxels = np.frombuffer(raw, dtype.newbyteorder("<")).astype(dtype)
        return cls(region, voxels.reshape(region.shape), header["kind"])
