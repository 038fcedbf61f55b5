"""Prompt templates for class names: named sets, or a file.

Several templates make an ensemble: the mean of the prompts' unit vectors (Radford et al. 2021, section 3.1.4).
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
    # CLIP's ImageNet templates that fit renders, and those of 3D works (PointCLIP, ULIP). Training uses the same set.
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
"""Name -> templates. `imagenet-80`, CLIP's own for ImageNet, is loaded from open_clip on demand."""


def load_templates(name: str) -> tuple[str, ...]:
    """Load templates by the name of a set, or from a file with one per line.

    Args:
        name: name of a set, or path of a file. Each template contains `{}` once, for the class name.

    Raises:
        EvaluationError: there is neither such a set nor such a file, or a line is not a template.
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
            f"no template set or file '{name}': {did_you_mean(name, known)}the sets are {', '.join(known)}; a file has one "
            "template per line, such as: a 3D model of a {}.",
            code="unknown_templates",
        )
    return _read(path)


def _read(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(
            f"templates {path} cannot be read: {error}; save the file as UTF-8", code="unreadable"
        ) from error
    found: dict[str, None] = {}  # duplicates would count twice in the mean
    for line_number, line in enumerate(lines, 1):
        template = line.strip()
        if not template or template.startswith("#"):
            continue
        if template.count("{}") != 1 or template.replace("{}", "").count("{") or template.replace("{}", "").count("}"):
            raise EvaluationError(
                f"templates {path}, line {line_number}: '{template}' must contain {{}} once, for the class name",
                code="bad_templates",
            )
        found[template] = None
    if not found:
        raise EvaluationError(
            f"templates {path} is empty; write one template per line, such as: a 3D model of a {{}}.",
            code="bad_templates",
        )
    return tuple(found)
