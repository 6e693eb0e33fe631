"""Whether a MONAI bundle's configuration can be built without running a program that it holds.

A configuration (https://monai.readthedocs.io/en/stable/config_syntax.html) can run any Python: by ``$`` expressions, by
classes of its own, and by references to other files. What passes here builds MONAI's own transforms, inferers and
networks only, and computes with constants and references only.
"""

from __future__ import annotations

import ast
import re
from importlib import import_module
from typing import Any

from aiassist.errors import MissingExtraError, ModelError

#: A reference to another part of the configuration; its name and what is wanted of it.
REFERENCE = re.compile(r"@(\w+(?:(?:#|::)\w+)*)")
#: Networks that segment, whatever the case of their letters. Others fetch weights, or load files.
_NETWORKS = re.compile(
    r"(basic)?unet|basicunetplusplus|dynunet|vnet|segresnet(vae|ds2?)?|unetr|swinunetr|attentionunet|highresnet|ahnet|"
    r"flex(ible)?unet|dints|topologyinstance|daf3d|mednext(small|base|medium|large)?",
    re.IGNORECASE,
)
_INFERERS = {"SimpleInferer", "SlidingWindowInferer", "SlidingWindowInfererAdapt", "SliceInferer"}
#: Transforms that compute from the image and the answer, as arrays and, with an ending, as dictionaries. Others call
#: what they are given, or other libraries, or write files (SaveClassification), or are for training only.
_TRANSFORMS = re.compile(
    r"(Compose|Identity|EnsureType|EnsureChannelFirst|AsChannelFirst|AsChannelLast|AddChannel|CastToType|ToTensor|ToNumpy|"
    r"ToDevice|(From|To)MetaTensor|Transpose|SqueezeDim|SplitDim|RepeatChannel|RemoveRepeatedChannel|Decollate|"
    r"(Concat|Copy|Delete|Select)Items|FlattenSubKeys|MapLabelValue|LabelToMask|AddCoordinateChannels|"
    r"ConvertToMultiChannelBasedOnBratsClasses|"
    r"BorderPad|DivisiblePad|SpatialPad|(Center)?SpatialCrop|CenterScaleCrop|CropForeground|ResizeWithPadOrCrop|"
    r"AdjustContrast|ClipIntensityPercentiles|ForegroundMask|MaskIntensity|Gaussian(Sharpen|Smooth)|MedianSmooth|"
    r"SavitzkyGolaySmooth|HistogramNormalize|NormalizeIntensity|ScaleIntensity(FixedMean|Range|RangePercentiles)?|"
    r"(Std)?ShiftIntensity|ThresholdIntensity|"
    r"Affine|Flip|Orientation|ResampleToMatch|Resize|Rotate(90)?|Spacing|SpatialResample|Zoom|"
    r"Activations|AsDiscrete|DistanceTransformEDT|FillHoles|Invert|KeepLargestConnectedComponent|LabelFilter|"
    r"LabelToContour|(Mean|Vote)Ensemble|RemoveSmallObjects)(d|D|Dict)?"
)
#: Where the classes lie that may be built, and which of them may.
_MODULES = {
    "monai.networks.nets": lambda name: bool(_NETWORKS.fullmatch(name)),
    "monai.transforms": lambda name: bool(_TRANSFORMS.fullmatch(name)),
    "monai.inferers": lambda name: name in _INFERERS,
}
#: Arguments by which networks fetch weights from elsewhere.
_FETCHES = re.compile(r"url|pretrained", re.IGNORECASE)
#: All that an expression is made of. MONAI puts other text in the place of a reference, also within strings, and of
#: every ``#``: so strings are simple ones here, and ``@`` and ``#`` stand in references only.
_EXPRESSION = re.compile(r"""\$(@\w++((#|::)\w++)*+|'[\w ./-]*'|"[\w ./-]*"|[\w \[\](){}+*/%<>=!,:.-])*""", re.ASCII)
#: Most characters of one.
_LONGEST = 500
#: What it may name, of which nothing does any harm when it is called, as MONAI's layers call what they are given; and
#: what it may call, and consist of besides.
_CONSTANTS = re.compile(
    r"torch\.(u?int8|int16|int32|int64|b?float16|float32|float64|float|double|half|int|long|short|bool)|"
    r"(numpy|np)\.(u?int(8|16|32|64)|float(16|32|64))|monai\.utils\.CommonKeys\.(IMAGE|LABEL|PRED|LOSS|METADATA)"
)
_FUNCTIONS = {"len", "int", "float", "bool", "str", "list", "tuple", "min", "max", "sum", "abs", "round"}
_NODES = (
    *(ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.Load, ast.Subscript, ast.Slice, ast.IfExp),
    *(ast.unaryop, ast.UnaryOp, ast.boolop, ast.BoolOp, ast.cmpop, ast.Compare),
    *(ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod),
)


def harmless(value: Any, place: str) -> Any:
    """The value with full names of classes.

    Raises
    ------
    ModelError
        When it holds a program, or builds what is not MONAI's; `place` says where it stands.
    """
    if isinstance(value, dict):
        odd = [key for key in value if str(key).startswith("_") and key not in ("_target_", "_disabled_", "_desc_")]
        if odd:
            raise _refused(place, odd[0], "is more than a recipe needs")
        fetched = [key for key, inner in value.items() if _FETCHES.search(str(key)) and inner not in (None, False)]
        if fetched:
            raise _refused(place, fetched[0], "has a class fetch what is not in the bundle")
        safe = {key: harmless(inner, f"{place}#{key}") for key, inner in value.items()}
        return {**safe, "_target_": _full_name(value["_target_"], place)} if "_target_" in value else safe
    if isinstance(value, list):
        return [harmless(inner, f"{place}#{number}") for number, inner in enumerate(value)]
    if isinstance(value, str) and value.startswith("%"):
        raise _refused(place, value, "takes in another file")
    if isinstance(value, str) and value.startswith("$"):
        _check_expression(value, place)
    return value


def _full_name(target: Any, place: str) -> str:
    """The full name of a class of MONAI that may be built."""
    package, _, name = str(target).rpartition(".")
    for module, may_be_built in _MODULES.items():
        if package and package != module and not package.startswith(f"{module}."):
            continue
        try:
            found = getattr(import_module(module), name, None)
        except ImportError as error:
            raise MissingExtraError(error.name or "monai", "bundles", "This model") from error
        if isinstance(found, type) and may_be_built(name):
            return f"{module}.{name}"
    raise _refused(place, target, f"is none of the classes of {', '.join(_MODULES)} that are built here")


def _check_expression(text: str, place: str) -> None:
    """Refuse what is more than arithmetic with constants and references."""
    if len(text) > _LONGEST or not _EXPRESSION.fullmatch(text):
        raise _refused(place, text, "is more than arithmetic")
    try:
        tree = ast.parse(REFERENCE.sub("reference", text[1:].strip()), mode="eval")
    except (SyntaxError, RecursionError):
        raise _refused(place, text, "is no expression") from None
    waiting: list[ast.AST] = [tree.body]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Call) and ast.unparse(node.func) in _FUNCTIONS and not node.keywords:
            waiting += node.args
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
