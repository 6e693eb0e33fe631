"""Versioned ground truth: labels that are never overwritten, with who made them and how."""

from aiassist.groundtruth.index import State
from aiassist.groundtruth.records import LabelVersion, StudyRecord
from aiassist.groundtruth.store import GroundTruthStore

__all__ = ["GroundTruthStore", "LabelVersion", "State", "StudyRecord"]
