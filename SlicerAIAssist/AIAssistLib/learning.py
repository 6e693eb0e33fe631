"""Models that learn from the saved labels, where these are kept, and those that are fetched from MONAI's zoo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from slicer.i18n import tr as _

from aiassist.client import learning
from aiassist.errors import ModelError
from aiassist.words import some_of
from AIAssistLib.talks import Conversation, Talk, ignore, sentence

#: Milliseconds between two looks at what goes on.
LOOK = 1000


@dataclass(frozen=True)
class Version:
    """One version of a trained model, as the panel lists it.

    ``before`` and ``now`` are the mean Dice by labels that taught neither, of what it was to replace and of itself;
    None where nobody measured it.
    """

    model: str
    number: int
    labels: int
    before: float | None
    now: float | None
    is_used: bool


class Learning:
    """What can be learned, what was, and the training, publishing or fetching that goes on.

    Parameters
    ----------
    assistant : AIAssistLib.assistant.Assistant
    changed : callable
        Called whenever something here changed.
    used : callable
        Called when another version of a model is used from now on.
    """

    def __init__(self, assistant, changed: Callable[[], None], used: Callable[[], None]):
        self._assistant, self._changed, self._used = assistant, changed, used
        self._talk: Talk | None = None
        self._unwatch: Callable[[], None] = ignore
        #: What the backend said of learning; None before it was asked.
        self.known: dict | None = None
        #: The latest training, publishing or fetching, see `aiassist.server.training.Task`.
        self.task: dict | None = None
        #: What to tell the person, and whether it is an error.
        self.text, self.failed = "", False

    @property
    def running(self) -> bool:
        """Whether something is trained, published or fetched now."""
        return self.task is not None and self.task["state"] == "running"

    @property
    def fraction(self) -> float:
        """The share of the present phase that is done."""
        return min(1.0, self.task["done"] / self.task["total"]) if self.running and self.task["total"] else 0.0

    @property
    def structures(self) -> dict[str, int]:
        """Of how many images each structure has a label that can be learned from."""
        return self.known["structures"] if self.known is not None else {}

    @property
    def allowed(self) -> bool:
        """Whether this person may have models learn here; servers of before do not say."""
        return self.known is None or self.known.get("allowed", True)

    @property
    def models(self) -> dict[str, dict]:
        """What is known of each trained model, by its name."""
        return {model["name"]: model for model in (self.known or {}).get("models", ())}

    @property
    def missing_for_bundles(self) -> list[str]:
        """The packages that models of MONAI's zoo need and that are not there. `ModelError` when nobody knows."""
        missing = (self.known or {}).get("missing_for_bundles")
        if missing is None:
            raise ModelError("The backend does not say whether it can fetch models; look again, or update the server.")
        return missing

    @property
    def damaged(self) -> list[str]:
        """What is said of models whose files are damaged."""
        return [model["message"] for model in self.models.values() if "message" in model]

    def unfinished(self, model: str) -> dict | None:
        """What the unfinished training of a model was asked; None without one."""
        return self.models.get(model, {}).get("unfinished")

    @property
    def versions(self) -> list[Version]:
        """All versions of all models, the newest of each first."""
        return [_version(model, one) for model in self.models.values() for one in reversed(model.get("versions", ()))]

    def look(self, then: Callable[[], None] | None = None) -> None:
        """Ask what there is, and call `then`; what goes on is watched from then on."""

        def seen(known: dict) -> None:
            self.known = known
            if self.failed and not self.running:
                self.text, self.failed = "", False
            self._note(known["task"])
            if then is not None:
                then()

        self._ask(learning.look(), seen)

    def train(self, model: str, **options) -> None:
        """Begin to train a version; `options` as of `aiassist.client.learning.train`."""
        self._ask(learning.train(model, **options), self._note)

    def publish(self, version: Version) -> None:
        """Begin to judge a version, which is used from then on if it is better."""
        self._ask(learning.publish(version.model, version.number), self._note)

    def pull(self, bundle: str) -> None:
        """Begin to fetch a bundle of MONAI's model zoo."""
        self._ask(learning.pull(bundle), self._note)

    def take_back(self, model: str) -> None:
        """Use what was used before the latest publishing."""

        def done(number: int | None) -> None:
            used = _("Version {number} of {model} is used again.").format(number=number, model=model)
            none = _("No version of {model} is offered any more.").format(model=model)
            self._say(used if number is not None else none)
            self._used()
            self.look()

        self._ask(learning.rollback(model), done)

    def go_on(self, model: str) -> None:
        """Go on with a model's unfinished training: it is asked the same again."""
        asked = self.unfinished(model)
        same = {name: asked[name] for name in ("epochs", "structures", "drafts")}
        self.train(model, automatic=asked["kind"] == "automatic", **same)

    def discard(self, model: str) -> None:
        """Remove a model's unfinished training."""
        self._ask(learning.discard(model), lambda _said: self.look())

    def stop(self) -> None:
        """Have the training saved and stopped."""
        self._ask(learning.stop(), self._note)

    def leave(self) -> None:
        """Watch no longer; what goes on goes on."""
        self._unwatch()
        if self._talk is not None:
            self._talk.cancel()
        self.known = self.task = None
        self._say("")

    def _ask(self, conversation: Conversation, done: Callable) -> None:
        self._unwatch()
        if self._talk is not None:
            self._talk.cancel()
        self._talk = self._assistant.start(conversation, done, self._fail)

    def _note(self, task: dict | None) -> None:
        """There is news of the latest task; when it has just ended, what there is is asked again."""
        before, self.task = self.task if self.running else None, task
        is_same = before is not None and task is not None and task["id"] == before["id"]
        ended = before is not None and not (is_same and self.running)
        if ended and not is_same:  # it was restarted meanwhile
            restarted = _("{model}: the backend was restarted; what was trained is kept.")
            if before["what"] == "pull":
                restarted = _("{model}: the backend was restarted; fetch it again.")
            self._say(restarted.format(model=before["model"]))
        elif task is not None and (self.running or ended or not self.text):
            self._say(_of(task), task["state"] == "failed")
        else:
            self._changed()
        if ended:
            if is_same and (task["result"] or {}).get("published"):
                self._used()
            self.look()
        elif self.running:
            self._unwatch()
            self._unwatch = self._assistant.home.carrier.after(LOOK, self._watch)

    def _watch(self) -> None:
        self._ask(learning.task(), self._note)

    def _fail(self, error: Exception) -> None:
        self._say(sentence(error), failed=True)
        if self.running:  # the way there may be open again soon
            self._unwatch = self._assistant.home.carrier.after(LOOK, self._watch)

    def _say(self, text: str, failed: bool = False) -> None:
        self.text, self.failed = text, failed
        self._changed()


