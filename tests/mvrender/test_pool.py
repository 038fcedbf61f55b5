"""The render pool: every file becomes one result, also if its worker crashes or hangs."""

from __future__ import annotations

import io
import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import trimesh
from error_codes import raises_code
from PIL import Image
from waiting import PATIENCE_S, wait_for

import mvrender
from mvrender.backends.raster import RasterRenderer
from mvrender.cameras import Rig, parse_rig
from mvrender.errors import FAILURE_CODES, BackendError, MeshError, RigError
from mvrender.jobs import Failed, Opened, Rendered, RenderJob, RenderSpec
from mvrender.loading import load
from mvrender.mesh import Limits, normalize
from mvrender.pool import RenderPool
from mvrender.wire import receive, send
from mvrender.worker import serve

RIG = parse_rig("ring:2@20")
SPEC = RenderSpec(rig=RIG, styles=("clay",), size=64)


@pytest.fixture(scope="module")
def one() -> Iterator[RenderPool]:
    """A pool of one worker, shared by the tests of this module."""
    with RenderPool(SPEC, n_workers=1) as pool:
        yield pool


@pytest.fixture
def box(tmp_path: Path) -> Path:
    return box_at(tmp_path / "box.stl")


def box_at(path: Path, *extents: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(trimesh.creation.box(extents or (1, 2, 3)).export(file_type="stl"))
    return path


def large_file(folder: Path, n_faces: int) -> Path:
    """Takes hundreds of megabytes to read."""
    path = folder / "large.obj"
    path.write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\n" + "f 1 2 3\nf 1 2 3 4\n" * (n_faces // 2))
    return path


def suspend(pool: RenderPool, path: Path, done: threading.Event | None = None) -> Callable[[Opened], bool]:
    """A `needs_views` that suspends the worker of `path`, which then never replies. No other worker may be busy."""

    def needs_views(opened: Opened) -> bool:
        if opened.job.path == path:
            (busy,) = (worker for worker in pool._workers if worker._lock.locked())
            assert busy._process is not None
            psutil.Process(busy._process.pid).suspend()
            if done:
                done.set()
        return True

    return needs_views


def is_running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def workers() -> list[psutil.Process]:
    """Worker processes of this process."""
    found = []
    for child in psutil.Process().children():
        try:
            if "mvrender.worker" in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
        except psutil.NoSuchProcess:
            pass
    return found


def worker_of(pool: RenderPool) -> psutil.Process:
    process = pool._workers[0]._process
    assert process is not None
    return psutil.Process(process.pid)


def images_of(result: Rendered | Failed) -> Any:
    assert isinstance(result, Rendered) and result.views is not None, result
    return result.views.images


def test_a_worker_renders_the_same_images_as_this_process(one: RenderPool, box: Path) -> None:
    result = one.render(RenderJob(box))
    loaded = load(box)
    here = RasterRenderer().render(normalize(loaded.mesh), RIG, ["clay"], 64)
    assert result.views is not None
    np.testing.assert_array_equal(result.views.images, here.images)
    np.testing.assert_array_equal(result.views.mask, here.mask)
    np.testing.assert_array_equal(result.views.cameras, here.cameras)
    opened = result.opened
    assert (opened.content_hash, opened.references, opened.up) == (loaded.content_hash, loaded.references, loaded.up)
    assert (opened.facts, opened.notes, opened.job) == (loaded.facts, loaded.mesh.notes, RenderJob(box))


def test_results_do_not_depend_on_the_order_of_files_or_the_number_of_workers(tmp_path: Path) -> None:
    paths = [box_at(tmp_path / f"{i}.stl", 1, 1 + i / 3, 2) for i in range(8)]
    paths += [tmp_path / "gone.stl", Path(tmp_path / "zero.obj")]
    paths[-1].touch()

    def run(n_workers: int, order: list[Path]) -> dict[Path, Any]:
        with RenderPool(SPEC, n_workers) as pool:
            results = list(pool.run(RenderJob(path) for path in order))
        assert len(results) == len(order)
        return {
            r.job.path if isinstance(r, Failed) else r.opened.job.path: r.code
            if isinstance(r, Failed)
            else images_of(r)
            for r in results
        }

    one_worker, two_workers = run(1, paths), run(2, paths[::-1])
    assert one_worker.keys() == two_workers.keys() == set(paths)
    for path in paths:
        np.testing.assert_array_equal(one_worker[path], two_workers[path])
    assert one_worker[paths[-2]] == "missing_file" and one_worker[paths[-1]] == "empty_file"
    assert not np.array_equal(one_worker[paths[0]], one_worker[paths[1]])


def test_views_that_are_not_needed_are_not_rendered(one: RenderPool, tmp_path: Path) -> None:
    paths = [box_at(tmp_path / f"{i}.stl", 1, 1, 1 + i) for i in range(4)]
    results = list(one.run((RenderJob(path) for path in paths), lambda opened: opened.job.path in paths[::2]))
    rendered = {r.opened.job.path: r.views is not None for r in results if isinstance(r, Rendered)}
    assert rendered == {path: path in paths[::2] for path in paths}


def test_a_job_sets_the_up_axis_and_the_root_of_references(one: RenderPool, tmp_path: Path) -> None:
    folder = tmp_path / "meshes"
    folder.mkdir()
    (folder / "a.obj").write_text("mtllib ../m.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nusemtl paint\nf 1 2 3\n")
    (tmp_path / "m.mtl").write_text("newmtl paint\nKd 1 0 0\n")
    inside = one.render(RenderJob(folder / "a.obj", up="+z")).opened
    assert inside.up == "+z" and inside.references == () and "outside" in inside.notes[0]
    wider = one.render(RenderJob(folder / "a.obj", root=tmp_path)).opened
    assert wider.up == "+y" and wider.references == (str(tmp_path / "m.mtl"),) and wider.notes == ()


def test_relative_paths_refer_to_the_callers_folder(
    one: RenderPool, box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(box.parent)
    assert one.render(RenderJob(Path("box.stl"), root=Path())).opened.job.path == Path("box.stl")


@pytest.mark.fresh_workers
@pytest.mark.parametrize("moment", ["while it works", "between two files"])
def test_a_killed_worker_fails_at_most_one_file(moment: str, one: RenderPool, box: Path) -> None:
    one.render(RenderJob(box))
    others = set(workers()) - {worker_of(one)}  # of other tests' collections

    def kill(_: Opened) -> bool:
        worker_of(one).kill()
        return True

    if moment == "while it works":
        (result,) = one.run([RenderJob(box)], kill)
        assert isinstance(result, Failed) and result.code == "renderer_crash" and "signal 9" in result.message
    else:
        kill_me = worker_of(one)
        kill_me.kill()
        kill_me.wait(PATIENCE_S)
    assert images_of(one.render(RenderJob(box))).any()
    assert len(set(workers()) - others) == 1


@pytest.mark.fresh_workers
def test_a_crash_is_not_explained_by_what_was_printed_about_another_file(
    one: RenderPool, box: Path, tmp_path: Path
) -> None:
    pytest.importorskip("cascadio")
    (tmp_path / "a.step").write_text("ISO-10303-21;")  # OpenCASCADE prints in colour what is wrong with it
    (unreadable,) = one.run([RenderJob(tmp_path / "a.step")])
    assert isinstance(unreadable, Failed) and unreadable.code == "unreadable"

    def kill(_: Opened) -> bool:
        worker_of(one).kill()
        return True

    (killed,) = one.run([RenderJob(box)], kill)
    assert isinstance(killed, Failed)
    assert killed.message == "the worker crashed (signal 9); the file is probably damaged"


def test_every_failure_leaves_the_worker_usable(one: RenderPool, box: Path, tmp_path: Path) -> None:
    one.render(RenderJob(box))
    before = worker_of(one)
    (tmp_path / "line.obj").write_text("v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n")
    (tmp_path / "nan.obj").write_text("v nan 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n")
    (tmp_path / "a.txt").touch()
    expected = {
        "line.obj": "nothing_visible",
        "nan.obj": "not_finite",
        "a.txt": "unknown_format",
        "b.stl": "missing_file",
    }
    for name, code in expected.items():
        with pytest.raises(MeshError) as error:
            one.render(RenderJob(tmp_path / name))
        assert error.value.code == code in FAILURE_CODES
        assert images_of(one.render(RenderJob(box))).any()
    assert worker_of(one) == before


@pytest.mark.fresh_workers
def test_a_file_that_exceeds_the_time_limit_fails_alone(
    box: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = box_at(tmp_path / "stuck.stl")

    def timer(limit_s: float, give_up: Callable[[], None]) -> threading.Timer:
        # Only the stuck files time out, however slow this machine is.
        return real_timer(limit_s if limit_s != 0.4 or next(is_stuck) else PATIENCE_S, give_up)

    real_timer, is_stuck = threading.Timer, iter([False, True, False])
    with RenderPool(replace(SPEC, limits=Limits(seconds=0.4)), n_workers=1) as pool:
        monkeypatch.setattr(threading, "Timer", timer)
        images = images_of(pool.render(RenderJob(box)))
        results = list(pool.run([RenderJob(stuck), RenderJob(box)], suspend(pool, stuck)))
    assert [r.code if isinstance(r, Failed) else "rendered" for r in results] == ["timeout", "rendered"]
    assert isinstance(results[0], Failed) and "0.4 s; raise --max-seconds" in results[0].message
    np.testing.assert_array_equal(images_of(results[1]), images)


@pytest.mark.fresh_workers
@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux only")
def test_a_file_that_exceeds_the_memory_limit_fails_alone(box: Path, tmp_path: Path) -> None:
    large = large_file(tmp_path, 1_000_000)
    with RenderPool(RenderSpec(rig=RIG, size=64, limits=Limits(memory_bytes=96 << 20)), n_workers=1) as pool:
        results = list(pool.run([RenderJob(box), RenderJob(large), RenderJob(box)]))
    codes = [r.code if isinstance(r, Failed) else "rendered" for r in results]
    assert codes[::2] == ["rendered", "rendered"] and codes[1] in ("out_of_memory", "renderer_crash")
    assert isinstance(results[1], Failed) and (codes[1] != "out_of_memory" or "--max-memory" in results[1].message)


def test_the_reply_to_an_interrupted_request_is_dropped(
    one: RenderPool, box: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = images_of(one.render(RenderJob(box)))
    # Interrupted while waiting for a reply, which must not be taken for the reply to the next file.
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("mvrender.worker_process.receive", raise_keyboard_interrupt)
        one.render(RenderJob(box_at(tmp_path / "other.stl", 3, 1, 1)))
    np.testing.assert_array_equal(images_of(one.render(RenderJob(box))), expected)


def raise_keyboard_interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_errors_of_the_callers_functions_are_raised(one: RenderPool, box: Path) -> None:
    def needs_views(_: Opened) -> bool:
        raise OSError("disk full")

    def jobs() -> Iterator[RenderJob]:
        yield RenderJob(box)
        raise ZeroDivisionError("oops")

    with pytest.raises(OSError, match="disk full"):
        list(one.run([RenderJob(box)], needs_views))
    with pytest.raises(ZeroDivisionError, match="oops"):
        list(one.run(jobs()))
    assert images_of(one.render(RenderJob(box))).any()


@pytest.mark.fresh_workers
def test_leaving_early_ends_all_workers(box: Path) -> None:
    n_taken = itertools.count()
    n_threads = threading.active_count()
    known = set(workers())
    with RenderPool(SPEC, n_workers=2) as pool:
        results = pool.run(RenderJob(box) for _ in n_taken)  # endless
        assert [images_of(result).shape for result in itertools.islice(results, 3)] == [(1, 2, 64, 64, 3)] * 3
        results.close()  # type: ignore[attr-defined]
        assert set(workers()) == known
        for thread in threading.enumerate():
            if isinstance(thread, threading.Timer):  # of a time limit: cancelled, it ends in a moment
                thread.join()
        assert threading.active_count() == n_threads
        assert next(n_taken) < 20  # files are not taken long before they are rendered
        assert images_of(pool.render(RenderJob(box))).any()
    assert set(workers()) == known


def test_leaving_early_does_not_wait_for_slow_files(box: Path, tmp_path: Path) -> None:
    stuck = box_at(tmp_path / "stuck.stl")
    limits = Limits(seconds=10 * PATIENCE_S)  # waiting for it would hang
    is_suspended = threading.Event()

    def jobs() -> Iterator[RenderJob]:
        yield RenderJob(stuck)
        assert is_suspended.wait(PATIENCE_S)
        yield RenderJob(box)

    with RenderPool(replace(SPEC, limits=limits), n_workers=2) as pool:
        results = pool.run(jobs(), suspend(pool, stuck, is_suspended))
        assert images_of(next(results)).any()  # the box: the other file never ends
        results.close()  # type: ignore[attr-defined]


def serve_here(monkeypatch: pytest.MonkeyPatch, *requests: dict[str, Any]) -> list[dict[str, Any]]:
    """The replies of a worker that runs in this process, whose priority and memory stay as they are."""
    monkeypatch.setattr("mvrender.worker.lower_priority", lambda: None)
    monkeypatch.setattr("mvrender.worker.limit_memory", lambda _: None)
    incoming, outgoing = io.BytesIO(), io.BytesIO()
    for request in requests:
        send(incoming, request)
    incoming.seek(0)
    serve(incoming, outgoing)
    outgoing.seek(0)
    return [receive(outgoing)[0] for _ in requests]


def open_request(rig: str = RIG.name, styles: tuple[str, ...] = ("clay",), size: int = 64) -> dict[str, Any]:
    limits = asdict(Limits())
    return {
        "op": "open",
        "backend": "raster",
        "rig": rig,
        "styles": styles,
        "size": size,
        "limits": limits,
        "strip_size": None,
    }


def load_and_render(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"op": "load", "path": str(path), "root": None, "up": None}, {"op": "render"}


def test_errors_of_a_renderer_become_a_failure_code(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Every renderer refuses this size.
    opened, loaded, rendered = serve_here(monkeypatch, open_request(size=10), *load_and_render(box))
    assert opened == {} and "facts" in loaded
    assert rendered["code"] in FAILURE_CODES and "size 10 " in rendered["message"]


def test_a_worker_accepts_another_specification(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = load_and_render(box)
    other = open_request("ring:3@20", ("clay", "depth"), 96)
    refused = open_request(styles=("wood",))  # the previous one stays
    replies = serve_here(monkeypatch, open_request(), *file, refused, *file, other, *file)
    assert replies[3]["code"] == "unknown_style"
    shapes = [replies[i]["shape"] for i in (2, 5, 8)]
    assert shapes == [[1, 2, 64, 64, 3], [1, 2, 64, 64, 3], [2, 3, 96, 96, 3]]


def test_messages_round_trip() -> None:
    stream = io.BytesIO()
    messages: list[tuple[dict[str, Any], bytes]] = [({}, b""), ({"path": os.fsdecode(b"\xff\n")}, b"\0\xff" * 1000)]
    for head, body in messages:
        send(stream, head, body)
    stream.seek(0)
    assert [receive(stream) for _ in messages] == messages
    for cut in (0, 5, 20, len(stream.getvalue()) - 1):
        short = io.BytesIO(stream.getvalue()[:cut])
        with pytest.raises(EOFError):
            for _ in messages:
                receive(short)


def test_a_run_without_jobs_is_empty(one: RenderPool) -> None:
    assert list(one.run([])) == []


def test_strips_hold_all_views_of_the_first_style(box: Path) -> None:
    spec = RenderSpec(rig=parse_rig("ring:5@20"), styles=("clay", "silhouette"), size=96, strip_size=32)
    with RenderPool(spec, n_workers=1) as pool:
        result = pool.render(RenderJob(box))
    strip = Image.open(io.BytesIO(result.strip))
    assert (strip.format, strip.size) == ("WEBP", (5 * 32, 32))
    pixels = np.asarray(strip.convert("RGB")).astype(int)
    for view, image in enumerate(images_of(result)[0]):
        small = np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BOX))
        assert np.abs(pixels[:, 32 * view : 32 * view + 32] - small).mean() < 4


@pytest.mark.fresh_workers
def test_a_backend_that_cannot_start_raises(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLCONTEXT_DEVICE_INDEX", "31")
    with RenderPool(RenderSpec(rig=RIG, size=64, backend="gl"), n_workers=1) as pool:
        with pytest.raises(BackendError) as single:
            pool.render(RenderJob(box))
        with pytest.raises(BackendError) as several:
            list(pool.run(RenderJob(box) for _ in range(5)))
    assert single.value.code == several.value.code in ("no_opengl", "backend_not_installed")


@pytest.mark.fresh_workers
def test_a_worker_that_exits_at_once_raises_its_last_output(
    box: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os\nos.write(2, b'no luck')\nos._exit(3)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with (
        RenderPool(SPEC, n_workers=1) as pool,
        raises_code(BackendError, "worker_start_failed", "'raster'", "exit code 3): no luck"),
    ):
        pool.render(RenderJob(box))


def test_invalid_specs_are_refused_before_the_first_file() -> None:
    with raises_code(RigError, "bad_view_size", "32"):
        RenderPool(RenderSpec(size=32))
    with raises_code(RigError, "bad_worker_count", "0"):
        RenderPool(RenderSpec(), n_workers=0)
    with raises_code(RigError, "rig_mismatch", "'cube'"):
        RenderPool(RenderSpec(rig=Rig("cube", RIG.directions)))
    with raises_code(RigError, "unknown_rig", "'mine'"):
        RenderPool(RenderSpec(rig=Rig("mine", RIG.directions)))
    wooden = RenderSpec(rig=RIG, size=64, styles=("wood",))  # type: ignore[arg-type]
    with RenderPool(wooden, n_workers=1) as pool, raises_code(BackendError, "unknown_style", "'wood'"):
        pool.render(RenderJob(Path("a.stl")))


@pytest.mark.parametrize(
    "name",
    [
        b"a b.stl",
        b" .stl",
        b"line\nbreak\t\r.stl",
        "Stuhl-grün-椅子-🪑.stl".encode(),
        b"\xff\xfe.stl",
        b"'\"$(touch x);%20#?&.stl",
        b"-rf.stl",
        b"a" * 240 + b".stl",
    ],
)
def test_unusual_file_names_work(name: bytes, one: RenderPool, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(name)
    try:
        box_at(path)
    except OSError as error:
        pytest.skip(f"this file system has no such names: {error}")
    result = one.render(RenderJob(path))
    assert images_of(result).any() and result.opened.job.path == path
    with raises_code(MeshError, "missing_file"):
        one.render(RenderJob(path.with_name("no" + path.name)))


def test_unusual_names_of_textures_work(one: RenderPool, tmp_path: Path) -> None:
    path = tmp_path / "a.obj"
    path.write_text("mtllib m.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nusemtl p\nf 1/1 2/2 3/3\n")
    (tmp_path / "m.mtl").write_text("newmtl p\nmap_Kd t.png\n")
    real = tmp_path / os.fsdecode(b"\xff.png")
    try:
        Image.new("RGB", (2, 2)).save(real, "PNG")
    except OSError as error:
        pytest.skip(f"this file system has no such names: {error}")
    (tmp_path / "t.png").symlink_to(real)
    opened = one.render(RenderJob(path)).opened
    assert opened.facts["textured"] and str(real) in opened.references


def test_impossible_file_names_fail_with_a_code(one: RenderPool, box: Path) -> None:
    for name, code in (("nul\0.stl", "bad_name"), ("a" * 300 + ".stl", "unreadable")):
        with pytest.raises(MeshError) as error:
            one.render(RenderJob(box.with_name(name)))
        assert error.value.code == code
    assert images_of(one.render(RenderJob(box))).any()


SCRIPT = """\
import sys
from pathlib import Path
sys.path.insert(0, {package!r})
from mvrender import Failed, RenderJob, RenderPool, RenderSpec, parse_rig
spec = RenderSpec(rig=parse_rig("ring:2@20"), size=64)
with RenderPool(spec, n_workers=2) as pool:
    for result in pool.run([RenderJob(Path("box.stl")), RenderJob(Path("gone.stl"))]):
        print(result.code if isinstance(result, Failed) else result.views.images.shape)
"""


def test_a_script_without_main_guard_in_a_folder_with_modules_of_library_names(tmp_path: Path) -> None:
    """Workers import the libraries, and not the modules of the working folder with the same names."""
    here = tmp_path / "work"
    box_at(here / "box.stl")
    for name in ("numpy", "trimesh", "render", "mvrender", "numba", "json", "PIL"):
        (here / f"{name}.py").write_text(
            f"open('trapped', 'w')\nraise SystemExit('{name}.py of the working folder ran')\n"
        )
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(package=str(Path(mvrender.__file__).parent.parent)))
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, str(script)], cwd=here, env=environment, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["(1, 2, 64, 64, 3)", "missing_file"]
    assert done.stderr == "" and not (here / "trapped").exists()


def test_workers_end_when_their_parent_does(box: Path, tmp_path: Path) -> None:
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom mvrender import RenderJob, RenderPool, RenderSpec, parse_rig\n"
        "pool = RenderPool(RenderSpec(rig=parse_rig('ring:2@20'), size=64), n_workers=2)\n"
        "pool.warm_up()\npool.render(RenderJob(Path(sys.argv[1])))\n"
        "print(*(worker._process.pid for worker in pool._workers), flush=True)\nos.kill(os.getpid(), 9)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(mvrender.__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, "-c", script, str(box)], env=environment, capture_output=True, text=True, timeout=PATIENCE_S
    )
    pids = [int(word) for word in done.stdout.split()]
    assert len(pids) == 2, done.stderr
    wait_for(lambda: not any(map(is_running, pids)))


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel does not signal that a pipe was closed")
def test_a_worker_that_hangs_ends_when_its_parent_does(tmp_path: Path) -> None:
    # Importing numba never ends, and does not let other threads of the worker run: like a file without end.
    (tmp_path / "numba").mkdir()
    (tmp_path / "numba" / "__init__.py").write_text(
        "import os, pathlib, re\npathlib.Path(os.environ['STARTED']).touch()\nre.match('(a+)+$', 'a' * 60 + 'b')\n"
    )
    script = (
        "import os, sys, time\nfrom pathlib import Path\nfrom mvrender import RenderPool, RenderSpec, parse_rig\n"
        "pool = RenderPool(RenderSpec(rig=parse_rig('ring:2@20'), size=64), n_workers=1)\npool.warm_up()\n"
        "while not Path(os.environ['STARTED']).exists():\n    time.sleep(0.02)\n"
        "print(pool._workers[0].pid, flush=True)\nos.kill(os.getpid(), 9)\n"
    )
    paths = os.pathsep.join((str(tmp_path), str(Path(mvrender.__file__).parent.parent)))
    environment = {**os.environ, "PYTHONPATH": paths, "STARTED": str(tmp_path / "started")}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.stdout, done.stderr
    wait_for(lambda: not is_running(int(done.stdout)))


def test_a_worker_has_a_limit_of_processor_time() -> None:
    script = (
        "import resource\nfrom mvrender.worker import limit_cpu\nlimit_cpu(0.1)\n"
        "print(resource.getrlimit(resource.RLIMIT_CPU)[0], flush=True)\nwhile True:\n    pass\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(mvrender.__file__).parent.parent)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == -signal.SIGXCPU and int(done.stdout) <= 4


@pytest.mark.slow
def test_ten_million_faces_within_the_default_limits(tmp_path: Path) -> None:
    side = 2238
    across, down = np.meshgrid(np.linspace(0, 2 * np.pi, side), np.linspace(0, np.pi, side))
    radius = 1 + 0.05 * np.sin(40 * across) * np.sin(40 * down)
    ball = np.stack([np.sin(down) * np.cos(across), np.sin(down) * np.sin(across), np.cos(down)], axis=-1)
    points = (ball * radius[..., None]).astype(np.float32)
    a, b, c, d = points[:-1, :-1], points[1:, :-1], points[1:, 1:], points[:-1, 1:]
    triangles = np.stack([np.stack([a, b, c], axis=2), np.stack([a, c, d], axis=2)]).reshape(-1, 3, 3)[:10_000_000]
    rows = np.zeros(len(triangles), [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    rows["corners"] = triangles
    path = tmp_path / "big.stl"
    with path.open("wb") as file:
        file.write(bytes(80) + len(rows).to_bytes(4, "little"))
        rows.tofile(file)
    assert len(rows) == 10_000_000
    with RenderPool(RenderSpec(limits=Limits()), n_workers=1) as pool:
        result = pool.render(RenderJob(path))
    assert result.opened.facts["faces"] == 10_000_000 and result.views is not None and result.views.mask.all()


@pytest.mark.fresh_workers
def test_a_renderer_that_hangs_while_it_starts_times_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Importing numba hangs, like loading a broken driver.
    (tmp_path / "numba").mkdir()
    (tmp_path / "numba" / "__init__.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setattr("mvrender.worker_process._START_TIMEOUT_S", 2.0)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with (
        RenderPool(RenderSpec(size=64), 1) as pool,
        raises_code(BackendError, "worker_start_timeout", "2 s", "mvr doctor"),
    ):
        pool.render(RenderJob(tmp_path / "any.glb"))


def test_threads_may_share_a_pool(tmp_path: Path) -> None:
    boxes = [box_at(tmp_path / f"{i}.stl", 1, 1 + i, 2) for i in range(4)]
    with RenderPool(SPEC, n_workers=1) as pool:
        expected = [images_of(pool.render(RenderJob(box))) for box in boxes]
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda box: images_of(pool.render(RenderJob(box))), boxes * 3))
    for i, images in enumerate(found):
        np.testing.assert_array_equal(images, expected[i % 4])


@pytest.mark.fresh_workers
def test_concurrent_starts_of_a_worker_start_one_process(box: Path) -> None:
    before = set(psutil.Process().children())

    def warm_up_and_render(_: int) -> int:
        pool.warm_up()
        pool.render(RenderJob(box))
        return len(set(psutil.Process().children()) - before)

    with RenderPool(SPEC, n_workers=1) as pool, ThreadPoolExecutor(6) as threads:
        assert set(threads.map(warm_up_and_render, range(6))) == {1}
    assert set(psutil.Process().children()) == before


@pytest.mark.fresh_workers
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="niceness as Linux counts it")
def test_a_worker_lowers_its_priority_after_compilation(
    box: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    before = set(psutil.Process().children())
    with RenderPool(SPEC, n_workers=1) as pool:
        pool.warm_up()
        (worker,) = set(psutil.Process().children()) - before
        own = psutil.Process().nice()
        wait_for(lambda: list(tmp_path.rglob("*.nbc")))  # it compiles
        assert worker.nice() == own
        pool.render(RenderJob(box))
        assert worker.nice() == min(19, own + 10)


def test_strips_of_many_views_stay_within_the_limit_of_webp(box: Path) -> None:
    spec = RenderSpec(rig=parse_rig("sphere:200"), size=64, strip_size=112)
    with RenderPool(spec, 1) as pool, Image.open(io.BytesIO(pool.render(RenderJob(box)).strip)) as strip:
        assert strip.height == 16383 // 200 and strip.width == 200 * strip.height
