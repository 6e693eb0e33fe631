"""Open studies and run segmenters on them."""

from aiassist.engine.backend import AnnotateRequest, Annotation, Backend
from aiassist.engine.job import Job, JobState
from aiassist.engine.local import LocalBackend

__all__ = ["AnnotateRequest", "Annotation", "Backend", "Job", "JobState", "LocalBackend"]
