"""Serve one collection: a search page and a REST API."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from mvrender.renderer import BackendName, NamedBackend
from mvretrieval.api import Collection, OpenOptions
from mvretrieval.console import say
from mvretrieval.errors import ServiceError
from mvretrieval.service.settings import UPLOAD_LIMITS, ServiceSettings

TOKEN_VARIABLE = "MVR_TOKEN"
_LOCAL = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Options:
    """Options of `mvr serve`.

    Attributes:
        collection: folder of the collection.
        host: address to listen on; 0.0.0.0 for all networks of this machine.
        port: port to listen on; 0 for a free one.
        token: required for changes; without one the service is read-only. Better set as the environment variable MVR_TOKEN, which
            other users of the machine cannot see.
        auth: require the token for searching too.
        folder: folder that can be indexed over HTTP, as NAME=PATH; repeat for several.
        allow_host: further host name of the service, if it listens on this machine only; repeat for several. Needed behind a proxy
            that passes its own host name on.
        show_paths: include file paths of this machine in responses.
        max_upload_mb: largest request with files, in MB.
        max_faces: largest number of faces of an uploaded mesh.
        max_pixels: largest number of pixels of the images of one query.
        max_seconds: time limit for loading and rendering an uploaded mesh, in seconds.
        max_waiting: requests with files that may wait for their turn; more are refused.
        queue_timeout_s: time after which a waiting request is refused.
        encoder: new location of the collection's encoder, if its checkpoint moved.
        backend: render backend for mesh files.
        device: cpu, cuda, or auto: where networks run and vectors are searched.
        workers: render processes; one per core by default.
    """

    collection: tyro.conf.Positional[Path]
    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    auth: bool = False
    folder: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    allow_host: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    show_paths: bool = False
    max_upload_mb: int = ServiceSettings.max_upload_bytes >> 20
    max_faces: int = UPLOAD_LIMITS.max_faces
    max_pixels: int = ServiceSettings.max_image_pixels
    max_seconds: float = UPLOAD_LIMITS.seconds
    max_waiting: int = ServiceSettings.max_waiting
    queue_timeout_s: float = ServiceSettings.queue_timeout_s
    encoder: str | None = None
    backend: NamedBackend | BackendName | None = None
    device: str = "auto"
    workers: int | None = None


def run(options: Options) -> int:
    """Serve until SIGINT or SIGTERM."""
    settings = _settings(options)
    try:
        from mvretrieval.service.app import create_app
        from mvretrieval.service.server import serve
    except ModuleNotFoundError as error:
        raise ServiceError(
            f"{error.name} is not installed: pip install 'mvretrieval[serve]'", code="needs_extra"
        ) from error
    machine = OpenOptions(
        options.device,
        backend=options.backend,
        workers=options.workers,
        limits=settings.limits,
        start_workers=True,
        images_in_workers=True,
        concurrent=True,
    )
    with Collection.open(options.collection, machine, write=settings.token is not None) as collection:
        if options.encoder:
            collection.session.relocate_encoder(options.encoder)
        serve(create_app(collection, settings), options.host, options.port, lambda address: _announce(options, address))
    return 0


def _announce(options: Options, address: str) -> None:
    say(f"{options.collection} at {address} (API: {address}/docs); stop with Ctrl-C")
    if not _is_loopback(options.host) and not options.auth:
        say("note: everyone who can reach this machine can search; --auth requires the token for that too")


def _settings(options: Options) -> ServiceSettings:
    # Removed from the environment: worker processes, which load uploaded meshes, need not know it.
    variable = os.environ.pop(TOKEN_VARIABLE, None)
    token = options.token or variable or None
    if options.auth and token is None:
        raise ServiceError(f"--auth needs a token: set {TOKEN_VARIABLE} or give --token", code="token_required")
    folders = _folders(options.folder)
    if folders and token is None:
        raise ServiceError(
            f"--folder needs a token, since indexing changes the collection: set {TOKEN_VARIABLE} or give --token",
            code="token_required",
        )
    return ServiceSettings(
        token=token,
        auth=options.auth,
        hosts=frozenset(map(str.lower, (*_LOCAL, options.host, *options.allow_host)))
        if _is_loopback(options.host)
        else None,
        show_paths=options.show_paths,
        folders=folders,
        limits=replace(UPLOAD_LIMITS, max_faces=options.max_faces, seconds=options.max_seconds),
        max_upload_bytes=options.max_upload_mb << 20,
        max_image_pixels=options.max_pixels,
        max_waiting=options.max_waiting,
        queue_timeout_s=options.queue_timeout_s,
    )


def _folders(texts: tuple[str, ...]) -> Mapping[str, Path]:
    folders = {}
    for text in texts:
        name, _, path = text.partition("=")
        if not name or not path:
            raise ServiceError(
                f"--folder '{text}' is not NAME=PATH, such as parts=/data/parts", code="bad_folder_option"
            )
        if not Path(path).is_dir():
            raise ServiceError(f"--folder {text}: no folder {path}", code="missing_folder")
        folders[name] = Path(path)
    return folders


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
