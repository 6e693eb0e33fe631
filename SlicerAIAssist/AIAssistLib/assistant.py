"""The backend in use, wherever it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from aiassist.engine.backend import Annotation
from aiassist.errors import ConnectionLostError
from aiassist.segmenters.base import ModelCard
from AIAssistLib.studies import Studies, opened
from AIAssistLib.talks import Carrier, Conversation, Outcome, Talk, ignore


class Home(Protocol):
    """Where segmenters run: a process on this computer, a server, or this Slicer.

    ``conversations`` has the methods of `aiassist.client.conversations.Conversations`. `near` says whether images
    stay on this computer.
    """

    name: str
    near: bool
    conversations: object
    carrier: Carrier

    def finish(self, conversation: Conversation[Outcome]) -> Outcome:
        """Carry a conversation to its end while the caller waits."""
        ...

    def close(self) -> None:
        """Stop what was started."""
        ...


class Assistant:
    """What panel, effects and console ask; outlives the home, which can be changed.

    Parameters
    ----------
    home : Home
    changed : callable
        Called when the status changed.
    """

    def __init__(self, home: Home, changed: Callable[[], None] = lambda: None):
        self.home = home
        self.studies = Studies(self._close_unheld)
        self.changed = changed
        #: Called when the home was changed.
        self.moved: Callable[[], None] = lambda: None
        #: Name of the promptable model that the person chose, used wherever there is one of that name.
        self.chosen: str | None = None
        self.cards: list[ModelCard] = []
        self._last: tuple[Annotation, float] | None = None
        self._talks: list[Talk] = []
        self._looking: Talk | None = None

    @property
    def conversations(self):
        """What can be asked of the home."""
        return self.home.conversations

    def start(
        self, conversation: Conversation[Outcome], done: Callable[[Outcome], None], failed: Callable[[Exception], None]
    ) -> Talk[Outcome]:
        """Begin a conversation; `done` or `failed` is called once it is over."""
        self._talks = [talk for talk in self._talks if talk.active]
        talk = Talk(self._tidied(conversation), self.home.carrier, done, failed)
        self._talks.append(talk)
        return talk

    def _tidied(self, conversation: Conversation[Outcome]) -> Conversation[Outcome]:
        """A conversation; an image that went while it was hashed or sent for it is not held after it."""
        try:
            return (yield from conversation)
        finally:
            self._close_unheld()

    @property
    def promptable(self) -> dict[str, ModelCard]:
        """The cards of the models that answer to points, by name; the backend's default comes first."""
        return {card.name: card for card in self.cards if card.kind == "promptable"}

    @property
    def model(self) -> str | None:
        """Name of the model to use: the chosen one, else one that looks closer while the default's answer is shown.

        Else the default, whose name is None while `cards` are not known.
        """
        names = list(self.promptable)
        better = [card.name for card in self.promptable.values() if card.quick == names[0] != card.name]
        return self.chosen if self.chosen in names else (better or names or [None])[0]

    @property
    def quick(self) -> str:
        """Name of the model whose answer is shown until that of `model` comes; empty for none."""
        card = self.promptable.get(self.model)
        quick = card.quick if card is not None else ""
        return quick if quick in self.promptable and quick != self.model else ""

    def prepare(self, volume_node) -> Talk[str] | None:
        """Make a volume known to the backend before anything is asked of it; never to a server.

        What goes wrong is told to whoever asks.
        """
        if not self.home.near:
            return None
        return self.start(opened(self.conversations, self.studies.of(volume_node)), ignore, ignore)

    def move(self, home: Home) -> None:
        """Ask another home from now on; what the old one was asked is dropped."""
        talks, self._talks = self._talks, []
        for talk in talks:
            talk.abandon(ConnectionLostError("The models run elsewhere now; ask again."))
        self.home.close()
        self.home, self.cards, self._last = home, [], None
        self.moved()
        self.changed()

    def forget(self, node_id: str) -> None:
        """A volume node was removed: let its voxels go, here and in the home's memory."""
        self.studies.forget(node_id)
        self._close_unheld()

    def _close_unheld(self) -> None:
        """Close the studies that no volume node holds; a clone of one that went may."""
        for study in self.conversations.open_studies:
            if not self.studies.holds(study):
                Talk(self.conversations.close_study(study), self.home.carrier, ignore, ignore)

    def look(self, done: Callable[[], None], failed: Callable[[Exception], None]) -> Talk:
        """Ask which models there are; they are in `cards` then. Who asked before hears no more of it."""

        def seen(cards: list[ModelCard]) -> None:
            self.cards = cards
            self.changed()
            done()

        if self._looking is not None:
            self._looking.cancel()  # an older answer that came later would bring back an older list
        self._looking = self.start(self.conversations.models(), seen, failed)
        return self._looking

    def know_models(self) -> None:
        """Ask which models there are, where that is neither known nor asked: they say which one is used."""
        if not self.cards and (self._looking is None or not self._looking.active):
            self.look(lambda: None, ignore)

    def answered(self, annotation: Annotation, seconds: float) -> None:
        """Note how long the latest answer took, from asking to showing."""
        self._last = (annotation, seconds)
        self.changed()

    @property
    def last(self) -> Annotation | None:
        """The latest answer."""
        return self._last[0] if self._last is not None else None

    @property
    def status(self) -> str:
        """One line: where, which model, which device, how fast."""
        if self._last is None:
            return self.home.name
        annotation, seconds = self._last
        model = f"{annotation.model} {annotation.model_version} on {annotation.device}"
        return f"{self.home.name} · {model} · {1000 * seconds:.0f} ms"

    def close(self) -> None:
        """Stop everything."""
        for talk in self._talks:
            talk.cancel()
        self.home.close()
