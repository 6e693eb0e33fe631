"""The native API's messages, without any input or output: shared by client and server."""

from aiassist.protocol.wire import Reply, Request

__all__ = ["Reply", "Request"]
