"""Bundles of MONAI's model zoo, which lies at the Hugging Face Hub: https://huggingface.co/MONAI."""

from __future__ import annotations

import io
import os
import re
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from aiassist.errors import Cancelled, MissingExtraError, ModelError
from aiassist.segmenters.bundle_files import OWN, TAKEN, told_of

ZOO = "MONAI"
#: Seconds between two looks whether the download is to end.
PAUSE = 0.2


@contextmanager
def fetched(
    name: str,
    version: str | None = None,
    is_trusted: bool = False,
    progress: Callable[[int, int | None], None] | None = None,
) -> Iterator[Path]:
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
    progress : callable, optional
        Called with how many bytes have come, and of how many in all.

    Raises
    ------
    ModelError
        When the zoo has no such bundle or version, or cannot be reached.
    MissingExtraError
        Without the package huggingface_hub.
    """
    check_bundle_name(name)
    mirror = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    if urlsplit(mirror).scheme not in ("http", "https"):
        raise ModelError(f"HF_ENDPOINT is {mirror!r}, which is no address; begin it with https://.")
    with tempfile.TemporaryDirectory(prefix="aiassist-") as folder:
        place = Path(folder) / name
        _download(name, version, place, TAKEN + (OWN if is_trusted else ()), progress or _nothing)
        with told_of(f"{ZOO}/{name}", place):
            yield place


def check_bundle_name(name: str) -> str:
    """The name, when a bundle of the zoo may be called so; else `ModelError`."""
    if not re.fullmatch(r"\w((?!--|\.\.)[\w.-]){0,88}(?<![.-])", name, re.ASCII):
        raise ModelError(f"{name!r} is no name of a bundle; the zoo's are listed at https://huggingface.co/{ZOO}.")
    return name


def _download(name: str, version: str | None, place: Path, wanted: tuple[str, ...], progress) -> None:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
    except ImportError as error:
        raise MissingExtraError("huggingface_hub", "bundles", "Fetching a bundle") from error
    patterns = [pattern for one in wanted for pattern in (one, f"{one}/*")]
    given_up = threading.Event()
    how = {"local_dir": place, "allow_patterns": patterns, "tqdm_class": _telling(progress, given_up)}
    try:
        with ThreadPoolExecutor(1) as thread:  # for on an interrupt the library would wait for all that is on its way
            coming = thread.submit(snapshot_download, f"{ZOO}/{name}", revision=version, **how)
            try:
                while not wait([coming], PAUSE).done:  # a thread that only waits is not interrupted
                    pass
            finally:
                given_up.set()
        coming.result()
    except RevisionNotFoundError as error:
        raise ModelError(f"MONAI's model zoo has no version {version!r} of {name}.") from error
    except RepositoryNotFoundError as error:
        raise ModelError(f"MONAI's model zoo has no bundle {name!r}; see https://huggingface.co/{ZOO}.") from error
    except OSError as error:
        raise ModelError(
            f"{name} could not be fetched from MONAI's model zoo ({_first_line(error)}). Download it elsewhere, and "
            "take it from its folder: aiassist models import PATH."
        ) from error


def _telling(progress: Callable[[int, int | None], None], given_up: threading.Event) -> type:
    """A bar for the library to tell of its bytes, which draws nothing and ends a download that is given up."""
    from tqdm import tqdm

    class Telling(tqdm):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **{**options, "file": io.StringIO()})  # it ends lines there

        def update(self, n=1):
            if given_up.is_set():
                raise Cancelled
            return super().update(n)

        def display(self, *_arguments, **_options) -> bool:
            if self.unit == "B":
                progress(int(self.n), int(self.total) if self.total else None)
            return True

    return Telling


def _first_line(error: OSError) -> str:
    """What a library says in a paragraph, without its advice."""
    return str(error).split("\n")[0].removeprefix("Got: ").rstrip(".") or type(error).__name__


def _nothing(_done: int, _total: int | None) -> None:
    """Nobody wants to know."""
