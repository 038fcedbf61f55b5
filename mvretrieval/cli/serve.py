"""Serve a collection: a web page to search with, and a REST API."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from mvrender.renderer import BackendName
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
        host: address to listen at; 0.0.0.0 for every network that this machine is on.
        port: port to listen at; 0 for a free one.
        token: what those who add, change and remove objects have to show; without one nobody may. Better given as the
            environment variable MVR_TOKEN, which other users of the machine cannot see.
        auth: those who search have to show the token too.
        folder: folder that may be indexed on request, as NAME=PATH; several times for several.
        allow_host: name that requests may call the service by, where it listens on this machine alone; several times for several.
            Needed behind a proxy that passes its own name on.
        show_paths: tell where the objects' files lie on this machine.
        max_upload_mb: most megabytes of one request.
        max_faces: most faces of an uploaded mesh.
        max_pixels: most pixels of an uploaded picture.
        max_seconds: that loading and rendering an uploaded mesh may take.
        max_waiting: requests with files that may wait; more are told to come again.
        encoder: where the collection's encoder is now, if its checkpoint moved.
        backend: renderer for mesh files.
        device: cpu, cuda, or auto.
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
    max_pixels: int = ServiceSettings.max_picture_pixels
    max_seconds: float = UPLOAD_LIMITS.seconds
    max_waiting: int = ServiceSettings.max_waiting
    encoder: str | None = None
    backend: BackendName | None = None
    device: str = "auto"
    workers: int | None = None


def run(options: Options) -> int:
    """Serve until SIGINT or SIGTERM."""
    settings = _settings(options)
    try:
        from mvretrieval.service.app import create_app
        from mvretrieval.service.running import serve
    except ModuleNotFoundError as error:
        raise ServiceError(f"{error.name} is not installed: pip install 'mvretrieval[serve]'") from error
    machine = OpenOptions(
        options.device,
        backend=options.backend,
        workers=options.workers,
        limits=settings.limits,
        start_workers=True,
        concurrent=True,
    )
    with Collection.open(options.collection, machine, write=settings.token is not None) as collection:
        if options.encoder:
            collection.relocate_encoder(options.encoder)
        serve(create_app(collection, settings), options.host, options.port, lambda address: _announce(options, address))
    return 0


def _announce(options: Options, address: str) -> None:
    say(f"{options.collection} at {address} (API: {address}/docs); Ctrl-C ends it")
    if not _is_loopback(options.host) and not options.auth:
        say("note: everybody who reaches this machine can search; --auth asks them for the token too")


def _settings(options: Options) -> ServiceSettings:
    # Taken out: the workers that load what strangers send need not know it.
    given = os.environ.pop(TOKEN_VARIABLE, None)
    token = options.token or given or None
    if options.auth and token is None:
        raise ServiceError(f"--auth needs a token to ask for: set {TOKEN_VARIABLE}, or give --token")
    folders = _folders(options.folder)
    if folders and token is None:
        raise ServiceError(
            f"--folder lets others index, and nobody may without a token: set {TOKEN_VARIABLE}, or give --token"
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
        max_picture_pixels=options.max_pixels,
        max_waiting=options.max_waiting,
    )


def _folders(given: tuple[str, ...]) -> Mapping[str, Path]:
    folders = {}
    for text in given:
        name, _, path = text.partition("=")
        if not name or not path:
            raise ServiceError(f"--folder takes NAME=PATH, such as parts=/data/parts, not '{text}'")
        if not Path(path).is_dir():
            raise ServiceError(f"--folder {text}: there is no folder {path}")
        folders[name] = Path(path)
    return folders


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
