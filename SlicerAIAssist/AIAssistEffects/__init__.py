"""The two Segment Editor effects; thin: what they do is in ``AIAssistLib``."""

from AIAssistEffects.SegmentEditorAIPointsEffect import SegmentEditorAIPointsEffect
from AIAssistEffects.SegmentEditorSmartContourEffect import SegmentEditorSmartContourEffect

__all__ = ["SegmentEditorAIPointsEffect", "SegmentEditorSmartContourEffect", "register"]


def register() -> None:
    """Make the effects known to all segment editors of this Slicer."""
    from pathlib import Path

    import qSlicerSegmentationsEditorEffectsPythonQt as effects

    for effect in (SegmentEditorAIPointsEffect, SegmentEditorSmartContourEffect):
        scripted = effects.qSlicerSegmentEditorScriptedEffect(None)
        scripted.setPythonSource(str(Path(__file__).with_name(f"{effect.__name__}.py")))
        scripted.self().register()
