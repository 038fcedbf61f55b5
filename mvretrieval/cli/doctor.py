"""Check the installation and print the fix for each problem."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Literal, get_args

from mvrender import plugins
from mvrender.errors import PluginError
from mvrender.renderer import NamedBackend
from mvretrieval.console import counted, print_json
from mvretrieval.encoders.registry import ENCODERS, parse_encoder
from mvretrieval.index.gpu import has_cagra, why_no_gpu

State = Literal["ok", "missing", "broken"]
_MARKS = {"ok": "ok     ", "missing": "missing", "broken": "BROKEN "}


@dataclass(frozen=True)
class Options:
    """Options of `mvr doctor`.

    Attributes:
        json: print one JSON object per check.
    """

    json: bool = False


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        name: of the check.
        state: `ok`, `missing` (optional) or `broken`.
        detail: version, speed or error message.
        fix: command that fixes it.
    """

    name: str
    state: State
    detail: str
    fix: str = ""


def run(options: Options) -> int:
    """Run all checks. The exit code is 1 if meshes cannot be rendered or searched on this machine."""
    findings = []
    checks = (
        _python, _raster, _gl, _pyrender, _gpu, _faiss, _vector_search, _bfloat16, _formats, _encoders, _plugins,
    )  # fmt: skip
    for check in checks:
        for finding in check():
            findings.append(finding)
            if options.json:
                print_json(asdict(finding))
            else:
                print(_line(finding))
    can_render = any(f.state == "ok" and f.name in get_args(NamedBackend) for f in findings)
    can_search = any(f.state == "ok" and f.name == "faiss" for f in findings)
    return 0 if can_render and can_search else 1


def _line(finding: Finding) -> str:
    fix = f"\n{'':29}-> {finding.fix}" if finding.fix else ""
    return f"{_MARKS[finding.state]}  {finding.name:<18}  {finding.detail}{fix}"


def _python() -> list[Finding]:
    fine = (3, 10) <= sys.version_info[:2] <= (3, 13)
    detail = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return [Finding("python", "ok" if fine else "broken", detail, "" if fine else "use Python 3.10 to 3.13")]


def _raster() -> list[Finding]:
    return [_try_renderer("raster", "raster")]


def _gl() -> list[Finding]:
    if importlib.util.find_spec("moderngl") is None:
        return [Finding("gl", "missing", "only needed for rendering on a GPU", "pip install 'mvretrieval[gl]'")]
    return [_try_renderer("gl", "gl", "apt-get install libegl1 libgl1 libgl1-mesa-dri")]


def _pyrender() -> list[Finding]:
    if importlib.util.find_spec("pyrender") is None:
        return [Finding("pyrender", "missing", "only needed for --backend pyrender", "pip install pyrender")]
    return [_try_renderer("pyrender", "pyrender", "apt-get install libegl1 libgl1 libgl1-mesa-dri")]


def _plugins() -> list[Finding]:
    """Plug-ins that other packages declare."""
    findings = []
    for group, name, package in plugins.installed():
        kind = {"losses": "loss"}.get(group, group.removesuffix("s"))
        try:
            plugins.find(group, name)
        except PluginError as error:
            findings.append(
                Finding(name, "missing", f"{kind} of {package}: {error}", f"pip uninstall {package.split()[0]}")
            )
            continue
        if group == "renderers":
            tried = _try_renderer(name, name)
            findings.append(replace(tried, detail=f"{kind} of {package}; {tried.detail}"))
        else:
            findings.append(Finding(name, "ok", f"{kind} of {package}"))
    return findings


