"""The web page in a real browser, over a real service."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from made_meshes import SMALL, shape, write_shapes
from serving import served
from tiny_clip import tiny_clip
from waiting import wait_for

from mvretrieval import import_vectors
from mvretrieval.api import Collection, OpenOptions
from mvretrieval.describe import DescriberConfig
from mvretrieval.search.options import SearchOptions
from mvretrieval.search.pipeline import search
from mvretrieval.search.query import Query
from mvretrieval.store.filters import parse_where

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
pytest.importorskip("fastapi", reason="the service is not installed: pip install 'mvretrieval[serve]'")

from mvretrieval.service import app as service  # noqa: E402
from mvretrieval.service.settings import ServiceSettings  # noqa: E402

CHROMIUM = Path("/usr/bin/chromium")
TIMEOUT_MS = 120_000  # far more than any step takes, so that a busy machine does not reach it
QUIET = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
SOFTWARE_GL = [
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]  # slow: for tests of the 3D view only
NO_GL = ["--disable-3d-apis"]
VIEWER = service.PAGE / "vendor" / "model-viewer.min.js"
REFUSED = "Failed to load resource"  # in the console of a browser for each HTTP error
expect = playwright.expect
expect.set_options(timeout=TIMEOUT_MS)
# Playwright cannot read the body of a request with files.
RECORD_QUERIES = """
    const { fetch } = self;
    self.queries = [];
    self.fetch = (path, options) => {
        if (String(path).startsWith("/api/search")) self.queries.push(options.body.get?.("query") ?? options.body);
        return fetch(path, options);
    };
"""

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser: {CHROMIUM} is missing")


@pytest.fixture(scope="module")
def browsers() -> Iterator[Any]:
    """Opens a browser with arguments of its own, or the same again."""
    with playwright.sync_playwright() as started:
        opened: dict[tuple[str, ...], Any] = {}

        def browser(*arguments: str) -> Any:
            if arguments not in opened:
                opened[arguments] = started.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, *arguments])
            return opened[arguments]

        yield browser
        for each in opened.values():
            each.close()


class Visit:
    """One tab, its requests and its errors."""

    def __init__(self, page: Any, address: str) -> None:
        self.page, self.address = page, address
        self.errors: list[str] = []
        self.requests: list[Any] = []
        page.add_init_script(RECORD_QUERIES)
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(f"uncaught: {error}"))
        page.on("request", lambda request: self.requests.append(request))

    def outside(self) -> list[str]:
        """Requested URLs outside the service."""
        return [
            request.url for request in self.requests if not request.url.startswith((self.address, "blob:", "data:"))
        ]

    def queries(self) -> list[dict[str, Any]]:
        """The queries that were sent since the page was loaded."""
        return [json.loads(text) for text in self.page.evaluate("self.queries ?? []")]


@pytest.fixture
def visit(browsers: Any) -> Iterator[Any]:
    """Opens pages; afterwards checks that they made no requests elsewhere and had no errors but refused requests."""
    contexts, visits = [], []

    def open_page(address: str, path: str = "/", in_3d: bool = False, **context: Any) -> Visit:
        browser = browsers(*SOFTWARE_GL) if in_3d else browsers(*NO_GL)
        contexts.append(browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **context}))
        contexts[-1].set_default_timeout(TIMEOUT_MS)
        visits.append(Visit(contexts[-1].new_page(), address))
        visits[-1].page.goto(address + path)
        return visits[-1]

    yield open_page
    for opened in visits:
        assert opened.outside() == []
        assert [text for text in opened.errors if REFUSED not in text] == []
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def address(things: Collection) -> Iterator[str]:
    """Twelve labeled shapes, read-only."""
    with served(things) as found:
        yield found


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> Iterator[str]:
    """The same shapes with an encoder that has a text tower."""
    encoder = tiny_clip(tmp_path_factory.mktemp("clip"))
    folder = tmp_path_factory.mktemp("reading") / "c"
    with Collection.create(
        folder, DescriberConfig(encoder=encoder, rig="ring:3@30", size=64), OpenOptions(workers=1)
    ) as made:
        made.add_folder(shapes)
        with served(made) as found:
            yield found


@pytest.fixture(scope="module")
def own_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection of some shapes and two invalid files, to be copied."""
    meshes = tmp_path_factory.mktemp("own")
    write_shapes(meshes / "parts", range(5))
    (meshes / "empty.obj").write_text("# nothing\n")
    (meshes / "<img src=x onerror=alert(1)>.ply").write_bytes((meshes / "parts" / "shape-000.ply").read_bytes()[:40])
    shape(7).export(meshes / "<b>bold.ply")
    folder = tmp_path_factory.mktemp("template") / "c"
    with Collection.create(folder, SMALL, OpenOptions(workers=1)) as made:
        made.add_folder(meshes)
    return folder


