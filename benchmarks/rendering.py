"""Figures of rendering, of the group `speed`."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks import data
from benchmarks.figures import Figure, Skipped

_SCRIPT = Path(__file__).parent / "render_rate.py"
_PAIRS = 3


def _views_per_second(name: str, folder: Path) -> float:
    software = os.environ | {"LIBGL_ALWAYS_SOFTWARE": "1", "GALLIUM_DRIVER": "llvmpipe"}
    done = subprocess.run(
        [sys.executable, str(_SCRIPT), name, str(folder)],
        capture_output=True, text=True, check=False, env=software,
    )  # fmt: skip
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise Skipped(f"the {name} renderer does not run here ({last[0][:200]}): pip install 'mvretrieval[gl]', libegl1")
    return float(json.loads(done.stdout)["views_per_second"])


def render_cpu() -> dict[str, float]:
    """Views per second of the renderer that needs no GPU over plain pyrender's on llvmpipe: median of pairs, in turn.

    Both on all cores, clay-like, 224 pixels, 200 fixed PSB meshes that are loaded before; llvmpipe has its own threads.
    """
    folder = data.fixed_psb(200)
    ratios = []
    for _ in range(_PAIRS):
        plain, ours = _views_per_second("plain", folder), _views_per_second("raster", folder)
        print(f"  raster {ours:.0f} views/s, pyrender {plain:.0f}", file=sys.stderr)
        ratios.append(ours / plain)
    return {"ratio": statistics.median(ratios)}


FIGURES = (
    Figure("render-cpu", "speed", "views/s over pyrender's on llvmpipe, 224 px, 200 PSB meshes", {"ratio": 5.0}, render_cpu),
)
