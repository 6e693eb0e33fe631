"""``aiassist truth``"""

from __future__ import annotations

import json
import re
from pathlib import Path

from aiassist.commands.shared import add_author, check_output, check_studies
from aiassist.errors import AIAssistError, ModelError, StoreError
from aiassist.words import some_of

#: The most seconds or edits that are taken, as by the server.
MOST = 10**9
#: What 3D Slicer calls segments that nobody named.
_UNNAMED = re.compile(r"Segment_?\d*")


def add_to(commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("truth", help="keep versioned ground truth in a studies folder")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    listing = _action(actions, "list", "studies and the newest label of each structure", list_labels)
    listing.add_argument("--json", action="store_true", help="print JSON")
    _offer_adding(actions)

    history = _action(actions, "history", "all label versions of a study", show_history)
    history.add_argument("study", help="name or id")
    history.add_argument("structure", nargs="?", help="only this one")
    history.add_argument("--json", action="store_true", help="print JSON")

    review = _action(actions, "review", "approve or reject the newest version of a label", review_label)
    review.add_argument("study", help="name or id")
    review.add_argument("structure", help="its name")
    review.add_argument("state", choices=("approved", "rejected"))
    review.add_argument("--version", type=int, metavar="N", help="the one that was looked at; refused if it is older")
    review.add_argument("--comment", default="", help="what the author should know")
    add_author(review, "who reviews")

    restore = _action(actions, "restore", "make an old version the newest again", restore_label)
    restore.add_argument("study", help="name or id")
    restore.add_argument("structure", help="its name")
    restore.add_argument("version", type=int, metavar="N", help="which version")
    add_author(restore)
    _offer_export(actions)

    remove = _action(actions, "remove", "remove a study for good, as the law may ask for", remove_study)
    remove.add_argument("study", help="name or id")
    remove.add_argument("--for-good", action="store_true", help="do it; without, only what would go is printed")


def _offer_adding(actions) -> None:
    add = _action(
        actions, "add", "save labels of an image as new versions, or keep an image to be labelled", add_labels
    )
    add.add_argument("image", help="an image file, or a folder with one DICOM series")
    add.add_argument("label", nargs="?", help="a labelmap on the same grid; without one, the image waits for labels")
    add.add_argument("--study-name", help="name of the study (default: the image's name)")
    add.add_argument("--name", metavar="STRUCTURE", help="structure, when the labelmap holds one")
    what = "structures by value: 1=liver 2=spleen (default: those that a .seg.nrrd names)"
    add.add_argument("--names", metavar="N=STRUCTURE", nargs="+", default=[], help=what)
    add.add_argument("--comment", default="", help="what others should know")
    states = ("draft", "submitted", "approved", "rejected")
    add.add_argument("--state", choices=states, default="draft", help="state of review (default: draft)")
    add.add_argument("--model", help="model that the labels came from")
    add.add_argument("--model-version", help="its version")
    add.add_argument("--seconds", type=float, help="time that the person spent")
    add.add_argument("--edits", type=int, help="edits that the person made")
    add_author(add)


def _offer_export(actions) -> None:
    export = _action(actions, "export", "write labels of a study to a file", export_labels)
    export.add_argument("study", help="name or id")
    endings = ".nii.gz, .nrrd, .seg.nrrd, .mha, or .dcm (DICOM SEG)"
    export.add_argument("-o", "--output", required=True, type=Path, help=endings)
    export.add_argument("--structure", action="append", help="only this structure; may be repeated")
    what = "only these structures, by their values in a labelmap (default: 1, 2, ... in alphabetical order)"
    export.add_argument("--names", metavar="N=STRUCTURE", nargs="+", default=[], help=what)
    which = "this version, of a single structure (default: newest)"
    export.add_argument("--version", type=int, metavar="N", help=which)


def _action(actions, name: str, text: str, run):
    parser = actions.add_parser(name, help=text)
    parser.add_argument("--studies", metavar="DIR", type=Path, required=True, help="the studies folder")
    parser.set_defaults(run=run)
    return parser


def _open(options, make: bool = False):
    from aiassist.groundtruth import GroundTruthStore

    if not make:
        check_studies(options.studies)
    return GroundTruthStore(options.studies)


def _as_json(version) -> dict:
    row = {name: getattr(version, name) for name in version.__dataclass_fields__}
    return row | {"made": version.made.isoformat(), "state": version.state.value, "path": str(version.path)}


def _line(version) -> str:
    source = f", from {version.model} {version.model_version or ''}".rstrip() if version.model else ""
    comment = f": {version.comment}" if version.comment else ""
    made = version.made.strftime("%Y-%m-%d %H:%M")
    return (
        f"{version.structure} v{version.number} {version.state.value}, {version.voxels:,} voxels, "
        f"{made} UTC by {version.author}{source}{comment}"
    )


def list_labels(options) -> None:
    """Print the studies and their newest labels."""
    with _open(options) as store:
        studies = [(study, store.latest(study.id)) for study in store.studies()]
    if options.json:
        print(
            json.dumps(
                [
                    {"study": s.id, "name": s.name, "labels": [_as_json(v) for v in labels.values()]}
                    for s, labels in studies
                ]
            )
        )
        return
    for study, labels in studies:
        print(f"{study.name} ({study.id[:8]})")
        for version in labels.values():
            print(f"  {_line(version)}")


def add_labels(options) -> None:
    """Save each structure of a labelmap as a new version."""
    import numpy as np

    from aiassist.groundtruth import State
    from aiassist.imaging import MaskPatch, read_labelmap, read_volume

    _check_said(options)
    volume = read_volume(options.image)
    if options.label is None:
        _keep(options, volume)
        return
    labelmap = read_labelmap(options.label, like=volume).voxels
    names = _names(options, labelmap)
    with _open(options, make=True) as store:
        study = _study(store, options, volume)
        for value, name in names.items():
            version = store.add(
                study.id,
                name,
                MaskPatch.of_mask(labelmap == value),
                author=options.author,
                model=options.model,
                model_version=options.model_version,
                seconds=options.seconds,
                edits=options.edits,
                comment=options.comment,
                state=State(options.state),
            )
            print(f"{study.name}: {_line(version)}")
    left = sorted({int(value) for value in np.unique(labelmap)} - names.keys() - {0})
    if left:
        print(f"Not saved, since nothing names them: the values {some_of([str(value) for value in left])}.")


def _check_said(options) -> None:
    """Refuse what cannot be kept, before anything is."""
    from aiassist.groundtruth.names import check_said, check_text

    check_text({"study name": options.study_name or _stem(Path(options.image))})
    check_said(options.author, comment=options.comment, model=options.model, model_version=options.model_version)
    for name in ("seconds", "edits"):
        value = getattr(options, name)
        if value is not None and not 0 <= value <= MOST:
            raise AIAssistError(f"--{name} is {value}; use 0 to {MOST:,}.")


def _study(store, options, volume):
    """The study of an image, made when it is new; refuses another name of it, and headers of another series."""
    name = options.study_name or _stem(Path(options.image))
    known = store.study(volume.study_id).name if store.has(volume.study_id) else name
    if options.study_name and name != known:
        raise StoreError(f"This image is kept as the study {known!r} already; leave out --study-name {name!r}.")
    study = store.add_study(volume, name, check=True)
    if volume.dicom is not None:
        store.add_series(study.id, volume.dicom)
    return study


def _keep(options, volume) -> None:
    """Keep an image without labels."""
    if options.name or options.names:
        raise AIAssistError(f"There is no labelmap for {options.name or options.names[0]!r}; name it after the image.")
    usual = {"comment": "", "state": "draft", "model": None, "model_version": None, "seconds": None, "edits": None}
    for name, value in usual.items():
        if getattr(options, name) != value:
            raise AIAssistError(f"--{name.replace('_', '-')} says something of labels, but none are given.")
    with _open(options, make=True) as store:
        study = _study(store, options, volume)
    print(f"{study.name}: kept ({study.id[:8]})")


def _stem(path: Path) -> str:
    """What an image is called; one in a folder of its own, as ``CASE/image.nii.gz``, as the folder."""
    name = path.name if path.name not in ("", "..") else path.resolve().name
    for ending in (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".dcm", ".png", ".tif", ".tiff", ".jpg", ".jpeg"):
        if name.lower().endswith(ending):
            name = name[: -len(ending)]
            return path.absolute().parent.name or name if name.lower() == "image" else name
    return name


def _names(options, labelmap) -> dict[int, str]:
    """Structure names by value in the labelmap."""
    import numpy as np

    from aiassist.groundtruth.names import key_of
    from aiassist.imaging.segmentation_file import segment_names

    values = [int(v) for v in np.unique(labelmap) if v]
    if not values:
        raise AIAssistError(f"{options.label} is empty: no voxel is labelled.")
    if options.name and options.names:
        raise AIAssistError(f"--name {options.name} and --names {options.names[0]} contradict each other; give one.")
    if options.name:
        key_of(options.name)  # refuses what is no name
        if len(values) > 1:
            raise AIAssistError(
                f"{options.label} holds {len(values)} structures; name them with --names {values[0]}=..."
            )
    held = {value: name for value, name in segment_names(Path(options.label)).items() if value in values}
    names = {values[0]: options.name} if options.name else _by_value(options.names) or held
    values_of: dict[str, int] = {}
    for value, name in names.items():
        if value not in values:
            raise AIAssistError(f"'{value}={name}' names no value of {options.label}; it holds {values}.")
        if key_of(name) != key_of(other := held.get(value, name)) and not _UNNAMED.fullmatch(other):
            raise AIAssistError(f"'{value}={name}' contradicts {options.label}, in which {value} is {other!r}.")
        if (first := values_of.setdefault(key_of(name), value)) != value:
            raise AIAssistError(
                f"{options.label} calls both {first} and {value} {name!r}; give each structure a name of its own there."
            )
    if not names:
        raise AIAssistError(f"Say what {options.label} holds: --name STRUCTURE, or --names {values[0]}=STRUCTURE ...")
    return names


def _by_value(pairs: list[str]) -> dict[int, str]:
    """Structures by value, of texts ``N=STRUCTURE``."""
    from aiassist.groundtruth.names import key_of

    names: dict[int, str] = {}
    for pair in pairs:
        value, _, name = pair.partition("=")
        if not value.isdecimal() or len(value) > 5 or not 1 <= int(value) <= 65535 or not name.strip():
            raise AIAssistError(f"{pair!r} does not name a structure by a value from 1 to 65535; write N=STRUCTURE.")
        if int(value) in names or key_of(name) in map(key_of, names.values()):
            raise AIAssistError(f"{pair!r} names a value or a structure twice; write each N=STRUCTURE once.")
        names[int(value)] = name.strip()
    return names


def show_history(options) -> None:
    """Print all versions of a study's labels."""
    with _open(options) as store:
        study = store.study(options.study).id
        if options.structure is not None:
            store.version(study, options.structure)
        versions = store.history(study, options.structure)
    if options.json:
        print(json.dumps([_as_json(v) for v in versions]))
        return
    for version in versions:
        print(_line(version))


def review_label(options) -> None:
    """Approve or reject."""
    from aiassist.groundtruth import State

    with _open(options) as store:
        study, state = store.study(options.study).id, State(options.state)
        author, comment = options.author, options.comment
        version = store.review(study, options.structure, state, author, comment, options.version)
    print(_line(version))


def restore_label(options) -> None:
    """Restore an old version as a new one."""
    with _open(options) as store:
        version = store.restore(store.study(options.study).id, options.structure, options.version, options.author)
    print(_line(version))


def export_labels(options) -> None:
    """Write labels to a file of the format its name says."""
    from aiassist.groundtruth import State
    from aiassist.groundtruth.export import export
    from aiassist.groundtruth.names import key_of

    check_output(options.output)
    has_values = not options.output.name.lower().endswith(".dcm")
    by_value = _by_value(options.names)
    if by_value and options.structure:
        raise AIAssistError(f"--structure and --names {options.names[0]} contradict each other; give one.")
    if by_value and not has_values:
        raise AIAssistError(f"--names gives values, but {options.output} is a DICOM SEG; use --structure.")
    with _open(options) as store:
        study = store.study(options.study)
        names = [*by_value.values()] or options.structure or list(store.latest(study.id))
        names = list({key_of(name): name for name in names}.values())
        if options.version is not None and len(names) != 1:
            raise StoreError("--version needs a single --structure.")
        versions = [store.version(study.id, name, options.version) for name in names]
        values = [*by_value] or range(1, len(versions) + 1)
        export(store, study, versions, options.output, values)
    remarks = {State.REJECTED: " (rejected)"}
    written = [f"{v.structure} v{v.number}{remarks.get(v.state, '')}" for v in versions]
    if has_values:
        written = [f"{value}={one}" for value, one in zip(values, written, strict=True)]
    print(f"{options.output}: {', '.join(written)}")


def remove_study(options) -> None:
    """Remove a study: its image, DICOM headers, labels and cached upload; or say what would go."""
    from aiassist.learning.splits import Splits, taught_by
    from aiassist.segmenters.model_store import MODELS, ModelStore
    from aiassist.server.spool import UPLOADS, Spool

    with _open(options) as store:
        study = store.study(options.study)
        names = ", ".join(store.latest(study.id)) or "none"
        what = f"{study.name} ({study.id[:8]}): image, DICOM headers, and all versions of its labels ({names})"
        if not options.for_good:
            print(f"This would remove {what}. It cannot be undone; to do it, add --for-good.")
            return
        taught, unsure = taught_by(ModelStore(options.studies / MODELS), study.id)
        known = _forget(Splits(options.studies / MODELS), study.id)
        if (options.studies / UPLOADS).exists():
            Spool(options.studies / UPLOADS, 0).remove(study.id)
        store.remove_study(study.id)
    print(f"Removed {what}. Backups still have it, and a server that runs, until it is started again.")
    for folder in taught:
        print(f"It taught {folder}, which still knows it; remove that folder, too, if it must not.")
    for folder in unsure:
        print(f"What {folder} learned from cannot be read; it may know it: remove that folder, too, if it must not.")
    if known:
        print(known)


def _forget(splits, study: str) -> str | None:
    """Remove a study from the list of who judges; a sentence when that cannot be, which must not keep the study."""
    try:
        splits.forget(study)
    except ModelError as error:
        return f"{error} It names the study and, by a hash, the patient still."
    return None