@pytest.fixture
def own(own_template: Path, tmp_path: Path) -> Iterator[Collection]:
    """A copy of the template, to be changed by one test."""
    shutil.copytree(own_template, tmp_path / "own-collection")
    with Collection.open(tmp_path / "own-collection", OpenOptions(workers=1, concurrent=True), write=True) as opened:
        yield opened


@pytest.fixture
def writable(own: Collection) -> Iterator[str]:
    with served(own, ServiceSettings(token="secret")) as url:
        yield url


def drop(page: Any, *paths: Path, how: str = "drop") -> None:
    """Drop or paste files."""
    files = [(path.name, base64.b64encode(path.read_bytes()).decode()) for path in paths]
    page.evaluate(
        """([files, how]) => {
            const transfer = new DataTransfer();
            for (const [name, data] of files) {
                const type = name.endsWith(".png") ? "image/png" : "";
                transfer.items.add(new File([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], name, { type }));
            }
            const options = { bubbles: true, cancelable: true };
            document.body.dispatchEvent(how === "drop"
                ? new DragEvent("drop", { ...options, dataTransfer: transfer })
                : new ClipboardEvent("paste", { ...options, clipboardData: transfer }));
        }""",
        [files, how],
    )


def names(page: Any) -> list[str]:
    found: list[str] = page.locator("#grid .name").all_inner_texts()
    return found


def is_narrow(page: Any) -> bool:
    """Nothing is wider than the screen."""
    found: bool = page.evaluate(
        "[document.documentElement, ...document.querySelectorAll('dialog[open]')].every((e) => e.scrollWidth <= e.clientWidth)"
    )
    return found


def test_text_with_minus_and_weights_is_part_of_the_address(visit: Any, reading: str) -> None:
    page = (tab := visit(reading)).page
    expect(page.locator("#grid .card")).to_have_count(12)
    page.fill("#text", "a red box -round")
    expect(page.locator(".term")).to_have_count(2)
    page.get_by_label("Weight of ‘a red box’").fill("1.5")
    page.press("#text", "Enter")
    expect(page.locator("#status")).to_contain_text("12 of 12 objects")
    terms = [{"text": "a red box", "weight": 1.5}, {"text": "round", "weight": -0.5}]
    assert tab.queries()[-1]["terms"] == terms
    first = names(page)
    again = visit(reading, page.url.removeprefix(reading))
    expect(again.page.locator("#status")).to_contain_text("12 of 12 objects")
    assert again.page.input_value("#text") == "a red box -round" and names(again.page) == first
    assert again.queries() == [{**tab.queries()[-1], "terms": terms}]
    page.get_by_role("button", name="Not like ‘round’").click()
    expect(page.get_by_label("Weight of ‘round’")).to_have_value("1")
    assert page.input_value("#text") == 'a red box "round"'
    page.go_back()
    expect(page.locator(".term.minus")).to_have_count(1)