def _version(model: dict, card: dict) -> Version:
    learned = "labels" in card["metrics"]  # the figures of a bundle are its makers', by images of theirs
    dice = {name: value for name, value in card["metrics"].items() if "dice" in name and learned}
    before = [value for name, value in dice.items() if name.startswith("before, ")]
    now = [value for name, value in dice.items() if not name.startswith("before, ")]
    return Version(
        model["name"],
        int(card["version"]),
        int(card["metrics"].get("labels", 0)),
        sum(before) / len(before) if before else None,
        sum(now) / len(now) if now else None,
        model["published"] == int(card["version"]),
    )


def _of(task: dict) -> str:
    """What to tell a person of a task."""
    if task["state"] == "running":
        text = task["text"] or task["phase"]
        share = f" ({min(1.0, task['done'] / task['total']):.0%})" if task["total"] else ""
        return f"{task['model']}: {text}{share}"
    return _outcome(task["result"]) if task["state"] == "done" else f"{task['model']}: {task['message']}"


def _outcome(result: dict) -> str:
    """What came of a training, a publishing or a fetching that was done."""
    if "now" not in result:  # a bundle, which nobody judged
        found = _("{model} version {version} is used from now on; it finds {names}. Licence: {licence}.")
        return found.format(**result, names=some_of(result["labels"]))
    if not result["now"]:
        unjudged = _("{model} version {version} is there; all labels that were to judge it were removed meanwhile.")
        return unjudged.format(**result)
    now, before = _mean(result["now"]), _mean(result["before"])
    dice = _("mean Dice {now:.3f}, before {before:.3f}").format(now=now, before=before)
    name = _("{model} version {version}").format(**result)
    if result["published"]:
        return _("{name} is used from now on: {dice}.").format(name=name, dice=dice)
    if not result["better"]:
        return _("{name} is not clearly better, so what is used stays as it is: {dice}.").format(name=name, dice=dice)
    if result.get("kept back"):
        return result["kept back"]
    return _("{name} is better: {dice}. Choose it below to use it.").format(name=name, dice=dice)


def _mean(dice: dict[str, float]) -> float:
    return sum(dice.values()) / max(1, len(dice))
