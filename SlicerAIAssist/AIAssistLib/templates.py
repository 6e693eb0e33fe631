"""The list of structures to annotate, and how to look at them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from aiassist.errors import AIAssistError
from aiassist.imaging import Label, describe_structure
from AIAssistLib.tags import name_key


@dataclass(frozen=True)
class Structure:
    """One structure of a template; ``window`` is the grey values shown as black and white, or None."""

    label: Label
    window: tuple[float, float] | None = None


@dataclass(frozen=True)
class Template:
    """Structures in the order in which they are annotated."""

    name: str
    structures: tuple[Structure, ...]

    def after(self, names: list[str]) -> Structure | None:
        """The first structure that is not among `names`; None when all are."""
        known = {name_key(name) for name in names}
        return next((s for s in self.structures if name_key(s.label.name) not in known), None)


def read_template(path: Path) -> Template:
    """Read ``{"name": ..., "structures": [{"name": ..., "window": [low, high]}, ...]}``.

    Colours and codes follow from the names. `AIAssistError` when the file is something else.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf8"))
        structures = tuple(_structure(entry, data.get("window")) for entry in data["structures"])
        return Template(str(data["name"]), structures)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise AIAssistError(
            f"{path} is no list of structures ({_why(error)}); write it as "
            '{"name": "Abdomen", "structures": [{"name": "liver"}]}.'
        ) from error


def _why(error: Exception) -> str:
    """What is wrong with a file, in a few words."""
    if isinstance(error, json.JSONDecodeError):
        return f"line {error.lineno}, column {error.colno}: {error.msg}"
    if isinstance(error, UnicodeDecodeError):
        return "it is not in UTF-8"
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return getattr(error, "strerror", None) or "its parts are of another kind"


def _structure(entry, window) -> Structure:
    entry = {"name": entry} if isinstance(entry, str) else entry
    window = entry.get("window", window)
    if window is not None:
        low, high = window
        window = float(low), float(high)
    return Structure(describe_structure(entry["name"]), window)


def read_templates(folder: Path) -> tuple[list[Template], list[str]]:
    """All templates of a folder, by name, and a sentence on each file that is none."""
    found, refused = [], []
    for path in sorted(Path(folder).glob("*.json")):
        try:
            found.append(read_template(path))
        except AIAssistError as error:
            refused.append(str(error))
    return sorted(found, key=lambda t: t.name), refused
