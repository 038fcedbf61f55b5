"""One small collection for all tests that only read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_meshes import SMALL, write_shapes

from mvretrieval.api import Collection, OpenOptions


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of twelve meshes; not to be changed."""
    folder = tmp_path_factory.mktemp("shapes")
    write_shapes(folder, range(12))
    return folder


@pytest.fixture(scope="session")
def things(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> Iterator[Collection]:
    """Collection of `shapes`, labeled by kind; not to be changed."""
    labels = tmp_path_factory.mktemp("labels") / "labels.csv"
    kinds = ["box", "ball", "cone", "ring"]
    rows = [f"{os.path.relpath(shapes, labels.parent)}/shape-{n:03d}.ply,{kinds[n % 4]},{n}" for n in range(12)]
    labels.write_text("\n".join(["file,label,n", *rows]))
    with small_collection(tmp_path_factory.mktemp("things") / "c") as collection:
        from mvretrieval.ingest.index_report import IndexOptions

        collection.add_folder(shapes, options=IndexOptions(labels=labels))
        yield collection


def small_collection(folder: Path) -> Collection:
    return Collection.create(folder, SMALL, OpenOptions(workers=1))


@pytest.fixture
def collection(tmp_path: Path) -> Iterator[Collection]:
    """An empty collection of one's own."""
    collection = small_collection(tmp_path / "collection")
    yield collection
    collection.session.release()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The data sets that are not part of the project."""
    folder = Path(os.environ.get("MVR_SHARED", Path(__file__).parents[3] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}; MVR_SHARED says where they are")
    return folder
