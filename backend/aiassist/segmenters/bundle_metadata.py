"""What a MONAI bundle says of itself, as a model card; see
https://monai.readthedocs.io/en/stable/mb_specification.html#metadata-json-file.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from aiassist.errors import ModelError
from aiassist.imaging import Label, describe_structure
from aiassist.segmenters.base import ModelCard
from aiassist.segmenters.recipe import read_config, read_recipe

#: Of a bundle's folder, where it lies.
METADATA = Path("configs", "metadata.json")
#: DICOM modalities, by the names that bundles have for them.
MODALITIES = {"ct": "CT", "mr": "MR", "mri": "MR", "pet": "PT", "pt": "PT", "us": "US", "x-ray": "DX"}
#: Numbers of its metrics are smaller.
LARGEST = 1e12
#: Names of the background, and what may stand behind: "rest of the liver" and "background parenchyma" are structures.
_BACKGROUND = re.compile(
    r"(the |image )?(back[\s_-]*ground|bg|none|nothing|unlabell?ed|everything else|rest( of the (image|scan|volume))?)"
    r"([\s_]*(class|label|voxels?))?(\s*[(\[,;:/].*|\s+-.*)?",
    re.IGNORECASE,
)
#: What a licence says that is more than, or not, the Apache License.
_MORE = re.compile(r"non-?\s?commercial|creative commons|weights", re.IGNORECASE)


def card_of_bundle(name: str, number: int, bundle: Path) -> ModelCard:
    """The card of a bundle's folder as a version of a model.

    Raises
    ------
    ModelError
        When its metadata cannot be read, or names no structure.
    """
    metadata = read_config(bundle / METADATA)
    image = next(iter(_part(_format(metadata), "inputs").values()), {})
    modality = MODALITIES.get(str(_object(image).get("modality", "")).lower())
    metrics = _part(metadata, "eval_metrics")
    said = [f"MONAI bundle {metadata.get('name', bundle.name)} {metadata.get('version', '')}".strip()]
    said += [str(metadata[key]) for key in ("authors", "copyright", "data_source", "intended_use") if metadata.get(key)]
    return ModelCard(
        name=name,
        version=str(number),
        kind="automatic",
        description=str(metadata.get("description") or metadata.get("task") or "A MONAI bundle."),
        licence=_licence(bundle),
        modalities=(modality,) if modality is not None else (),
        labels=_labels(metadata, read_recipe(bundle).has_one_channel_a_voxel()),
        metrics={str(k): float(v) for k, v in metrics.items() if isinstance(v, int | float) and abs(v) < LARGEST},
        provenance=". ".join(said),
        devices=("cpu", "cuda"),
    )


def name_of_bundle(bundle: Path) -> str:
    """What a bundle calls itself."""
    return str(read_config(bundle / METADATA).get("name") or bundle.name)


def channels_of(metadata: dict[str, Any]) -> dict[int, str]:
    """What each channel of a bundle's answer stands for, by its metadata."""
    answer = _object(next(iter(_part(_format(metadata), "outputs").values()), {}))
    named = _object(answer.get("channel_def") or answer.get("label_def") or {})
    return {int(channel): str(text) for channel, text in sorted(named.items()) if str(channel).isdecimal()}


def is_background(name: str) -> bool:
    """Whether what is called so is no structure."""
    return _BACKGROUND.fullmatch(name.strip()) is not None


def first_value(channels: dict[int, str], labels: tuple[Label, ...]) -> int:
    """The value in labelmaps of what channel 0 stands for, see `channels_of`: 1 when a card has a label for it.

    When it is the background, the card has none, and the value is 0.
    """
    return int(0 in channels and len(labels) == len(channels))


def _labels(metadata: dict[str, Any], is_one_a_voxel: bool) -> tuple[Label, ...]:
    """What the bundle finds: its channels, but for the background.

    Where each voxel gets one of several channels, the first has all that is none of the others, whatever it is called.
    """
    channels = channels_of(metadata)
    first = int(0 in channels and not is_background(channels[0]) and not (is_one_a_voxel and len(channels) > 1))
    labels = [(first + channel, text) for channel, text in sorted(channels.items()) if first + channel > 0]
    if not labels:
        raise ModelError(f"The bundle's {METADATA} names no structure in its channel_def.")
    if first + max(channels) > 0xFFFF:
        raise ModelError(f"The bundle's {METADATA} names the channel {max(channels)}; labels go up to 65535.")
    return tuple(describe_structure(text, value) for value, text in labels)


def _format(metadata: dict[str, Any]) -> dict[str, Any]:
    return _part(metadata, "network_data_format")


def _part(data: dict[str, Any], key: str) -> dict[str, Any]:
    return _object(data.get(key) or {}, key)


def _object(value: Any, key: str = "network_data_format") -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ModelError(
            f"The bundle's {METADATA} holds {str(value)[:60]!r} in its {key}, where names and values belong."
        )
    return value


def _licence(bundle: Path) -> str:
    """Apache-2.0 when its licence is that and nothing more, else what tells people to read it."""
    files = [bundle / name for name in ("LICENSE", "LICENSE.txt") if (bundle / name).is_file()]
    text = files[0].read_text(encoding="utf8", errors="replace") if files else ""
    is_apache = re.match(r"\s*Apache License\s+Version 2\.0", text) and not _MORE.search(text)
    return "Apache-2.0" if is_apache else "LicenseRef-bundle"
