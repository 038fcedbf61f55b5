// The page: builds a query, searches, and shows the results.

import { openAdd, isAdding, takeFilesToAdd } from "./add.js";
import { fromHash, snapshot, toHash } from "./address.js";
import { json, pathOf, sentence, setTokenDialog } from "./api.js";
import { openPad } from "./draw.js";
import { byId } from "./element.js";
import { openFailures } from "./failures.js";
import { acceptFor, listenForFiles, termsOf } from "./files.js";
import { buildFilter, conditionOf, rememberValues, showFilter } from "./filters.js";
import { openHit } from "./hit.js";
import { setHasImages } from "./images.js";
import { hideNotice, showNoTextNotice } from "./notice.js";
import { buildOptions, showOptions } from "./options.js";
import { changed, DEFAULTS, newTerm, onChange, query, setText } from "./query.js";
import { refreshCard, removeCard, showObjects } from "./results.js";
import { listObjects, MAX_HITS, searchFor } from "./search.js";
import { updateSearchBox, showTerms } from "./terms.js";
import { requestToken, showState as showTokenState } from "./token.js";

const box = byId("text");
const dialogs = [...document.querySelectorAll("dialog")];
const hitDialog = byId("hit");
// Queries since the page was loaded, by unique name: files are not part of the address. A reload keeps the history without them.
const snapshots = new Map();

let collection = null;
let isReady = null; // resolves the promise that listeners wait for
let current = null; // name of the query that is shown
let running = null; // AbortController of the current search
let shownObjects = []; // objects or hits on the page
let searched = null; // { terms, views } of the results that are shown
let next = null; // `after` of the next part of the list
let k = 0; // of the last search

async function start() {
  setTokenDialog(requestToken);
  // At once: a user may type before the collection is loaded.
  const ready = new Promise((done) => {
    isReady = done;
  });
  listen(
    (act) =>
      (...given) =>
        ready.then(() => act(...given)),
  );
  collection = await loadCollection();
  showCollection();
  buildFilter(collection.columns, submitQuery);
  buildOptions(Boolean(collection.calibration), submitQuery);
  onChange(show);
  addEventListener("popstate", restore);
  await restore();
  isReady();
  readBox();
}

/** The collection. If the user closes the token dialog, the search button opens it again. */
async function loadCollection() {
  for (;;) {
    try {
      return await json("/api/collection");
    } catch (error) {
      if (error.code !== "bad_token") throw error;
      showTokenState(true);
      showError("Searching this collection needs the token: press Token above");
      const waiting = new AbortController();
      await new Promise((done) => {
        byId("form").addEventListener("submit", () => requestToken(), { signal: waiting.signal });
        addEventListener("token-stored", done, { once: true });
      });
      waiting.abort();
    }
  }
}

function showCollection() {
  const { name, objects, encoder, failures, has_text: hasText, has_encoder: hasEncoder, writable, formats, version } =
    collection;
  setHasImages(collection.has_images);
  document.title = `${name}: 3D object search`;
  byId("home").textContent = name;
  byId("about").textContent =
    `${objects.toLocaleString("en-GB")} ${objects === 1 ? "object" : "objects"}, ` +
    (hasEncoder ? `encoder ${encoder}` : "imported vectors");
  byId("failures-button").hidden = failures === 0;
  byId("failures-button").textContent = `${failures.toLocaleString("en-GB")} not indexed`;
  byId("add-button").hidden = !writable || !collection.has_images;
  byId("pick").hidden = byId("draw").hidden = !hasEncoder;
  showTokenState(writable);
  byId("version").textContent = `mvretrieval ${version}`;
  byId("files").accept = acceptFor(formats);
  if (!hasEncoder) {
    box.placeholder = hasText ? "Text" : "Part of a name";
    byId("text-help").textContent = `Press ≈ on an object to find others like it.${hasText ? "" : " Text finds names."}`;
    return;
  }
  box.placeholder = hasText ? "Text, images, meshes" : "An image, a sketch or a mesh";
  const how = matchMedia("(pointer: coarse)").matches
    ? "choose an image or a mesh"
    : "drop or paste an image or a mesh anywhere";
  byId("text-help").textContent = hasText
    ? `Combine text with images and meshes: ${how}. Exclude with a minus: chair -wooden`
    : `No text search in this collection: ${how}, or draw a sketch.`;
}

