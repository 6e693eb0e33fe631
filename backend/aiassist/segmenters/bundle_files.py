"""The files of a MONAI bundle, or of an MMAR, its forerunner: found in a folder or an archive, and copied."""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiassist.errors import ModelError
from aiassist.segmenters.bundle_metadata import METADATA
from aiassist.segmenters.mmar import bundle_of, is_mmar
from aiassist.segmenters.recipe import FILES

#: What is taken over of a bundle's folder; of one that is trusted also its own classes.
TAKEN, OWN = ("configs", "models", "LICENSE", "LICENSE.txt", "docs"), ("scripts",)
#: Most bytes of an archive, unpacked.
LARGEST = 16 * 2**30


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """The folder of a bundle, taken from its archive, or made of an MMAR, where it is one.

    Raises
    ------
    ModelError, FileNotFoundError
        When there is no bundle.
    """
    if path.is_dir():
        with _as_bundle(path, path) as bundle:
            yield bundle
        return
    if not path.exists():
        raise FileNotFoundError(f"There is no bundle {path}; check the spelling.")
    with tempfile.TemporaryDirectory(prefix="aiassist-") as folder:
        place = Path(folder) / path.stem  # after which a bundle is called that has no other name
        place.mkdir()
        _extract(path, place)
        with told_of(path, place), _as_bundle(place, path) as bundle:
            yield bundle


@contextmanager
def told_of(origin: Path | str, place: Path) -> Iterator[None]:
    """Have errors name where a bundle is from, and not the temporary folder in which it lies."""
    try:
        yield
    except ModelError as error:
        if type(error) is not ModelError or str(place) not in str(error):
            raise
        raise ModelError(str(error).replace(str(place), str(origin))) from error


def _extract(path: Path, folder: Path) -> None:
    if not zipfile.is_zipfile(path):
        raise ModelError(f"{path} is neither a folder nor a zip archive, so no bundle.")
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(one.file_size for one in archive.infolist()) > LARGEST:
                raise ModelError(f"{path} holds more than {LARGEST // 2**30} GB, so it is not unpacked.")
            archive.extractall(folder)  # which leaves no way out of the folder
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:  # encrypted, or odd
        raise ModelError(f"{path} cannot be unpacked: {error}.") from error


@contextmanager
def _as_bundle(folder: Path, path: Path) -> Iterator[Path]:
    """The bundle in a folder, or in a folder in it; of an MMAR, what it would be as a bundle."""
    inner = [one for one in sorted(folder.iterdir()) if one.is_dir() and not one.name.startswith((".", "__"))]
    for place in (folder, *inner):
        if any((place / "configs" / name).is_file() for name in FILES):
            if not (place / METADATA).is_file():
                raise ModelError(f"{path} has no {METADATA.as_posix()}, which says what a bundle finds; put it there.")
            yield place
            return
        if is_mmar(place):
            with tempfile.TemporaryDirectory(prefix="aiassist-") as made:
                bundle = Path(made) / place.resolve().name
                with told_of(path, bundle):
                    yield _translated(place, bundle)
            return
    raise ModelError(f"{path} is no MONAI bundle: it has no configs/{FILES[0]}.")


def _translated(mmar: Path, bundle: Path) -> Path:
    config, metadata = bundle_of(mmar)
    (bundle / "configs").mkdir(parents=True)
    for name, content in (("inference.json", config), ("metadata.json", metadata)):
        (bundle / "configs" / name).write_text(json.dumps(content, indent=1), encoding="utf8")
    copy_bundle(mmar, bundle, tuple(name for name in TAKEN if name != "configs"))
    return bundle


def copy_bundle(bundle: Path, target: Path, names: tuple[str, ...]) -> None:
    """Copy what has these names in a bundle's folder; `ModelError` for links that lead out of it."""
    for name in names:
        source = bundle / name
        _check_links(source, bundle.resolve())
        if source.is_dir():
            shutil.copytree(source, target / name, copy_function=shutil.copyfile)  # which stay writable
        elif source.is_file():
            target.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target / name)


def _check_links(source: Path, bundle: Path) -> None:
    for path in (source, *source.rglob("*")):  # which follows no links
        if path.is_symlink() and (path.is_dir() or not path.resolve().is_relative_to(bundle) or not path.exists()):
            raise ModelError(f"{path} is a link; put the file itself there, as cp -rL does, if you trust the bundle.")
