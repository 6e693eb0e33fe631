"""What a client says to the server about learning; see `aiassist.client.conversations` for what a conversation is.

Tasks are told as JSON, see `aiassist.server.training.Task`.
"""

from __future__ import annotations

from aiassist.client.conversations import Conversation
from aiassist.protocol import Request
from aiassist.protocol.messages import check

_PLACE = "/api/learning"


def look() -> Conversation[dict]:
    """What there is to learn from, the trained models, and the latest task; see the API's page."""
    return check((yield Request("GET", _PLACE))).json()


def task() -> Conversation[dict | None]:
    """The latest training or publishing, as it stands."""
    return check((yield Request("GET", f"{_PLACE}/task"))).json()["task"]


def train(model: str, **options) -> Conversation[dict]:
    """Begin to train a version of a model, or go on with it; `options` are ``automatic``, ``base``, ``epochs``,
    ``structures``, ``drafts`` and ``publish``, see the API's page."""
    return (yield from _post("train", model=model, **options))["task"]


def publish(model: str, version: int) -> Conversation[dict]:
    """Begin to judge a version, which is published if it is better."""
    return (yield from _post("publish", model=model, version=version))["task"]


def pull(bundle: str, **options) -> Conversation[dict]:
    """Begin to fetch a bundle of MONAI's model zoo, which is used from then on; `options` are ``version`` and ``name``,
    see the API's page."""
    return (yield from _post("pull", bundle=bundle, **options))["task"]


def rollback(model: str) -> Conversation[int | None]:
    """Take back what was published last; the version that is used now, if any."""
    return (yield from _post("rollback", model=model))["published"]


def discard(model: str) -> Conversation[dict]:
    """Remove a model's unfinished training, with all that it did."""
    return (yield from _post("discard", model=model))


def stop() -> Conversation[dict | None]:
    """Have the training saved and stopped."""
    return check((yield Request("DELETE", f"{_PLACE}/task"))).json()["task"]


def _post(what: str, **body) -> Conversation[dict]:
    return check((yield Request.of_json("POST", f"{_PLACE}/{what}", body, repeatable=False))).json()