/** `later` makes a listener wait until the collection is loaded. */
function listen(later) {
  const onClick = (id, act) => byId(id).addEventListener("click", later(act));
  byId("form").addEventListener("submit", (event) => {
    event.preventDefault();
    // Enter in the filter or an option: its change event has searched already.
    if (!document.activeElement?.closest("details")) submitLater();
  });
  const submitLater = later(submit);
  box.addEventListener("input", later(readBox));
  byId("pick").addEventListener("click", () => byId("files").click());
  byId("files").addEventListener(
    "change",
    later(() => {
      takeFiles([...byId("files").files]);
      byId("files").value = "";
    }),
  );
  onClick("draw", () => sketch());
  onClick("more", () => search(true));
  onClick("add-button", () => addMesh([]));
  onClick("failures-button", openFailures);
  const goHome = later(() => {
    setQuery(fromHash(""));
    submitQuery();
  });
  byId("home").addEventListener("click", (event) => {
    event.preventDefault();
    goHome();
  });
  listenForFiles(
    later((files) => (isAdding() ? takeFilesToAdd(files) : takeFiles(files))),
    byId("drop"),
  );
  addEventListener("keydown", (event) => {
    const isTyping = event.target.closest?.("input, textarea, select, dialog");
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || isTyping) return;
    event.preventDefault();
    box.focus();
    box.select();
  });
  hitDialog.addEventListener("close", () => {
    if (history.state?.open) history.back();
    else if (fromHash(location.hash).open) history.replaceState({ query: current }, "", toHash(query));
  });
}

/** Read the search box into text terms. */
function readBox() {
  if (!collection.has_text) return;
  setText(box.value);
  changed();
}

/** Show the current query. */
function show() {
  showTerms({ search: submitQuery, editSketch: sketch, addMesh: collection.writable ? addMesh : null });
  showFilter();
  showOptions();
}

function setQuery({ terms, where, ...options }) {
  query.terms = terms.filter((term) => collection.has_text || term.kind !== "text").map((term) => ({ ...term }));
  query.where = where;
  for (const name of Object.keys(DEFAULTS)) query[name] = options[name];
  // On loading, an address without terms must not clear what the user is typing.
  if (current !== null || query.terms.length) updateSearchBox();
  changed();
}

async function takeFiles(files) {
  dialogs.forEach((dialog) => dialog.open && dialog.close());
  const { terms, unknown } = await termsOf(files, collection.formats);
  if (terms.length) {
    query.terms.push(...terms);
    await submitQuery();
  }
  if (unknown.length) {
    const names = unknown.map((file) => file.name).join(", ");
    showError(`${names}: neither an image nor a mesh. Suffixes of meshes: ${collection.formats.join(", ")}.`);
  }
}

function sketch(term = null) {
  openPad((file, strokes) => {
    const made = term ?? newTerm("images", {});
    Object.assign(made, { files: [file], strokes });
    if (!query.terms.includes(made)) query.terms.push(made);
    submitQuery();
  }, term?.strokes);
}

function addMesh(files) {
  openAdd(files, {
    formats: collection.formats,
    columns: collection.columns,
    added: refreshCollection,
    open,
  });
}

async function refreshCollection() {
  collection = await json("/api/collection");
  showCollection();
  buildFilter(collection.columns, submitQuery); // there may be new labels
  showFilter();
}

function submit() {
  if (!collection.has_text && box.value.trim()) {
    if (!collection.has_encoder) return searchNames(box.value.trim());
    setStatus("");
    showError("");
    return showNoTextNotice(collection.text_hint, box.value.trim(), searchNames);
  }
  if (collection.has_text) setText(box.value);
  submitQuery();
}

function searchNames(text) {
  query.where = conditionOf("id", "like", text);
  box.value = "";
  submitQuery();
}

/** Search for the current query, as a new entry of the history. */
async function submitQuery() {
  changed();
  current = remember();
  const hash = toHash(query);
  const isSame = hash === (location.hash || "#") && !query.terms.some((term) => term.files);
  history[isSame ? "replaceState" : "pushState"]({ query: current }, "", hash);
  if (hitDialog.open) hitDialog.close();
  await search();
}

