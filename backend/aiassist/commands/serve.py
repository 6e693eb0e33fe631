"""``aiassist serve``"""

from __future__ import annotations

from pathlib import Path

from aiassist.errors import AIAssistError, MissingExtraError

#: Gigabytes that no computer has.
MOST = 10**9


def add_to(commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("serve", help="give this computer's models and ground truth to other programs")
    parser.add_argument(
        "--studies", metavar="DIR", type=Path, required=True, help="the studies folder; made when missing"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this computer only)")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--token-file", metavar="F", type=Path, help="who may ask; see: aiassist tokens")
    parser.add_argument("--tls-cert", metavar="F", type=Path, help="certificate chain, PEM")
    parser.add_argument("--tls-key", metavar="F", type=Path, help="its key, PEM")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where models run (default: cpu)")
    parser.add_argument("--memory", metavar="GB", type=float, default=4.0, help="volumes to hold open (default: 4)")
    parser.add_argument("--disk", metavar="GB", type=float, default=50.0, help="uploads to keep (default: 50)")
    parser.add_argument("--queue", metavar="N", type=int, default=64, help="requests that may wait (default: 64)")
    parser.add_argument(
        "--author",
        metavar="NAME",
        default="me",
        help="whose labels are saved without a token file (default: %(default)s)",
    )
    parser.add_argument("--warm-up", action="store_true", help="load the default model at once, not when first asked")
    parser.add_argument("--until-stdin-closes", action="store_true", help="stop with the program that started it")
    parser.set_defaults(run=run)


def run(options) -> None:
    """Serve until stopped."""
    try:
        import fastapi  # noqa: F401
        import multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(error.name or "fastapi", "server", "The server") from error
    from aiassist.segmenters.registry import check_device
    from aiassist.server.run import Address, serve
    from aiassist.server.service import Settings

    for name in ("memory", "disk"):
        if not 0 < getattr(options, name) <= MOST:
            raise AIAssistError(
                f"--{name} is {getattr(options, name)}; give gigabytes, more than 0 and at most {MOST:,}."
            )
    if options.queue < 1:
        raise AIAssistError(f"--queue is {options.queue}; give the requests that may wait, 1 or more.")
    if not 0 <= options.port <= 65535:
        raise AIAssistError(f"--port is {options.port}; use 1 to 65535, or 0 for any that is free.")
    check_device(options.device)
    address = Address(options.host, options.port, options.token_file, options.tls_cert, options.tls_key)
    settings = Settings(
        options.studies, options.device, int(options.memory * 2**30), int(options.disk * 2**30), options.queue
    )
    serve(settings, address, options.until_stdin_closes, options.author, options.warm_up)
