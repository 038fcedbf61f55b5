"""Compare view fingerprints: what the views of a collection or an adapter were made with."""

from __future__ import annotations

import re

_PARTS = re.compile(
    r"views=(?P<version>\S+) rig=(?P<rig>.*?) styles=(?P<styles>\S+) size=(?P<size>\d+) encoder=(?P<encoder>.*)",
    re.DOTALL,
)


def differences(first: str, second: str) -> dict[str, tuple[str, str]]:
    """The parts in which two view fingerprints differ.

    Args:
        first: see `Describer.view_fingerprint`.
        second: of other views.

    Returns:
        `version`, `rig`, `styles`, `size` or `encoder` -> both values; `views` if one of them is of an early version, without
        parts.
    """
    own, other = _PARTS.fullmatch(first), _PARTS.fullmatch(second)
    if own is None or other is None:
        return {} if first == second else {"views": (first, second)}
    return {name: (own[name], other[name]) for name in own.groupdict() if own[name] != other[name]}
