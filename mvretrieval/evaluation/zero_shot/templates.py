"""Prompt templates: what is said around a class's name before a text encoder reads it. Named sets, or a file.

Several prompts of one name are an ensemble: the mean of their unit vectors (Radford et al. 2021, section 3.1.4).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mvretrieval.errors import EvaluationError, did_you_mean

DEFAULT = "renders"
IMAGENET = "imagenet-80"

SETS: Mapping[str, tuple[str, ...]] = {
    "name": ("{}",),
    "photo": ("a photo of a {}.",),
    # Of CLIP's ImageNet templates those that fit renders, and what 3D works add to them (PointCLIP, ULIP); training against
    # the names' own vectors says the same.
    "renders": (
        "a {}.",
        "a photo of a {}.",
        "a rendering of a {}.",
        "a 3D model of a {}.",
        "a grey 3D model of a {}.",
        "a CAD model of a {}.",
        "a toy {}.",
    ),
    "depth": ("a depth map of a {}.", "a depth map of a 3D model of a {}.", "a heightmap of a {}."),
    "sketch": ("a sketch of a {}.", "a line drawing of a {}.", "a silhouette of a {}."),
}
"""Templates by the name of their set; `imagenet-80`, CLIP's own for ImageNet, comes from open_clip when it is asked for."""


def named_or_file(name: str) -> tuple[str, ...]:
    """Templates by the name of a set, or of a file with one on each line.

    Args:
        name: a set's; else the path of a file. Each template has `{}` once, where the class's name goes.

    Raises:
        EvaluationError: there is neither such a set nor such a file, or a line of it is no template.
    """
    if name in SETS:
        return SETS[name]
    if name == IMAGENET:
        import open_clip

        return tuple(template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES)
    path = Path(name)
    if not path.is_file():
        known = [*SETS, IMAGENET]
        raise EvaluationError(
            f"no templates '{name}': {did_you_mean(name, known)}the sets are {', '.join(known)}; or name a file with one "
            "template a line, such as: a 3D model of a {}."
        )
    return _read(path)


def _read(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(f"templates {path} cannot be read: {error}; save them as UTF-8 text") from error
    found: dict[str, None] = {}  # each once: said twice, a prompt would count twice
    for row_id, line in enumerate(lines, 1):
        template = line.strip()
        if not template or template.startswith("#"):
            continue
        if template.count("{}") != 1 or template.replace("{}", "").count("{") or template.replace("{}", "").count("}"):
            raise EvaluationError(
                f"templates {path}, line {row_id}: '{template}' needs {{}} once, where the class's name goes"
            )
        found[template] = None
    if not found:
        raise EvaluationError(f"templates {path}: there is none; write one a line, such as: a 3D model of a {{}}.")
    return tuple(found)
