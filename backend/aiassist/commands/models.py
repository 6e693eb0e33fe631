"""``aiassist models``"""

from __future__ import annotations

import json
from dataclasses import asdict


def add_to(commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("models", help="list the models, or show a model's card")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="all models, the default first")
    listing.set_defaults(run=list_models)
    info = actions.add_parser("info", help="one model's card")
    info.add_argument("model", metavar="M")
    info.set_defaults(run=show_model)
    for action in (listing, info):
        action.add_argument("--json", action="store_true", help="print JSON")


def list_models(options) -> None:
    """Print a line for each model."""
    from aiassist.engine import LocalBackend

    with LocalBackend(threaded=False) as backend:
        cards = backend.models()
    if options.json:
        print(json.dumps([asdict(card) for card in cards]))
        return
    width = max(len(card.name) for card in cards)
    for number, card in enumerate(cards):
        default = " (default)" if number == 0 else ""
        print(f"{card.name:{width}}  {card.kind}, version {card.version}{default}: {card.description}")


def show_model(options) -> None:
    """Print a model's card."""
    from aiassist.segmenters.registry import bundled

    card = asdict(bundled().get(options.model).card)
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
