"""Client of a service that was started with `mvr serve`."""

from mvretrieval.errors import ServiceError

try:
    import httpx  # noqa: F401
except ModuleNotFoundError as error:
    raise ServiceError("the client needs httpx: pip install 'mvretrieval[client]'", code="needs_extra") from error

from mvretrieval.client.client import Client
from mvretrieval.client.records import RemoteJob, RemoteObject

__all__ = ["Client", "RemoteJob", "RemoteObject"]
