"""``aiassist tokens``"""

from __future__ import annotations

from pathlib import Path


def add_to(commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("tokens", help="say who may use a server")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    add = actions.add_parser("add", help="make a token; it is shown once")
    add.add_argument("name", help="who it is for; becomes the author of their labels")
    add.add_argument("--role", choices=("annotator", "admin"), default="annotator", help="default: %(default)s")
    add.set_defaults(run=add_one)
    show = actions.add_parser("list", help="who has a token")
    show.set_defaults(run=list_all)
    revoke = actions.add_parser("revoke", help="shut a token out at once")
    revoke.add_argument("name", help="whose token")
    revoke.set_defaults(run=revoke_one)
    for action in (add, show, revoke):
        action.add_argument("--file", type=Path, required=True, help="the token file")


def add_one(options) -> None:
    """Print a new token."""
    from aiassist.server.tokens import add_token

    print(add_token(options.file, options.name, options.role))


def list_all(options) -> None:
    """Print names and roles."""
    from aiassist.server.tokens import read_tokens

    for person, _ in read_tokens(options.file):
        print(f"{person.name} ({person.role})")


def revoke_one(options) -> None:
    """Remove a token."""
    from aiassist.server.tokens import revoke_token

    revoke_token(options.file, options.name)
    print(f"{options.name} is shut out.")
