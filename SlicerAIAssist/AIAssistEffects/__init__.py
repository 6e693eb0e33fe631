"""The two Segment Editor effects; thin: what they do is in ``AIAssistLib``."""

import slicer

import AIAssistLib  # noqa: F401 - finds the package aiassist
from AIAssistEffects.SegmentEditorAIPointsEffect import SegmentEditorAIPointsEffect
from AIAssistEffects.SegmentEditorSmartContourEffect import SegmentEditorSmartContourEffect

__all__ = ["SegmentEditorAIPointsEffect", "SegmentEditorSmartContourEffect", "register"]


def register() -> None:
    """Make the effects known to all segment editors of this Slicer; those that are known already stay."""
    import qSlicerSegmentationsEditorEffectsPythonQt as effects

    known = [effect.name for effect in slicer.qSlicerSegmentEditorEffectFactory.instance().registeredEffects()]
    for effect in (SegmentEditorAIPointsEffect, SegmentEditorSmartContourEffect):
        if effect.NAME not in known:
            scripted = effects.qSlicerSegmentEditorScriptedEffect(None)
            scripted.setPythonSource(effect.SOURCE.replace("\\", "/"))
            scripted.self().register()
