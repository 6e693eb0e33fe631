"""What a MONAI bundle says of its model: a recipe of networks and transforms, which may hold no program.

The configuration of a bundle (https://monai.readthedocs.io/en/stable/config_syntax.html) can run any Python, by ``$``
expressions, by classes of its own, and by references to other files. So, before MONAI builds anything of it, everything
that is needed to segment is looked through: classes must be MONAI's own transforms, inferers and networks, expressions
may compute with constants and references only. Whoever trusts a bundle may lift that.
"""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from aiassist.errors import MissingExtraError, ModelError

#: What is needed of a configuration, and the names that it has there.
PARTS = {
    "network": ("network_def", "network"),
    "preprocessing": ("preprocessing", "pre_processing", "pre_transforms", "transforms"),
    "inferer": ("inferer",),
    "postprocessing": ("postprocessing", "post_processing", "post_transforms"),
}
#: Files of a bundle that hold it, the first that is there.
FILES = ("inference.json", "inference.yaml", "inference.yml")
#: Where the weights lie that are loaded, when nothing is said of that.
WEIGHTS = "$@bundle_root + '/models/model.pt'"
#: Where the classes lie that may be built.
MODULES = ("monai.networks.nets", "monai.transforms", "monai.inferers")
#: Classes there that call what they are given, or other libraries.
_REFUSED = re.compile(r"Lambda|Callable|TorchVision|TorchIO|CuCIM|SimulateDelay|DataStats")
#: Arguments by which networks fetch weights from elsewhere.
_FETCHES = re.compile(r"url|pretrained", re.IGNORECASE)
#: Transforms that read and write files: the image comes from us, and the answer goes back to us.
_INPUT, _OUTPUT = re.compile(r"(.*\.)?LoadImage(d|D|Dict)?"), re.compile(r"(.*\.)?SaveImage(d|D|Dict)?")
_REFERENCE = re.compile(r"@(\w+(?:[#:]+\w+)*)")
#: What an expression may name, and call, and consist of besides.
_CONSTANTS = re.compile(
    r"(torch|numpy|np)\.(u?int|float|bfloat|bool|half|double|long|short)\d*|monai\.utils\.CommonKeys\.\w+"
)
_FUNCTIONS = {"len", "int", "float", "bool", "str", "list", "tuple", "min", "max", "sum", "abs", "round"}
_NODES = (
    *(ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.Load, ast.Subscript, ast.Slice, ast.IfExp),
    *(ast.unaryop, ast.UnaryOp, ast.boolop, ast.BoolOp, ast.cmpop, ast.Compare),
    *(ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod),
)


@dataclass(frozen=True)
class Recipe:
    """What is needed to segment, as it stands in a bundle's configuration.

    ``parts`` are "network", "preprocessing", "inferer", "postprocessing" (without what reads and writes files) and
    "weights"; ``rest`` is what they refer to, by name.
    """

    parts: dict[str, Any]
    rest: dict[str, Any]

    def config(self, device: str = "cpu", is_trusted: bool = False) -> dict[str, Any]:
        """The configuration for MONAI's ``ConfigParser``, with the classes' full names, for a device of torch.

        Raises
        ------
        ModelError
            When it holds a program, or builds what is not MONAI's, and is not trusted to.
        """
        config = {**_on_device({**self.rest, **self.parts}), "device": device}
        return config if is_trusted else {name: _safe(value, name) for name, value in config.items()}


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
        kept = [one for one in _transforms(parts[part], config) if not other.fullmatch(_class_of(one))]
        parts[part] = {"_target_": "Compose", "transforms": kept}
    parts["weights"] = _find(config, re.compile(r"(.*\.)?CheckpointLoader")).get("load_path", WEIGHTS)
    rest = _referred(parts, {**config, "bundle_root": str(bundle)})
    same = {name: f"@{part}" for part, name in names.items() if name in rest and name != part}
    return Recipe(parts, {name: value for name, value in {**rest, **same}.items() if name not in parts})


