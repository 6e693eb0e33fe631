"""NIfTI files of others lie where ITK, and so Slicer, sees them, or are refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from aiassist.errors import ImageError
from aiassist.imaging import Volume, read_volume, write_volume

VOXELS = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
SPACING = (2.0, 3.0, 4.0)
#: What qforms and sforms say, in RAS: a scanner's axes, and a turned and moved atlas.
SCANNER = np.diag([*SPACING, 1.0])
ATLAS = np.eye(4)
ATLAS[:3, :3] = Rotation.from_euler("xyz", [10, 20, 30], degrees=True).as_matrix() * SPACING
ATLAS[:3, 3] = 5, 6, 7
SHEAR = np.array([[1, 0.3, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])


def written(path: Path, codes: tuple[int, int], sform: np.ndarray, offset: int = 352) -> Path:
    """A file of `VOXELS` with the codes of a qform that says `SCANNER` and of an sform."""
    header = nibabel.Nifti1Header()
    header.set_data_shape(VOXELS.shape[::-1])
    header.set_data_dtype(VOXELS.dtype)
    header.set_qform(SCANNER)
    header.set_sform(sform)
    header["qform_code"], header["sform_code"] = codes
    header["magic"], header["vox_offset"] = b"n+1", offset
    path.write_bytes(header.binaryblock + bytes(max(offset - 348, 4)) + VOXELS.tobytes())
    return path


def assert_as_itk(path: Path) -> None:
    """The image, and a mask that is written for it, lie where ITK sees the image."""
    seen, itk = read_volume(path), Volume.from_sitk(sitk.ReadImage(str(path)))
    assert seen.geometry.same_grid(itk.geometry) and np.array_equal(seen.voxels, itk.voxels)
    mask = path.with_name("mask.nii.gz")
    write_volume(mask, Volume((seen.voxels > 30).astype(np.uint8), seen.geometry))
    assert Volume.from_sitk(sitk.ReadImage(str(mask))).geometry.same_grid(itk.geometry)


CODES = [(qform, sform) for qform in range(5) for sform in range(5)]


@pytest.mark.parametrize("codes", CODES, ids=str)
def test_of_a_qform_and_an_sform_that_counts_by_which_itk_goes(tmp_path, codes):
    assert_as_itk(written(tmp_path / "a.nii", codes, ATLAS))


@pytest.mark.parametrize("codes", [pair for pair in CODES if pair[0]], ids=str)
def test_an_sform_with_shear_does_not_count_beside_a_qform(tmp_path, codes):
    assert_as_itk(written(tmp_path / "a.nii", codes, ATLAS @ SHEAR))


@pytest.mark.parametrize("code", [1, 2, 3, 4])
def test_an_sform_alone_is_exact_where_itk_cannot_be(tmp_path, code):
    finer = ATLAS @ np.diag([1.1, 1.1, 1.1, 1.0])
    for sform in (ATLAS @ SHEAR, finer):
        assert np.allclose(read_volume(written(tmp_path / "a.nii", (0, code), sform)).geometry.affine_ras, sform)
    assert np.allclose(read_volume(written(tmp_path / "a.nii", (2, 1), finer)).geometry.affine_ras, finer)


def test_an_sform_that_says_the_same_more_exactly_counts(tmp_path):
    exact = SCANNER + np.pad([[2e-5]], ((0, 3), (3, 0)))
    assert read_volume(written(tmp_path / "a.nii", (1, 4), exact)).geometry.affine_ras[0, 3] == np.float32(2e-5)


def test_voxels_within_the_header_are_refused(tmp_path):
    said = r"a\.nii says that its voxels begin at byte 0, within its header of 348 bytes; save it again"
    with pytest.raises(ImageError, match=said):
        read_volume(written(tmp_path / "a.nii", (1, 1), ATLAS, 0))


@pytest.mark.parametrize("offset", [100, 347])
def test_voxels_that_begin_oddly_are_refused(tmp_path, offset):
    with pytest.raises(ImageError, match="not a readable NIfTI file"):
        read_volume(written(tmp_path / "a.nii", (1, 1), ATLAS, offset))


@pytest.mark.parametrize("offset", [352, 368])
def test_voxels_begin_where_itk_has_them_begin(tmp_path, offset):
    path = written(tmp_path / "a.nii", (1, 1), ATLAS, offset)
    assert np.array_equal(read_volume(path).voxels, sitk.GetArrayFromImage(sitk.ReadImage(str(path))))


@pytest.mark.parametrize("kind", [nibabel.AnalyzeImage, nibabel.Spm99AnalyzeImage, nibabel.Spm2AnalyzeImage])
@pytest.mark.parametrize("ending", [".hdr", ".img", ".hdr.gz", ".img.gz"])
def test_analyze_is_refused(tmp_path, kind, ending):
    kind(VOXELS.T, SCANNER).to_filename(tmp_path / f"a{ending}")
    with pytest.raises(ImageError, match=rf"a\{ending} is an Analyze file, .* save it as \.nii\.gz"):
        read_volume(tmp_path / f"a{ending}")


@pytest.mark.parametrize("ending", [".hdr", ".img", ".hdr.gz", ".img.gz", ".HDR.GZ"])
def test_a_pair_of_nifti_files_is_read(tmp_path, ending):
    nibabel.Nifti1Pair(VOXELS.T, ATLAS).to_filename(tmp_path / f"a{ending}")
    back = read_volume(tmp_path / f"a{ending}")
    assert np.array_equal(back.voxels, VOXELS) and np.allclose(back.geometry.affine_ras, ATLAS)


@pytest.mark.parametrize("ending", [".hdr.gz", ".img.gz"])
def test_a_compressed_pair_that_was_cut_off_is_refused(tmp_path, ending):
    nibabel.Nifti1Pair(VOXELS.T, ATLAS).to_filename(tmp_path / "a.hdr.gz")
    whole = gzip.decompress((tmp_path / "a.img.gz").read_bytes())
    (tmp_path / "a.img.gz").write_bytes(gzip.compress(whole[:50]))
    with pytest.raises(ImageError, match=rf"a\{ending} is not a readable NIfTI file: it is damaged, truncated"):
        read_volume(tmp_path / f"a{ending}")