def test_text_terms_survive_formatting_and_parsing(visit: Any, address: str) -> None:
    """Terms written into the search box and parsed again are the same."""
    terms = [
        [
            {"text": "office chair", "minus": False},
            {"text": "wooden", "minus": True},
            {"text": "with arms", "minus": True},
        ],
        [{"text": "T-shirt", "minus": False}, {"text": "red thing", "minus": False}],
        [{"text": "-5 degrees", "minus": False}, {"text": "stuhl für größe", "minus": True}],
    ]
    found = visit(address).page.evaluate(
        """async (all) => {
            const { formatText, parseText } = await import('/page/query_text.js');
            return all.map((terms) => parseText(formatText(terms)));
        }""",
        terms,
    )
    assert found == terms


def test_filter_conditions_parse_on_the_service(visit: Any, address: str) -> None:
    columns = ["kind", "price (EUR)", "not", 'a "b"', "größe"]
    conditions = [
        (column, operator, value)
        for column in columns
        for operator in ("=", "!=", "like", "<", "<=", ">", ">=", "is null", "is not null")
        for value in ("chair", "it's", "-3.5", "100%")
    ]
    made = visit(address).page.evaluate(
        "async (all) => { const { conditionOf } = await import('/page/filters.js'); return all.map((c) => conditionOf(...c)); }",
        conditions,
    )
    known = {column: f"c{i}" for i, column in enumerate(columns)}
    for (column, operator, value), text in zip(conditions, made, strict=True):
        condition = parse_where(text, known)
        assert condition.sql.startswith(known[column])
        wanted = (
            ()
            if "null" in operator
            else (f"%{value}%",)
            if operator == "like"
            else (-3.5,)
            if value == "-3.5"
            else (value,)
        )
        assert condition.parameters == wanted


def test_search_with_images_a_sketch_and_a_mesh(visit: Any, address: str, shapes: Path, tmp_path: Path) -> None:
    page = (tab := visit(address)).page
    expect(page.locator("#grid .card")).to_have_count(12)
    for view in range(2):
        page.locator("#grid img").nth(view).screenshot(path=tmp_path / f"{view}.png")
    page.set_input_files("#files", [tmp_path / "0.png", tmp_path / "1.png"])
    expect(page.locator(".term-name")).to_have_text("2 images of one object")
    expect(page.locator("#status")).to_contain_text("12 of 12")
    page.get_by_role("button", name="Draw").click()
    canvas = page.get_by_label("Drawing pad").bounding_box()
    expect(page.get_by_role("button", name="Search with the sketch")).to_be_disabled()
    for offset in (60, 120):
        page.mouse.move(canvas["x"] + offset, canvas["y"] + 60)
        page.mouse.down()
        page.mouse.move(canvas["x"] + 200, canvas["y"] + 200, steps=4)
        page.mouse.up()
    page.get_by_role("button", name="Undo").click()
    page.get_by_role("button", name="Search with the sketch").click()
    expect(page.locator(".term-name")).to_have_text(["2 images of one object", "sketch"])
    drop(page, shapes / "shape-003.ply")
    expect(page.locator(".term-name")).to_have_text(["2 images of one object", "sketch", "shape-003.ply"])
    page.get_by_role("button", name="Not like sketch").click()
    page.get_by_role("button", name="Separate").click()
    expect(page.locator(".term")).to_have_count(4)
    expect(page.locator("#results")).to_have_attribute("aria-busy", "false")
    assert tab.queries()[-1]["terms"] == [
        {"images": ["0.png"], "weight": 1}, {"images": ["1.png"], "weight": 1},
        {"images": ["sketch.png"], "weight": -0.5}, {"mesh": "shape-003.ply", "weight": 1},
    ]  # fmt: skip
    page.locator("#grid .card").first.click()
    expect(page.locator(".match figcaption")).to_have_text(["Query: 0.png", re.compile("Hit: from")])
    assert page.locator(".match img").first.evaluate("(image) => image.naturalWidth") > 0
    # Images are not part of the address, but the history of the page keeps them.
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Remove shape-003.ply from the query").click()
    expect(page.locator(".term")).to_have_count(3)
    page.go_back()
    expect(page.locator(".term")).to_have_count(4)
    page.reload()
    expect(page.locator("#status")).to_contain_text("drop them again")