def read_config(path: Path) -> dict[str, Any]:
    """What a file of JSON or YAML says; `ModelError` unless it is an object of names and values."""
    try:
        text = path.read_text(encoding="utf8")
        config = json.loads(text) if path.suffix == ".json" else _read_yaml(text)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}.") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path} holds no configuration, as those of bundles and MMARs do.")
    return config


def _read_yaml(text: str) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise MissingExtraError("PyYAML", "bundles", "This bundle") from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(error) from error


def _class_of(value: Any) -> str:
    return str(value.get("_target_", "")) if isinstance(value, dict) else ""


def _transforms(value: Any, config: dict) -> list:
    """The transforms of a composition, whether it is one, a list, or refers to one."""
    for _ in range(len(config)):
        match = _REFERENCE.fullmatch(value.removeprefix("$").strip()) if isinstance(value, str) else None
        if match is not None:
            value = config.get(match[1])
        elif isinstance(value, dict):
            value = value.get("transforms")
    return list(value) if isinstance(value, list) else []


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


def _references(value: Any) -> list[str]:
    if isinstance(value, str):
        return _REFERENCE.findall(value)
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [name for one in inner for name in _references(one)]


def _on_device(value: Any) -> Any:
    """The value, with everything that says on which device it is to run replaced by ours."""
    if isinstance(value, dict):
        return {key: "@device" if key == "device" else _on_device(inner) for key, inner in value.items()}
    return [_on_device(inner) for inner in value] if isinstance(value, list) else value


def _safe(value: Any, place: str) -> Any:
    """The value with full names of classes; `ModelError` when it holds more than a recipe may."""
    if isinstance(value, dict):
        odd = [key for key in value if str(key).startswith("_") and key not in ("_target_", "_disabled_", "_desc_")]
        if odd:
            raise _refused(place, odd[0], "is more than a recipe needs")
        fetched = [key for key, inner in value.items() if _FETCHES.search(str(key)) and inner not in (None, False)]
        if fetched:
            raise _refused(place, fetched[0], "has a class fetch what is not in the bundle")
        safe = {key: _safe(inner, f"{place}#{key}") for key, inner in value.items()}
        return {**safe, "_target_": _full_name(value["_target_"], place)} if "_target_" in value else safe
    if isinstance(value, list):
        return [_safe(inner, f"{place}#{number}") for number, inner in enumerate(value)]
    if isinstance(value, str) and value.startswith("%"):
        raise _refused(place, value, "takes in another file")
    if isinstance(value, str) and value.startswith("$"):
        _check_expression(value, place)
    return value


def _full_name(target: Any, place: str) -> str:
    """The full name of a class of MONAI that may be built."""
    package, _, name = str(target).rpartition(".")
    for module in MODULES:
        if package and package != module and not package.startswith(f"{module}."):
            continue
        try:
            found = getattr(import_module(module), name, None)
        except ImportError as error:
            raise MissingExtraError(error.name or "monai", "bundles", "This model") from error
        if isinstance(found, type) and not _REFUSED.search(name) and ".io." not in found.__module__:
            return f"{module}.{name}"
    raise _refused(place, target, f"is none of the classes of {', '.join(MODULES)} that are built here")


def _check_expression(text: str, place: str) -> None:
    """Refuse what is more than arithmetic with constants and references."""
    try:
        tree = ast.parse(_REFERENCE.sub("reference", text[1:].strip()), mode="eval")
    except SyntaxError:
        raise _refused(place, text, "is no expression") from None
    waiting: list[ast.AST] = [tree.body]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS:
            waiting += [*node.args, *(keyword.value for keyword in node.keywords)]
        elif isinstance(node, ast.Attribute) and _CONSTANTS.fullmatch(ast.unparse(node)):
            continue
        elif isinstance(node, _NODES):
            waiting += ast.iter_child_nodes(node)
        elif not (isinstance(node, ast.Name) and node.id == "reference"):
            raise _refused(place, text, "is a program")


def _refused(place: str, what: Any, why: str) -> ModelError:
    return ModelError(
        f"The bundle's {place} holds {str(what)[:80]!r}, which {why}; whoever trusts its makers can import it with "
        "--trust."
    )