function remember() {
  const name = `${performance.timeOrigin}-${snapshots.size}`;
  snapshots.set(name, snapshot());
  return name;
}

/** Set the query and the opened object from the history, or from the address. */
async function restore() {
  const { query: name, open: opened } = history.state ?? {};
  const hash = fromHash(location.hash);
  if (name === undefined || name !== current) {
    const known = snapshots.get(name);
    setQuery(known ?? hash);
    current = known ? name : remember();
    history.replaceState({ query: current, open: opened }, "");
    await search();
    if (!known && hash.dropped) {
      setStatus("Images and meshes are not part of the address: drop them again");
    }
  }
  if (!hash.open) {
    if (hitDialog.open) hitDialog.close();
  } else if (!hitDialog.open || hitDialog.dataset.shows !== hash.open) {
    try {
      show3d(shownObjects.find((object) => object.id === hash.open) ?? (await json(pathOf("objects", hash.open))));
    } catch (error) {
      hitDialog.close();
      showError(error.message);
    }
  }
}

function stop() {
  running?.abort();
  running = null;
  progress(false);
}

/** Search. A newer search aborts the current one. `append`: show more results of the same query. */
async function search(append = false) {
  stop();
  const mine = (running = new AbortController());
  performance.mark("search-started");
  progress(true);
  showError("");
  hideNotice();
  const newK = append ? Math.min(k + query.k, MAX_HITS) : query.k;
  try {
    const found = query.terms.length
      ? await searchFor(query, newK, collection, mine.signal)
      : await listObjects(query, append ? next : 0, collection, mine.signal);
    if (running !== mine) return;
    k = newK;
    showResults(found, append);
  } catch (error) {
    if (error.name === "AbortError" || running !== mine) return;
    if (!append) showResults({ objects: [], text: "" }, false);
    showError(error.message);
  } finally {
    if (running === mine) stop();
  }
}

function showResults(found, append) {
  const known = new Set(append ? shownObjects.map((object) => object.id) : []);
  const fresh = found.objects.filter((object) => !known.has(object.id));
  shownObjects = append ? [...shownObjects, ...fresh] : fresh;
  searched = found.searched ?? null;
  next = found.next ?? null;
  rememberValues(fresh);
  const cards = showObjects(fresh, { open, moreLike }, append);
  if (append) cards[0]?.querySelector(".card").focus({ preventScroll: true });
  byId("results-title").textContent = found.title ?? "";
  byId("results-title").hidden = !shownObjects.length;
  byId("more").hidden = !found.hasMore;
  setStatus(append ? `${fresh.length} more` : found.text);
  performance.mark("results-shown");
}

function open(object) {
  history.pushState({ query: current, open: object.id }, "", toHash(query, object.id));
  show3d(object);
}

function show3d(object) {
  openHit(object, searched, {
    writable: collection.writable,
    columns: collection.columns,
    hasImages: collection.has_images,
    moreLike,
    addTerm,
    changed: (after) => {
      Object.assign(object, { metadata: after.metadata });
      rememberValues([after]);
      refreshCard(object, { open, moreLike });
      refreshCollection().catch(() => {});
    },
    removed: (id) => {
      shownObjects = shownObjects.filter((other) => other.id !== id);
      const isTerm = query.terms.some((term) => term.id === id);
      query.terms = query.terms.filter((term) => term.id !== id);
      changed();
      removeCard(id);
      if (isTerm) submitQuery().then(() => setStatus(`‘${id}’ was deleted`));
      else setStatus(`‘${id}’ was deleted`);
      refreshCollection().catch(() => {});
    },
  });
}

function moreLike(id) {
  setQuery({ ...query, terms: [newTerm("id", { id })] });
  scrollTo({ top: 0 });
  submitQuery();
}

function addTerm(id, minus) {
  query.terms = [...query.terms.filter((term) => term.id !== id), newTerm("id", { id }, minus)];
  scrollTo({ top: 0 });
  submitQuery();
}

function progress(shown) {
  byId("progress").hidden = !shown;
  byId("results").setAttribute("aria-busy", shown);
}

function setStatus(text) {
  byId("status").textContent = text && sentence(text);
}

/** Show an error until the next search. */
function showError(message) {
  byId("problem").textContent = message && sentence(message);
}

start().catch((error) => showError(error.message));
