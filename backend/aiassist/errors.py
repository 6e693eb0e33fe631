"""Errors that are meant for the person in front of the program.

Every message is one sentence that names the offending value and says what to do about it. They
are raised where the fact is known and shown once, at the edge (command line, server, Slicer).
"""


class AIAssistError(ValueError):
    """Base of all errors whose message can be shown to a person as it is."""


class ImageError(AIAssistError):
    """An image, its geometry, or a file that should hold one cannot be used."""


class PromptError(AIAssistError):
    """What a person said of a structure cannot be used."""


class ModelError(AIAssistError):
    """A model is unknown, or cannot do what was asked of it."""


class UnknownModelError(ModelError):
    """There is no model of that name where it was asked for."""


class ContourError(AIAssistError):
    """A slice, an outline, or what should be done with it cannot be used."""


class PatchError(AIAssistError):
    """Bytes or arrays do not form a valid mask patch."""


class StudyError(AIAssistError):
    """A study, or a mask of it, is unknown to the backend that was asked."""


class UnknownStudyError(StudyError):
    """A study is not open where it was asked for; open it and ask again."""


class UnknownMaskError(StudyError):
    """A version of a mask is not known where it was asked for; send it and ask again."""


class BusyError(AIAssistError):
    """There is no room in the queue now; ask again later."""


class DeviceMemoryError(AIAssistError):
    """The device has too little memory for this work."""


class UploadError(AIAssistError):
    """An upload is not what it was announced to be."""


class AccessError(AIAssistError):
    """Who asks is not known, or may not do this."""


class ConnectionLostError(AIAssistError):
    """The server cannot be reached, or broke off."""


class StoreError(AIAssistError):
    """The ground-truth store cannot do what was asked of it."""


class RoomError(StoreError):
    """The disk has no room for what is to be kept."""


class SeriesError(AIAssistError):
    """An image is kept with the DICOM headers of another series."""


class NotStoredError(StoreError):
    """The ground-truth store has no such study, structure or version."""


class NotNewestError(StoreError):
    """The version that was looked at is not the newest one any more; look again."""


class BrokenStoreError(StoreError):
    """The ground-truth store's own files are gone, damaged or cannot be used; its administrator must see to it."""


class MissingExtraError(AIAssistError):
    """An optional package is needed for what was asked."""

    def __init__(self, package: str, extra: str, purpose: str):
        super().__init__(f"{purpose} needs the package {package}: pip install '/path/to/SlicerAIAssist[{extra}]'.")
        self._said = package, extra, purpose

    def __reduce__(self):
        """From another process it comes with what it was made of."""
        return type(self), self._said


class Cancelled(Exception):
    """The work was cancelled, or overtaken by a newer request; not a fault."""
