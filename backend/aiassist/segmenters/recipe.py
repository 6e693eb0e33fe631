"""What a MONAI bundle says of its model: a recipe of networks and transforms.

See https://monai.readthedocs.io/en/stable/config_syntax.html for the configuration of a bundle. Of it, what is needed
to segment is taken, and looked through before MONAI builds anything (`aiassist.segmenters.harmless`).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiassist.errors import MissingExtraError, ModelError
from aiassist.segmenters.harmless import REFERENCE, harmless

#: What is needed of a configuration, and the names that it has there.
PARTS = {
    "network": ("network_def", "network"),
    "preprocessing": ("preprocessing", "pre_processing", "pre_transforms", "transforms"),
    "inferer": ("inferer",),
    "postprocessing": ("postprocessing", "post_processing", "post_transforms"),
}
#: Files of a bundle that hold it, the first that is there.
FILES = ("inference.json", "inference.yaml", "inference.yml")
#: Most levels of lists and objects in each other.
DEEPEST = 50
#: Where the weights lie that are loaded, when nothing is said of that.
WEIGHTS = "$@bundle_root + '/models/model.pt'"
#: Transforms that read and write files: the image comes from us, and the answer goes back to us.
_INPUT, _OUTPUT = re.compile(r"(.*\.)?LoadImage(d|D|Dict)?"), re.compile(r"(.*\.)?SaveImage(d|D|Dict)?")
#: Arguments that MONAI's classes want no more.
_GONE = {"SwinUNETR": ("img_size",)}
_COMPOSE = re.compile(r"(.*\.)?Compose")
#: What in an expression gives each voxel to one channel.
_EXCLUSIVE = re.compile(r"softmax|argmax", re.IGNORECASE)


@dataclass(frozen=True)
class Recipe:
    """What is needed to segment, as it stands in a bundle's configuration.

    ``parts`` are "network", "preprocessing", "inferer", "postprocessing" (without what reads and writes files) and
    "weights"; ``rest`` is what they refer to, by name. ``imports`` are the modules that its expressions want, for
    one that is trusted.
    """

    parts: dict[str, Any]
    rest: dict[str, Any]
    imports: Any = None

    def config(self, device: str = "cpu", is_trusted: bool = False) -> dict[str, Any]:
        """The configuration for MONAI's ``ConfigParser``, with the classes' full names, for a device of torch.

        Raises
        ------
        ModelError
            When it holds a program, or builds what is not MONAI's, and is not trusted to.
        """
        config = {**_on_device({**self.rest, **self.parts}), "device": device}
        if is_trusted:
            return {**config, "imports": self.imports or []}
        if "bundle_root" in config:  # MONAI changes some characters of a path
            config["bundle_root"] = "."
        return {name: harmless(value, name) for name, value in config.items()}

    def has_one_channel_a_voxel(self) -> bool:
        """Whether the postprocessing gives each voxel to one channel, by softmax or argmax, as far as it says so."""
        return _is_exclusive(self.parts["postprocessing"], self.rest)


def read_recipe(bundle: Path) -> Recipe:
    """The recipe of a bundle's folder.

    Raises
    ------
    ModelError
        When there is none, or it does not say how to segment one image.
    """
    path = next((path for name in FILES if (path := bundle / "configs" / name).is_file()), None)
    if path is None:
        raise ModelError(f"{bundle} is no MONAI bundle: it has no configs/{FILES[0]}.")
    config = read_config(path)
    names = {part: next((name for name in known if name in config), None) for part, known in PARTS.items()}
    for part, name in names.items():
        if name is None and part != "postprocessing":
            raise ModelError(f"{path} has no {PARTS[part][0]}, so it cannot be run as a model here.")
    parts = {part: config.get(name) for part, name in names.items()}
    for part, other in (("preprocessing", _INPUT), ("postprocessing", _OUTPUT)):
        kept = [_without_files(one, other) for one in _transforms(parts[part], config)]
        parts[part] = {"_target_": "Compose", "transforms": [one for one in kept if one]}
    parts["weights"] = _find(config, re.compile(r"(.*\.)?CheckpointLoader")).get("load_path", WEIGHTS)
    rest = _referred(parts, {**config, "bundle_root": str(bundle.resolve())})
    same = {name: f"@{part}" for part, name in names.items() if name in rest and name != part}
    rest = {name: value for name, value in {**rest, **same}.items() if name not in parts}
    return Recipe(parts, rest, config.get("imports"))


def read_config(path: Path) -> dict[str, Any]:
    """What a file of JSON or YAML says; `ModelError` unless it is an object of names and values."""
    try:
        text = path.read_text(encoding="utf8")
        config = json.loads(text) if path.suffix == ".json" else _read_yaml(text)
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read: {error}.") from error
    if not isinstance(config, dict) or not _is_shallow(config):
        raise ModelError(f"{path} holds no configuration, as those of bundles and MMARs do.")
    return config


def _is_shallow(value: Any) -> bool:
    """Whether a value can be looked through by functions that call themselves."""
    level = [value]
    for _ in range(DEEPEST):
        inner = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        level = [one for part in inner for one in part]
    return not level


def _read_yaml(text: str) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise MissingExtraError("PyYAML", "bundles", "This bundle") from error
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            raise ValueError("it repeats parts by YAML's aliases, which could make it endless; write them out")
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(error) from error


def _class_of(value: Any) -> str:
    return str(value.get("_target_", "")) if isinstance(value, dict) else ""


def _transforms(value: Any, config: dict, left: int = DEEPEST) -> list:
    """The transforms of a composition and of those in it, whether it is one, a list, or refers to one."""
    for _ in range(len(config)):
        match = REFERENCE.fullmatch(value.removeprefix("$").strip()) if isinstance(value, str) else None
        if match is None:
            break
        value = config.get(match[1])
    if isinstance(value, dict) and left > 0:
        if value.get("_disabled_") in (True, "true", "True"):
            return []
        if not _COMPOSE.fullmatch(_class_of(value)):
            return [value]
        return _transforms(value.get("transforms"), config, left - 1)
    if left > 0 and (value is None or isinstance(value, list)):
        each = [_transforms(one, config, left - 1) if _is_plain(one) else [one] for one in value or ()]
        return [one for part in each for one in part]
    raise ModelError(f"The bundle makes its transforms by {str(value)[:80]!r}; write them out as a list to import it.")


def _is_plain(transform: Any) -> bool:
    """Whether it does nothing but what its own transforms do."""
    return isinstance(transform, dict) and transform.keys() <= {"_target_", "transforms", "_disabled_"}


def _without_files(transform: Any, other: re.Pattern) -> Any:
    """A transform; of one that reads or writes files, what it does to the image besides, or None."""
    if not other.fullmatch(_class_of(transform)):
        return transform
    if transform.get("ensure_channel_first"):
        return {"_target_": "EnsureChannelFirstd", "keys": transform.get("keys", "image")}
    return None


def _find(value: Any, wanted: re.Pattern) -> dict:
    """The first component of a class, however deep it lies; empty when there is none."""
    if isinstance(value, dict) and wanted.fullmatch(_class_of(value)):
        return value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((found for one in inner if (found := _find(one, wanted))), {})


def _referred(value: Any, config: dict) -> dict[str, Any]:
    """What a value refers to, and what that refers to, by name."""
    found: dict[str, Any] = {}
    waiting = [value]
    while waiting:
        for name in {re.split("[#:]", name)[0] for name in _references(waiting.pop())} & config.keys() - found.keys():
            found[name] = config[name]
            waiting.append(config[name])
    return found


def _is_exclusive(value: Any, rest: dict[str, Any]) -> bool:
    """Whether a softmax or argmax is among the transforms, of one of their keys at least."""
    if isinstance(value, str):
        return value.startswith("$") and _EXCLUSIVE.search(value) is not None
    if isinstance(value, list):
        return any(_is_exclusive(one, rest) for one in value)
    if not isinstance(value, dict):
        return False
    flags = [rest.get(flag[1:]) if isinstance(flag, str) else flag for flag in map(value.get, ("softmax", "argmax"))]
    is_on = any(True in flag if isinstance(flag, list) else flag is True for flag in flags)
    return is_on or any(_is_exclusive(inner, rest) for inner in value.values())


def _references(value: Any) -> list[str]:
    if isinstance(value, str):
        return REFERENCE.findall(value)
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [name for one in inner for name in _references(one)]


def _on_device(value: Any) -> Any:
    """The value, with everything that says on which device it is to run replaced by ours, for the MONAI of today."""
    if isinstance(value, dict):
        gone = _GONE.get(_class_of(value).rpartition(".")[2], ())
        wanted = {key: inner for key, inner in value.items() if key not in gone}
        return {key: "@device" if key == "device" else _on_device(inner) for key, inner in wanted.items()}
    return [_on_device(inner) for inner in value] if isinstance(value, list) else value