def test_an_image_is_pasted_and_other_files_are_refused(visit: Any, address: str, tmp_path: Path) -> None:
    page = visit(address).page
    page.locator("#grid img").nth(3).screenshot(path=tmp_path / "image.png")
    drop(page, tmp_path / "image.png", how="paste")
    expect(page.locator(".term-name")).to_have_text("image.png")
    (tmp_path / "notes.txt").write_text("nothing")
    drop(page, tmp_path / "notes.txt")
    expect(page.locator("#problem")).to_contain_text("notes.txt: neither an image nor a mesh.")
    (tmp_path / "broken.png").write_bytes(b"not an image")
    drop(page, tmp_path / "broken.png")
    expect(page.locator("#problem")).to_have_text(re.compile("^broken.png is not an image"))
    expect(page.locator(".term .suffix")).to_have_text("png")


@pytest.mark.skipif(not VIEWER.exists(), reason=f"the 3D viewer was not fetched: {VIEWER}")
def test_a_hit_is_rotated_in_3d(visit: Any, address: str, shapes: Path) -> None:
    page = (tab := visit(address, in_3d=True, viewport={"width": 400, "height": 400})).page
    page.locator("#grid .card").nth(3).hover()
    assert not any("vendor" in request.url for request in tab.requests)
    page.get_by_role("button", name="More like shape-003.ply").click()
    expect(page.locator("#grid .card")).to_have_count(11)
    page.locator("#grid .card").first.click()
    expect(page.locator(".viewer.loaded model-viewer")).to_be_visible()
    orbit = "document.querySelector('model-viewer').getCameraOrbit().theta"
    before = page.evaluate(orbit)
    at = page.locator(".viewer").bounding_box()
    page.mouse.move(at["x"] + 100, at["y"] + 100)
    page.mouse.down()
    page.mouse.move(at["x"] + 200, at["y"] + 100, steps=3)
    page.mouse.up()
    wait_for(lambda: abs(page.evaluate(orbit) - before) > 0.1)
    page.get_by_role("button", name="Reset view").click()
    wait_for(lambda: abs(page.evaluate(orbit) - before) < 0.01)
    expect(page.locator(".facts").first).to_contain_text("Formatply")
    expect(page.locator(".match img")).to_have_count(2)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download GLB").click()
    assert download.value.path().read_bytes()[:4] == b"glTF"
    page.get_by_role("button", name="Not like this").click()
    expect(page.locator(".term.minus")).to_have_count(1)
    expect(page.locator("#grid .card")).to_have_count(10)


def test_without_the_3d_viewer_stored_views_are_shown(visit: Any, address: str) -> None:
    page = visit(address, "/page/icon.svg", in_3d=True).page
    page.route("**/vendor/*", lambda route: route.fulfill(status=404))
    page.goto(f"{address}/#open=shape-002.ply")
    views = page.get_by_role("slider", name="Views of shape-002.ply")
    expect(views).to_have_attribute("aria-valuemax", "3")
    expect(page.locator(".viewer-status")).to_contain_text(
        "The 3D viewer is not installed with this service. Drag left or right"
    )
    at = views.bounding_box()
    page.mouse.move(at["x"] + 200, at["y"] + 100)
    page.mouse.down()
    page.mouse.move(at["x"] + 200 - at["width"] / 3, at["y"] + 100, steps=3)
    page.mouse.up()
    expect(views).to_have_attribute("aria-valuenow", "2")
    views.press("ArrowLeft")
    views.press("ArrowLeft")
    expect(views).to_have_attribute("aria-valuenow", "3")


def test_an_object_has_an_address(visit: Any, address: str) -> None:
    page = visit(address, "/#open=shape-002.ply").page
    expect(page.get_by_role("dialog", name="shape-002.ply")).to_contain_text("labelcone")
    page.keyboard.press("Escape")
    expect(page).to_have_url(re.compile("#$"))
    page.locator("#grid .card").nth(1).click()
    expect(page).to_have_url(re.compile("#open=shape-001.ply$"))
    page.go_back()
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.go_forward()
    expect(page.get_by_role("dialog", name="shape-001.ply")).to_be_visible()
    page.goto(f"{address}/#open=shape-999.ply")
    expect(page.locator("#problem")).to_contain_text("shape-999.ply")


