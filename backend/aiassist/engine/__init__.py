"""Open studies, run segmenters on a device, watch and cancel them."""

from aiassist.engine.backend import AnnotateRequest, Annotation, Backend, Segmentation, SegmentRequest
from aiassist.engine.job import Job, JobState

__all__ = [
    "AnnotateRequest",
    "Annotation",
    "Backend",
    "Job",
    "JobState",
    "LocalBackend",
    "SegmentRequest",
    "Segmentation",
]


def __getattr__(name: str):
    """Load what runs segmenters when it is first asked for: a client does without."""
    if name != "LocalBackend":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from aiassist.engine.local import LocalBackend

    return LocalBackend
