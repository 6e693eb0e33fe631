"""``aiassist models``"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiassist.commands.long import Progress, add_for_programs
from aiassist.commands.shared import add_author, add_studies, models_folder
from aiassist.errors import ModelError
from aiassist.lifeline import interrupt_when_stdin_closes
from aiassist.words import some_of


def add_to(commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("models", help="list, show, publish, take back, import and pull models")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="all models, the default first")
    listing.set_defaults(run=list_models)
    info = actions.add_parser("info", help="one model's card")
    info.add_argument("model", metavar="M", help="its name")
    info.add_argument("--version", metavar="N", type=int, help="a version of a trained one (default: the published)")
    info.set_defaults(run=show_model)
    for action in (listing, info):
        add_studies(action)
        action.add_argument("--json", action="store_true", help="print JSON")
    publish = actions.add_parser("publish", help="use a version from now on, a trained one if it is better")
    publish.add_argument("--version", metavar="N", type=int, help="which one (default: the newest)")
    add_for_programs(publish)
    publish.set_defaults(run=publish_version)
    taken = actions.add_parser("import", help="use a MONAI bundle, or an MMAR of NVIDIA Clara, as a model")
    taken.add_argument("path", metavar="PATH", type=Path, help="its folder, or a zip archive of it")
    taken.set_defaults(run=import_model)
    pulled = actions.add_parser("pull", help="fetch a bundle of MONAI's model zoo, and use it as a model")
    pulled.add_argument("bundle", metavar="NAME", help="as the zoo has it, such as spleen_ct_segmentation")
    pulled.add_argument("--version", metavar="V", help="as the zoo has it (default: the newest)")
    pulled.set_defaults(run=pull_model)
    for action in (taken, pulled):
        action.add_argument("--name", metavar="M", help="of the model (default: made of the bundle's)")
        action.add_argument("--trust", action="store_true", help="let it run programs of its own")
        action.add_argument("--studies", metavar="DIR", type=Path, required=True, help="the studies folder")
        add_author(action, "who answers for it")
        add_for_programs(action)
    rollback = actions.add_parser("rollback", help="take back what was published last")
    rollback.set_defaults(run=rollback_version)
    for action in (publish, rollback):
        action.add_argument("model", metavar="M", help="its name")
        action.add_argument("--studies", metavar="DIR", type=Path, required=True, help="the studies folder")
        add_author(action, "who answers for it")


def _store(options):
    """The trained models of ``--studies``; None without it."""
    from aiassist.segmenters.model_store import ModelStore

    folder = models_folder(options)
    return None if folder is None else ModelStore(folder)


def _versions(store, name: str) -> str:
    try:
        published = store.published(name)
    except ModelError as error:
        return f"{', '.join(map(str, store.versions(name)))}; which one is published cannot be said: {error}"
    return ", ".join(f"{n} (published)" if n == published else str(n) for n in store.versions(name))


def list_models(options) -> None:
    """Print a line for each model."""
    from aiassist.engine import LocalBackend

    with LocalBackend(threaded=False, models=models_folder(options)) as backend:
        cards = backend.models()
    if options.json:
        print(json.dumps([card.to_json() for card in cards]))
        return
    width = max(len(card.name) for card in cards)
    for number, card in enumerate(cards):
        default = " (default)" if number == 0 else ""
        print(f"{card.name:{width}}  {card.kind}, version {card.version}{default}: {card.description}")
    store = _store(options)
    for name in store.names() if store is not None else ():
        if store.versions(name):
            print(f"{name}: versions {_versions(store, name)}")


def _card(options):
    """The card of a model, or of one version of a trained one."""
    from aiassist.segmenters.registry import bundled, load_network_folder

    store = _store(options)
    if options.version is None:
        return bundled(models=store).get(options.model).card
    if store is None:
        raise ModelError(f"--version {options.version} is one of a trained model; say of which --studies.")
    return load_network_folder(store.folder_of(options.model, options.version)).card


def show_model(options) -> None:
    """Print a model's card."""
    card = _card(options).to_json()
    if options.json:
        print(json.dumps(card))
        return
    for name, value in card.items():
        if name == "labels":
            value = ", ".join(label["name"] for label in value)
        elif isinstance(value, dict):
            value = ", ".join(f"{what} {number:g}" for what, number in value.items())
        elif isinstance(value, list | tuple):
            value = ", ".join(map(str, value)) or "any"
        if value:
            print(f"{name + ':':14}{value}")


def publish_version(options) -> None:
    """Judge, and publish if it is better; a bundle's version is published as it is."""
    from aiassist.groundtruth import GroundTruthStore
    from aiassist.groundtruth.names import check_said
    from aiassist.learning.publish import publish_if_better

    check_said(options.author)
    models = _store(options)
    version = options.version if options.version is not None else max(models.versions(options.model), default=0)
    if models.is_imported(options.model):  # as importing it did, without being judged
        _use(models, options.model, version, options)
        return
    if options.until_stdin_closes:
        interrupt_when_stdin_closes()
    with GroundTruthStore(options.studies) as store, Progress(options.json) as progress:
        judging = progress.phase("judging by the labels of today")
        now, before = publish_if_better(store, models, options.model, version, options.author, judging)
    if options.json:
        said = {"model": options.model, "version": version, "before": before.means(), "now": now.means()}
        print(json.dumps({**said, "published": True}))
        return
    print(
        f"{options.model} version {version} is used from now on: mean Dice {now.score:.3f}, before {before.score:.3f}."
    )


def import_model(options) -> None:
    """Add a bundle's version of a model, and publish it."""
    with _taking(options) as progress:
        _take(options.path, options, progress)


def pull_model(options) -> None:
    """Fetch a bundle, then as `import_model`."""
    from aiassist.segmenters.zoo import fetched

    with _taking(options) as progress:
        progress.tell("fetching", 0)
        coming = progress.phase("fetching")
        with fetched(options.bundle, options.version, options.trust, coming) as bundle:
            _take(bundle, options, progress)


@contextmanager
def _taking(options) -> Iterator[Progress]:
    """Shows how far a bundle is on its way."""
    from aiassist.groundtruth.names import check_said

    check_said(options.author)
    if options.until_stdin_closes:
        interrupt_when_stdin_closes()
    with Progress(options.json) as progress:
        yield progress


def _take(bundle: Path, options, progress: Progress) -> None:
    from aiassist.segmenters.bundle_import import import_bundle

    progress.tell("trying it on a small image", 0)
    models = _store(options)
    name, number, _card = import_bundle(bundle, models, options.name, options.trust)
    _use(models, name, number, options)


def _use(models, name: str, number: int, options) -> None:
    """Publish a bundle's version, and say so."""
    from aiassist.segmenters.registry import load_network_folder

    card = load_network_folder(models.folder_of(name, number)).card
    with models.held(name, "publishing"):
        if models.published(name) == number:
            raise ModelError(f"Version {number} of {name!r} is published already.")
        models.publish(name, number, options.author)
    names = [label.name for label in card.labels]
    if options.json:
        said = {"model": name, "version": number, "labels": names, "licence": card.licence}
        print(json.dumps({**said, "published": True}))
        return
    print(f"{name} version {number} is used from now on; it finds {some_of(names)}. Licence: {card.licence}.")


def rollback_version(options) -> None:
    """Take back what was published last."""
    from aiassist.groundtruth.names import check_said

    check_said(options.author)
    models = _store(options)
    with models.held(options.model, "publishing"):
        version = models.rollback(options.model, options.author)
    used = f"version {version} is used again" if version is not None else "no version of it is offered any more"
    print(f"{options.model}: {used}.")