def test_filters_are_built_or_typed(visit: Any, address: str) -> None:
    page = visit(address).page
    page.locator("#filter summary").click()
    page.get_by_label("Label or fact").select_option("label")
    page.get_by_label("Value", exact=True).fill("ring")
    page.get_by_role("button", name="Add condition").click()
    expect(page.locator("#grid .card")).to_have_count(3)
    page.get_by_label("Label or fact").select_option("n")
    page.get_by_label("Comparison").select_option(">=")
    page.get_by_label("Value", exact=True).fill("7")
    page.get_by_label("Value", exact=True).press("Enter")
    expect(page.get_by_label("Filter expression")).to_have_value("label = 'ring' and n >= 7")
    expect(page.locator("#grid .name")).to_have_text(["shape-007.ply", "shape-011.ply"])
    page.get_by_label("Filter expression").fill("label = ")
    page.get_by_label("Filter expression").press("Enter")
    expect(page.get_by_role("alert").first).to_have_text(
        re.compile(r"^Cannot parse the filter at its end: label = \. .*\.$")
    )
    expect(page.locator("#grid .card")).to_have_count(0)
    page.go_back()
    expect(page.locator("#grid .card")).to_have_count(2)
    page.get_by_role("button", name="Clear filter").click()
    expect(page.locator("#grid .card")).to_have_count(12)


def test_text_for_an_encoder_without_text_tower(visit: Any, address: str) -> None:
    page = (tab := visit(address)).page
    page.fill("#text", "shape-01")
    page.press("#text", "Enter")
    notice = page.locator("#notice")
    expect(notice).to_contain_text("This collection's encoder has no text tower.")
    expect(notice).to_contain_text("mvr reindex c --encoder open_clip:")
    notice.get_by_role("button").click()
    expect(page.locator("#grid .name")).to_have_text(["shape-010.ply", "shape-011.ply"])
    assert tab.queries() == []


def test_imported_vectors_have_no_images_and_no_encoder(visit: Any, tmp_path: Path) -> None:
    angles = np.arange(12) * 0.1
    ids = [f"parts/{i:02d}" for i in range(12)]
    import_vectors(tmp_path / "c", ids, np.stack([np.cos(angles), np.sin(angles)], axis=1), {"angle": angles})
    with Collection.open(tmp_path / "c", write=True) as made, served(made, ServiceSettings(token="secret")) as url:
        page = (tab := visit(url)).page
        expect(page.locator("#about")).to_have_text("12 objects, imported vectors")
        expect(page.locator("#grid .card")).to_have_count(12)
        expect(page.locator("#grid img:visible, #pick:visible, #draw:visible, #add-button:visible")).to_have_count(0)
        page.get_by_role("button", name="More like 03").click()
        expect(page.locator("#grid .name").first).to_have_text(re.compile("0[24]"))
        page.locator("#grid .card").first.click()
        facts = page.locator("#hit .facts").first
        expect(facts).to_contain_text("vectors")
        expect(page.locator("#hit")).to_contain_text("angle")
        expect(page.locator("#hit img:visible, #hit .viewer, #hit :text('Download')")).to_have_count(0)
        expect(page.locator("#hit")).not_to_contain_text("vector:")
        page.keyboard.press("Escape")
        page.fill("#text", "s/1")
        page.press("#text", "Enter")
        expect(page.locator("#grid .name")).to_have_text(["10", "11"])
        assert not [r.url for r in tab.requests if re.search("/api/(thumbnails|strips|models)/", r.url)]


