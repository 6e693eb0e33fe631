"""Versioned ground truth: labels that are never overwritten, with who made them and how."""

from aiassist.groundtruth.store import GroundTruthStore, LabelVersion, State, StudyRecord

__all__ = ["GroundTruthStore", "LabelVersion", "State", "StudyRecord"]
