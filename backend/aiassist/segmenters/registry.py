"""Which segmenters there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from aiassist.errors import ModelError
from aiassist.segmenters.base import ModelCard, Promptable
from aiassist.segmenters.ellipsoid import Ellipsoid
from aiassist.segmenters.geodesic import Geodesic

DEFAULT = "geodesic"


class Registry:
    """Segmenters by name; each is made when first asked for, and kept."""

    def __init__(self):
        self._makers: dict[str, Callable[[], Promptable]] = {}
        self._made: dict[str, Promptable] = {}

    def add(self, name: str, maker: Callable[[], Promptable]) -> None:
        """Register a segmenter under `name`, replacing an earlier one."""
        self._makers[name] = maker
        self._made.pop(name, None)

    def get(self, name: str) -> Promptable:
        """The segmenter called `name`; `ModelError` when there is none."""
        if name not in self._makers:
            raise ModelError(f"There is no model {name!r}; the models are {', '.join(self._makers)}.")
        if name not in self._made:
            self._made[name] = self._makers[name]()
        return self._made[name]

    def cards(self) -> Iterator[ModelCard]:
        """The cards of all segmenters."""
        return (self.get(name).card for name in self._makers)


def bundled() -> Registry:
    """The segmenters that need nothing beyond this package."""
    registry = Registry()
    registry.add("geodesic", Geodesic)
    registry.add("ellipsoid", Ellipsoid)
    return registry