def test_more_results_and_search_options(visit: Any, address: str) -> None:
    page = (tab := visit(address, "/#k=5")).page
    expect(page.locator("#grid .card")).to_have_count(5)
    page.get_by_role("button", name="Show more").click()
    expect(page.locator("#grid .card")).to_have_count(10)
    page.locator("#grid .card").first.focus()
    page.get_by_role("button", name="More like shape-000.ply").click()
    expect(page.locator("#grid .card")).to_have_count(5)
    page.get_by_role("button", name="Show more").click()
    expect(page.locator("#grid .card")).to_have_count(10)
    assert len(set(names(page))) == 10
    page.locator("#options summary").click()
    page.get_by_label("Re-rank by views").fill("4")
    page.get_by_label("Re-rank by views").press("Enter")
    expect(page.locator("#options summary")).to_have_text("Options (2 set)")
    page.get_by_label("Up axis of mesh files").select_option("+z")
    expect(page).to_have_url(re.compile("k=5&rerank=4&up=%2Bz"))
    assert (tab.queries()[-1]["rerank_views"], tab.queries()[-1]["up"], tab.queries()[-1]["k"]) == (4, "+z", 5)


def test_the_keyboard_is_enough(visit: Any, address: str) -> None:
    page = visit(address).page
    expect(page.locator("#grid .card")).to_have_count(12)
    page.keyboard.press("/")
    expect(page.locator("#text")).to_be_focused()
    page.locator("#grid .card").first.focus()
    for key, at in (("ArrowRight", 1), ("ArrowDown", 9), ("ArrowUp", 1), ("End", 11), ("Home", 0)):
        page.keyboard.press(key)
        expect(page.locator("#grid .card").nth(at)).to_be_focused()
    assert page.locator("#grid [tabindex='0']").count() == 2
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog", name="shape-000.ply")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.locator("#grid .card").first).to_be_focused()
    unnamed = page.locator("button:visible, input:visible, select:visible, img:visible").evaluate_all(
        "(all) => all.filter((e) => !e.ariaLabel && !e.labels?.length && !e.textContent && !e.hasAttribute('alt')).map((e) => e.id)"
    )
    assert unnamed == []


def test_objects_are_added_labeled_and_deleted_with_the_token(visit: Any, writable: str, tmp_path: Path) -> None:
    page = visit(writable).page
    page.get_by_role("button", name="2 not indexed").click()
    failures = page.get_by_role("dialog", name="Files that could not be indexed")
    expect(failures).to_contain_text("The file has no triangles")
    expect(failures).to_contain_text("<img src=x onerror=alert(1)>.ply")
    page.keyboard.press("Escape")
    shape(11).export(tmp_path / "new ring.ply")
    drop(page, tmp_path / "new ring.ply")
    page.get_by_role("button", name="Add new ring.ply to the collection").click()
    page.get_by_label("Label name").fill("kind")
    page.get_by_label("Label value").fill("ring")
    page.get_by_role("button", name="Add to the collection", exact=True).click()
    token = page.get_by_role("dialog", name="Token")
    token.get_by_label("Token").fill("a guess")
    token.get_by_role("button", name="Use this token").click()
    expect(token.get_by_role("alert")).to_have_text("The token is wrong.")
    token.get_by_label("Token").fill("secret")
    token.get_by_role("button", name="Use this token").click()
    expect(page.locator("#add")).to_contain_text("Added new ring.ply")
    page.get_by_role("button", name="Open").click()
    hit = page.get_by_role("dialog", name="new ring.ply")
    expect(hit).to_contain_text("kindring")
    hit.get_by_role("button", name="Edit labels").click()
    hit.get_by_label("Label value").fill("wheel")
    hit.get_by_role("button", name="Save labels").click()
    expect(hit).to_contain_text("kindwheel")
    page.keyboard.press("Escape")
    page.locator("#filter summary").click()
    page.get_by_label("Label or fact").select_option("kind")
    page.get_by_label("Value", exact=True).fill("wheel")
    page.get_by_role("button", name="Add condition").click()
    expect(page.locator("#grid .card")).to_have_count(1)
    expect(page.locator("#grid .card")).to_have_text(re.compile(r"new ring\.ply score \d\.\d\d wheel"))
    page.locator("#grid .card").click()
    hit.get_by_role("button", name="Delete…").click()
    expect(hit.get_by_role("button", name="Cancel")).to_be_focused()
    hit.get_by_role("button", name="Delete", exact=True).click()
    expect(page.locator("main > #status")).to_have_text("‘new ring.ply’ was deleted.")
    expect(page.locator("#about")).to_contain_text("6 objects")
    assert page.evaluate("[localStorage.length, Object.values(sessionStorage)]") == [0, ["secret"]]


