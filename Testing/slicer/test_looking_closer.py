"""AI Points with a model that takes its time: a quick one answers first, the chosen one when nobody holds a mark."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from aiassist.errors import Cancelled, ConnectionLostError
from AIAssistLib.tags import MODEL, tag_of
from helpers import add_segment, click_ends, dice, mask_of, wait


@pytest.fixture
def closer(points, panel):
    """AI Points, active, by the model that looks once more."""
    panel.backend.look()
    wait(lambda: points.session.assistant.cards)
    assert panel.ui.modelCombo.currentText == "network-fine" and points.session.assistant.quick == "network"
    return points


def answered(points) -> None:
    """Wait for the first answer."""
    wait(lambda: not points.session.busy)
    assert not points.session.failed, points.session.text


def asked_models(points, monkeypatch) -> list[str]:
    """Collects which model each question goes to."""
    asking, models = points.session._asking, []
    put = asking._put
    monkeypatch.setattr(
        asking, "_put", lambda question, model, **more: (models.append(model), put(question, model, **more))
    )
    return models


def test_the_quick_answer_is_shown_until_the_better_one_comes(closer, slice_views, case):
    click_ends(slice_views, case.ends("spleen"))
    answered(closer)
    quick = closer.session.preview.mask
    assert closer.session.looks_closer and closer.ui.acceptButton.enabled
    assert closer.ui.statusLabel.text.endswith(" ml; looking closer")
    wait(lambda: not closer.session.looks_closer)
    better = closer.session.preview.mask
    assert better.version != quick.version and dice(better.to_mask(case.labels.shape), case.mask("spleen")) > 0.85
    assert closer.ui.statusLabel.text.endswith(" ml")
    closer.ui.acceptButton.click()
    segment = case.segmentation.GetSegmentation().GetSegment(case.liver)
    assert np.array_equal(mask_of(case, case.liver), better.to_mask(case.labels.shape))
    assert tag_of(segment, MODEL).startswith("network-fine ")


def test_what_is_accepted_is_what_is_shown(closer, slice_views, case):
    click_ends(slice_views, case.ends("spleen"))
    answered(closer)
    quick = closer.session.preview.mask
    assert closer.session.looks_closer
    closer.ui.acceptButton.click()
    assert not closer.session.looks_closer and not closer.session.busy
    segment = case.segmentation.GetSegmentation().GetSegment(case.liver)
    assert np.array_equal(mask_of(case, case.liver), quick.to_mask(case.labels.shape))
    assert tag_of(segment, MODEL).startswith("network ")


def test_a_click_corrects_what_is_shown_and_is_asked_of_the_chosen_model(closer, slice_views, case, monkeypatch):
    models = asked_models(closer, monkeypatch)
    click_ends(slice_views, case.ends("liver"))
    answered(closer)
    quick = closer.session.preview.mask
    missed = np.argwhere(case.mask("liver") & ~quick.to_mask(case.labels.shape))
    place = tuple(missed[len(missed) // 2])
    slice_views["Red"].click(slice_views["Red"].xy(case.world(place[::-1])[0]))
    answered(closer)
    assert models == ["network", "network-fine", "network-fine"] and not closer.session.looks_closer
    assert closer.session.preview.mask.to_mask(case.labels.shape)[place]
    closer.ui.takeBackButton.click()
    assert closer.session.preview.mask.version == quick.version


def test_while_a_point_is_held_only_the_quick_one_is_asked(closer, slice_views, case, monkeypatch):
    ends = case.ends("spleen")
    click_ends(slice_views, ends)
    wait(lambda: not closer.session.busy and not closer.session.looks_closer)
    models = asked_models(closer, monkeypatch)
    view = slice_views["Green"]
    start = view.xy(ends[0])
    view.event("MouseMoveEvent", start)
    view.event("LeftButtonPressEvent", start)
    for step in range(1, 4):
        view.event("MouseMoveEvent", np.add(start, (4 * step, 0)))
        wait(lambda: not closer.session.busy)
        assert not closer.session.looks_closer
    assert set(models) == {"network"}
    view.event("LeftButtonReleaseEvent", np.add(start, (12, 0)))
    wait(lambda: not closer.session.busy and not closer.session.looks_closer)
    assert models[-2:] == ["network", "network-fine"]


def test_a_mark_that_was_only_held_when_the_answer_came_lets_it_look_closer(closer, slice_views, case):
    ends, view = case.ends("spleen"), slice_views["Green"]
    click_ends(slice_views, ends)
    place = view.xy(ends[0])
    view.event("MouseMoveEvent", place)
    view.event("LeftButtonPressEvent", place)
    answered(closer)
    assert not closer.session.looks_closer
    view.event("LeftButtonReleaseEvent", place)
    assert closer.session.looks_closer


def test_when_the_better_answer_fails_the_quick_one_stays_and_the_reason_is_said(closer, slice_views, case):
    click_ends(slice_views, case.ends("spleen"))
    answered(closer)
    quick = closer.session.preview.mask
    assert closer.session.looks_closer
    closer.session._asking._talk.abandon(ConnectionLostError("The server went away."))
    assert closer.session.failed and closer.ui.statusLabel.text == "The server went away."
    assert closer.session.preview.mask.version == quick.version
    closer.ui.acceptButton.click()
    assert np.array_equal(mask_of(case, case.liver), quick.to_mask(case.labels.shape))


def test_a_mark_that_changed_without_being_moved_does_not_end_it(closer, slice_views, case, monkeypatch):
    click_ends(slice_views, case.ends("spleen"))
    wait(lambda: not closer.session.busy and not closer.session.looks_closer)
    models = asked_models(closer, monkeypatch)
    closer.session.marks.node.SetNthControlPointLocked(0, True)  # as by its menu
    wait(lambda: not closer.session.busy and not closer.session.looks_closer)
    assert models[-2:] == ["network", "network-fine"]


def test_a_mark_that_is_held_while_another_segment_is_chosen_is_not_held_there(
    closer, panel, slice_views, case, monkeypatch
):
    ends = case.ends("spleen")
    click_ends(slice_views, ends)
    answered(closer)
    view = slice_views["Green"]
    view.event("MouseMoveEvent", view.xy(ends[0]))
    view.event("LeftButtonPressEvent", view.xy(ends[0]))
    view.event("MouseMoveEvent", np.add(view.xy(ends[0]), (4, 0)))
    panel.editor.setCurrentSegmentID(add_segment(case, "gallbladder"))
    view.event("LeftButtonReleaseEvent", np.add(view.xy(ends[0]), (4, 0)))
    models = asked_models(closer, monkeypatch)
    click_ends(slice_views, case.ends("gallbladder"))
    answered(closer)
    assert closer.session.looks_closer and models == ["network", "network-fine"]


def test_a_click_that_is_taken_back_lets_it_look_closer_again(closer, slice_views, case, monkeypatch):
    click_ends(slice_views, case.ends("liver"))
    answered(closer)
    view = slice_views["Red"]
    view.click(view.xy(np.add(case.middle("liver"), (0, 90, 0))))
    answered(closer)
    models = asked_models(closer, monkeypatch)
    closer.ui.takeBackButton.click()
    assert closer.session.looks_closer and models == ["network-fine"]
    wait(lambda: not closer.session.looks_closer)
    closer.ui.acceptButton.click()
    segment = case.segmentation.GetSegmentation().GetSegment(case.liver)
    assert tag_of(segment, MODEL).startswith("network-fine ")


def test_what_was_cancelled_or_unchosen_meanwhile_is_not_waited_for(closer, panel, slice_views, case):
    for stop in (
        lambda: closer.session._asking._talk.abandon(Cancelled("The server stops.")),
        lambda: panel.ui.modelCombo.setCurrentText("network"),
    ):
        closer.ui.resetButton.click()
        click_ends(slice_views, case.ends("spleen"))
        answered(closer)
        quick = closer.session.preview.mask
        assert closer.session.looks_closer
        stop()
        wait(lambda: not closer.session.looks_closer)
        assert closer.session.preview.mask.version == quick.version
        assert closer.ui.statusLabel.text.endswith(" ml") and not closer.session.failed


def test_a_model_that_was_chosen_stays_chosen_when_the_models_run_elsewhere(closer, panel, homes):
    assistant = closer.session.assistant
    panel.ui.modelCombo.setCurrentText("network")
    assistant.move(homes.get("server"))
    assert assistant.model is None
    panel.backend.look()
    wait(lambda: not assistant._looking.active)
    assert panel.ui.modelCombo.currentText == assistant.model == "network" and not assistant.quick


def test_the_model_is_known_before_the_panel_asked(points, slice_views, case):
    assistant = points.session.assistant
    assistant.cards = []
    assert assistant.model is None
    points.session._asking.prepare(case.node)
    wait(lambda: assistant.cards)
    assert assistant.model == "network-fine"


def test_a_model_is_not_its_own_quick_one(points):
    assistant = points.session.assistant
    wait(lambda: assistant.cards)
    assistant.cards = [replace(card, quick=card.name) for card in assistant.cards if card.name == "network"]
    assert assistant.model == "network" and assistant.quick == ""
