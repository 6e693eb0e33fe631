"""The stories that anyone can run in a Slicer, on each of the three homes."""

from __future__ import annotations

import pytest

from AIAssistLib.stories import ELSEWHERE, EVERYWHERE, IN_SLICER, SAVING, Stage
from homes import NAMES

#: The engine of this Slicer cannot be lost without Slicer: what is lost there is the process that keeps the labels.
TOLD = [
    *((story, home) for story in (*EVERYWHERE, *SAVING) for home in NAMES),
    *((story, home) for story in ELSEWHERE for home in ("computer", "server")),
    *((story, "slicer") for story in IN_SLICER),
]


@pytest.mark.parametrize(("story", "home"), TOLD, ids=[f"{story.__name__}-{home}" for story, home in TOLD])
def test_story(story, home, module, homes, slice_views):
    homes.use(module.logic.assistant, home)
    story(Stage(module.panel, lose=lambda: homes.lose(home)))