def test_a_late_answer_does_not_close_the_label_editor(visit: Any, writable: str) -> None:
    """Labels are edited once the object has arrived; nothing that comes later replaces what was typed."""
    page = visit(writable).page
    waiting: list[Any] = []
    page.route("**/api/objects/*", lambda route: waiting.append(route))
    page.get_by_role("button", name="<b>bold.ply", exact=True).click()
    hit = page.get_by_role("dialog", name="<b>bold.ply")
    expect(hit).to_contain_text("No labels.")
    wait_for(lambda: page.evaluate("true") and bool(waiting))
    expect(hit.get_by_role("button", name="Edit labels")).to_have_count(0)
    waiting[0].continue_()
    hit.get_by_role("button", name="Edit labels").click()
    hit.get_by_label("Label name").fill("kind")
    expect(hit.get_by_label("Label name")).to_have_value("kind")
    assert len(waiting) == 1


def test_names_are_never_html(visit: Any, writable: str) -> None:
    page = visit(writable).page
    page.get_by_role("button", name="<b>bold.ply", exact=True).click()
    expect(page.get_by_role("heading", name="<b>bold.ply")).to_be_visible()
    expect(page.locator(".id")).to_have_text("<b>bold.ply")
    assert page.locator("b").count() == 0
    page.keyboard.press("Escape")
    page.get_by_role("button", name="More like shape-003.ply").dispatch_event("click")
    expect(page.locator(".term-name")).to_have_attribute("title", "parts/shape-003.ply")


def test_reading_with_a_token(visit: Any, own: Collection) -> None:
    with served(own, ServiceSettings(token="secret", auth=True)) as address:
        page = visit(address).page
        token = page.get_by_role("dialog", name="Token")
        expect(token).to_contain_text("Searching and changing this collection needs the token")
        token.get_by_role("button", name="Close").click()
        expect(page.locator("#problem")).to_contain_text("Searching this collection needs the token")
        page.get_by_role("button", name="Search", exact=True).click()
        expect(token).to_be_visible()
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Token").click()
        token.get_by_label("Token").fill("secret")
        token.get_by_role("button", name="Use this token").click()
        expect(page.locator("#grid .card")).to_have_count(6)
        expect(page.locator("#problem")).to_be_hidden()
        image = page.locator("#grid img").first
        expect(image).to_have_attribute("src", re.compile("^blob:"))
        assert image.evaluate("(image) => image.decode().then(() => image.naturalWidth)") == 112
        page.locator("#grid .card").first.click()
        expect(page.locator(".viewer img")).to_have_attribute("src", re.compile("^blob:"))
        page.reload()
        expect(page.locator("#grid .card")).to_have_count(6)


def test_the_newest_query_wins(visit: Any, address: str) -> None:
    page = visit(address).page
    expect(page.locator("#grid .card")).to_have_count(12)
    waiting: list[Any] = []
    page.route("**/api/search", lambda route: route.continue_() if waiting else waiting.append(route))
    page.get_by_role("button", name="More like shape-003.ply").dispatch_event("click")
    expect(page.locator("#progress")).to_be_visible()
    page.get_by_role("button", name="More like shape-000.ply").dispatch_event("click")
    expect(page.locator("#status")).to_contain_text("11 of 12")
    expect(page.locator("#progress")).to_be_hidden()
    assert "shape-003.ply" in names(page) and "shape-000.ply" not in names(page)