def _try_renderer(name: str, backend: str, fix: str = "") -> Finding:
    """Render a cube in a subprocess: a broken GL driver may crash or hang."""
    code = (
        "import time, numpy, trimesh\n"
        "from mvrender.cameras import ring\n"
        "from mvrender.mesh import Mesh, normalize\n"
        "from mvrender.backends.selection import open_renderer\n"
        "box = trimesh.creation.box()\n"
        "mesh = normalize(Mesh(box.vertices.astype('f4'), box.faces.astype('i4')))\n"
        f"renderer = open_renderer({backend!r})\n"
        "renderer.render(mesh, ring(2), ['clay'], 224)\n"
        "start = time.perf_counter()\n"
        "views = renderer.render(mesh, ring(12), ['clay'], 224)\n"
        "assert views.images.min() < 200, 'the image is empty'\n"
        "print(f'{(time.perf_counter() - start) / 12 * 1000:.1f} ms per view of a cube, 224 px')\n"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Finding(name, "broken", "hangs: no image after 60 s", fix)
    if done.returncode == 0:
        return Finding(name, "ok", done.stdout.strip().splitlines()[-1])
    lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    state: State = "broken" if backend == "raster" else "missing"
    return Finding(name, state, lines[-1][:160], fix)


def _gpu() -> list[Finding]:
    import torch

    if not torch.cuda.is_available():
        return [Finding("gpu", "missing", "torch finds no GPU; everything runs on the CPU")]
    return [Finding("gpu", "ok", f"{torch.cuda.get_device_name()}, torch {torch.__version__}")]


def _faiss() -> list[Finding]:
    try:
        import faiss
    except ImportError as error:
        return [Finding("faiss", "broken", str(error), "pip install --force-reinstall mvretrieval")]
    packages = [name for name in ("faiss-gpu", "faiss-cpu") if _is_installed(name)]
    gpus = f", {counted(faiss.get_num_gpus(), 'GPU')}" if hasattr(faiss, "get_num_gpus") else ""
    found = [Finding("faiss", "ok", f"{faiss.__version__} ({', '.join(packages)}){gpus}")]
    if len(packages) > 1:
        fix = "pip uninstall -y faiss-gpu faiss-cpu; pip install faiss-gpu (or faiss-cpu)"
        found.append(Finding("faiss packages", "broken", "faiss-gpu and faiss-cpu overwrite each other's files", fix))
    return found


def _vector_search() -> list[Finding]:
    """Whether vectors can be searched on a GPU; FAISS tries it in a subprocess."""
    try:
        reason = why_no_gpu()
    except ImportError:
        return []  # the check of FAISS says so
    if reason:
        return [Finding("vector search", "missing", f"on the CPU: {reason}")]
    kinds = "auto, exact and ivf" + (" and cagra" if has_cagra() else ", not cagra, which needs faiss-gpu-cuvs")
    return [Finding("vector search", "ok", f"on the GPU with --device cuda, for kinds {kinds}")]


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _bfloat16() -> list[Finding]:
    import torch

    from mvretrieval.encoders.device import cpu_bfloat16

    found = cpu_bfloat16()
    if found is None:
        return [Finding("cpu bfloat16", "missing", "neither AMX nor AVX512-BF16: encoders use float32")]
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    c, d = a.bfloat16(), b.bfloat16()
    ratio = _seconds(lambda: a @ b) / _seconds(lambda: c @ d)
    return [Finding("cpu bfloat16", "ok", f"{found}, matrix products {ratio:.1f} times as fast as in float32")]


def _seconds(work: Callable[[], object]) -> float:
    work()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return sorted(times)[2]


def _formats() -> list[Finding]:
    extras = (
        ("draco", "DracoPy", "Draco-compressed glTF"),
        ("fbx", "ufbx", "FBX files"),
        ("usd", "pxr", "USD and USDZ files"),
        ("cad", "cascadio", "STEP and IGES files"),
        ("timm", "timm", "DINOv2 and others"),
        ("train", "pytorch_metric_learning", "mvr train"),
        ("report", "sklearn", "mvr eval --report"),
        ("calibrate", "sklearn", "mvr calibrate"),
        ("parquet", "pyarrow", "mvr import of Parquet files"),
        ("serve", "fastapi", "mvr serve"),
        ("client", "httpx", "mvretrieval.Client, for a service"),
    )
    return [
        Finding(f"extra '{extra}'", "ok", what)
        if importlib.util.find_spec(module)
        else Finding(f"extra '{extra}'", "missing", what, f"pip install 'mvretrieval[{extra}]'")
        for extra, module, what in extras
    ]


def _encoders() -> list[Finding]:
    findings = []
    for record in ENCODERS:
        about = f"{record.role}, {record.dim}-d, {record.license}, trained on {record.trained_on}"
        name = parse_encoder(record.id)
        if name.family == "builtin":
            findings.append(Finding("weights", "ok", f"{record.id} {about}"))
            continue
        if name.file is not None:
            continue
        if _is_cached(record.id):
            findings.append(Finding("weights", "ok", f"{record.id} cached; {about}"))
        else:
            fix = f"mvr index things/ FOLDER --encoder {record.id}  (downloads them)"
            findings.append(Finding("weights", "missing", f"{record.id} not cached; {about}", fix))
    return findings


def _is_cached(encoder_id: str) -> bool:
    from mvretrieval.encoders.hub import hub_cached, url_cached

    name = parse_encoder(encoder_id)
    if name.family == "open_clip":
        import open_clip

        config = open_clip.get_pretrained_cfg(name.architecture, name.tag) or {}
        if config.get("hf_hub"):
            return hub_cached("/".join(str(config["hf_hub"]).strip("/").split("/")[:2]))
        return bool(config.get("url")) and url_cached(str(config["url"]))
    return hub_cached(f"timm/{name.architecture}")
