"""The backend on a server, or in a process of this computer."""

from aiassist.client.remote import RemoteBackend
from aiassist.client.transport import RequestsTransport, Transport

__all__ = ["RemoteBackend", "RequestsTransport", "Transport"]