def test_text_typed_before_the_page_is_ready_is_searched(visit: Any, reading: str) -> None:
    page = visit(reading, "/page/icon.svg").page
    waiting: list[Any] = []
    page.route("**/api/collection", lambda route: waiting.append(route))
    page.goto(reading)
    page.fill("#text", "a box")
    page.press("#text", "Enter")
    wait_for(lambda: page.evaluate("true") and bool(waiting))
    waiting[0].continue_()
    expect(page.locator("#status")).to_contain_text("12 of 12")
    expect(page).to_have_url(re.compile("#text=1%3Aa\\+box$"))


def test_an_unreachable_service_is_reported(visit: Any, address: str) -> None:
    page = visit(address).page
    expect(page.locator("#grid .card")).to_have_count(12)
    for respond, message in (
        (lambda route: route.abort(), "The service cannot be reached: check that it runs."),
        (lambda route: route.fulfill(status=502, body="<html>"), "The service responded with 502 Bad Gateway."),
    ):
        page.route("**/api/objects?*", respond)
        page.get_by_role("button", name="Search", exact=True).click()
        expect(page.locator("#problem")).to_have_text(message)


def test_confidence_of_hits_and_no_match(visit: Any, things: Collection, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    things.session.save_index()
    shutil.copytree(things.folder, tmp_path / "calibrated")
    with Collection.open(tmp_path / "calibrated", OpenOptions(workers=1, concurrent=True)) as calibrated:
        calibrated.calibrate("label")
        hits = calibrated.search(Query(id="shape-003.ply"), k=12)
        where = f"id = '{hits[-1].id}'"  # the least similar object
        with served(calibrated) as address:
            page = visit(address).page
            page.get_by_role("button", name="More like shape-003.ply").dispatch_event("click")
            expect(page.locator(".confidence").first).to_have_text(f"conf. {hits[0].confidence:.0%}")
            page.goto(f"{address}/#id=1%3Ashape-003.ply&where={quote(where)}")
            expect(page.locator("#grid .card")).to_have_count(1)
            page.locator("#options summary").click()
            page.get_by_label("Minimum confidence").fill("100")
            page.get_by_label("Minimum confidence").press("Enter")
            expect(page.locator("#grid .card")).to_have_count(0)
            options = SearchOptions(k=24, where=where, min_confidence=1.0)
            result = search(calibrated.session, Query(id="shape-003.ply"), options)
            expect(page.locator("#status")).to_contain_text(result.no_match[1:])
            page.reload()
            expect(page.locator("#status")).to_contain_text(result.no_match[1:])


@pytest.mark.parametrize("width", [360, 390])
def test_a_narrow_screen_needs_no_horizontal_scrolling(visit: Any, address: str, shapes: Path, width: int) -> None:
    page = visit(address, viewport={"width": width, "height": 740}, has_touch=True, is_mobile=True).page
    expect(page.locator("#grid .card")).to_have_count(12)
    assert is_narrow(page)
    drop(page, *(shapes / f"shape-{n:03d}.ply" for n in range(3)))
    expect(page.locator("#status")).to_contain_text("12 of 12")
    page.locator("#filter summary").tap()
    page.locator("#options summary").tap()
    assert is_narrow(page)
    small = page.locator("button:visible, select:visible, input:visible").evaluate_all(
        "(all) => all.filter((e) => Math.min(e.offsetHeight, e.offsetWidth) < 40).map((e) => e.outerHTML)"
    )
    assert small == []
    page.locator("#grid .card").first.tap()
    expect(page.locator(".match img")).to_have_count(2)
    assert is_narrow(page)
    page.go_back()
    expect(page.locator("#hit")).to_be_hidden()
    page.get_by_role("button", name="Draw").tap()
    assert is_narrow(page)


def test_all_thumbnails_of_the_results_are_drawn(visit: Any, address: str) -> None:
    page = visit(address).page
    expect(page.locator("#grid .card")).to_have_count(12)
    page.get_by_role("button", name="More like shape-003.ply").dispatch_event("click")
    expect(page.locator("#status")).to_contain_text("11 of 12")
    widths = page.evaluate(
        "Promise.all([...document.querySelectorAll('#grid img')].map((image) => image.decode().then(() => image.naturalWidth)))"
    )
    assert widths == [112] * 11
