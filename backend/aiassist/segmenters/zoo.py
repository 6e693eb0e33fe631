"""Bundles of MONAI's model zoo, which lies at the Hugging Face Hub: https://huggingface.co/MONAI."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiassist.errors import MissingExtraError, ModelError
from aiassist.segmenters.bundle_files import OWN, TAKEN

ZOO = "MONAI"


@contextmanager
def fetched(name: str, version: str | None = None, is_trusted: bool = False) -> Iterator[Path]:
    """The folder of a bundle, downloaded, which goes when the block ends.

    Only what an import takes over is fetched. The environment variable ``HF_ENDPOINT`` names a mirror of the Hub.

    Parameters
    ----------
    name : str
        As the zoo has it, such as ``spleen_ct_segmentation``.
    version : str, optional
        As the zoo has it, such as ``0.5.9``; the newest when absent.
    is_trusted : bool
        Whether its own classes are wanted too.

    Raises
    ------
    ModelError
        When the zoo has no such bundle or version, or cannot be reached.
    MissingExtraError
        Without the package huggingface_hub.
    """
    if not re.fullmatch(r"\w((?!--|\.\.)[\w.-]){0,88}(?<![.-])", name, re.ASCII):
        raise ModelError(f"{name!r} is no name of a bundle; the zoo's are listed at https://huggingface.co/{ZOO}.")
    with tempfile.TemporaryDirectory(prefix="aiassist-") as folder:
        place = Path(folder) / name
        _download(name, version, place, TAKEN + (OWN if is_trusted else ()))
        yield place


def _download(name: str, version: str | None, place: Path, wanted: tuple[str, ...]) -> None:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
    except ImportError as error:
        raise MissingExtraError("huggingface_hub", "bundles", "Fetching a bundle") from error
    patterns = [pattern for one in wanted for pattern in (one, f"{one}/*")]
    try:
        snapshot_download(f"{ZOO}/{name}", revision=version, local_dir=place, allow_patterns=patterns)
    except RevisionNotFoundError as error:
        raise ModelError(f"MONAI's model zoo has no version {version!r} of {name}.") from error
    except RepositoryNotFoundError as error:
        raise ModelError(f"MONAI's model zoo has no bundle {name!r}; see https://huggingface.co/{ZOO}.") from error
    except OSError as error:
        raise ModelError(
            f"{name} could not be fetched from MONAI's model zoo ({error}). Download it elsewhere, and take it from "
            "its folder: aiassist models import PATH."
        ) from error
