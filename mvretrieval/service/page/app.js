// The page: a question is put together, asked, and its answers are shown.

import { openAdd, isAdding, takeFilesToAdd } from "./add.js";
import { fromHash, snapshot, toHash } from "./address.js";
import { json, pathOf, sentence, setTokenAsker } from "./api.js";
import { openPad } from "./draw.js";
import { byId } from "./element.js";
import { openFailures } from "./failures.js";
import { acceptFor, listenForFiles, termsOf } from "./files.js";
import { buildFilter, conditionOf, noteValues, showFilter } from "./filters.js";
import { openHit } from "./hit.js";
import { hideNotice, tellOfWords } from "./notice.js";
import { buildOptions, showOptions } from "./options.js";
import { changed, DEFAULTS, newTerm, onChange, question, setWords } from "./question.js";
import { refreshCard, removeCard, showObjects } from "./results.js";
import { answersTo, listingOf, MOST_HITS } from "./search.js";
import { rewriteBox, showTerms } from "./terms.js";
import { askToken, showState as showTokenState } from "./token.js";

const box = byId("words");
const dialogs = [...document.querySelectorAll("dialog")];
const hitDialog = byId("hit");
// Questions of this visit: those with files are in no address. A reload keeps the history and not these, so names are unique.
const snapshots = new Map();

let collection = null;
let isReady = null; // lets those go on who wait until the page can be used
let current = null; // name of the question that is shown
let running = null; // what stops the search that is under way
let shownObjects = []; // on the page now, with their scores
let asked = null; // { terms, sources } of the answer that is shown
let next = null; // how the listing goes on
let k = 0; // how many answers were asked for last

async function start() {
  setTokenAsker(askToken);
  // At once: who types fast has asked before the first answer is there.
  const ready = new Promise((done) => {
    isReady = done;
  });
  listen(
    (act) =>
      (...given) =>
        ready.then(() => act(...given)),
  );
  collection = await collectionServed();
  showCollection();
  buildFilter(collection.columns, ask);
  buildOptions(Boolean(collection.calibrated), ask);
  onChange(show);
  addEventListener("popstate", restore);
  await restore();
  isReady();
  readBox();
}

/** What is served; who has closed the dialog that asks for the token gets another one on wishing. */
async function collectionServed() {
  for (;;) {
    try {
      return await json("/api/collection");
    } catch (error) {
      if (error.code !== "token") throw error;
      showTokenState(true);
      complain("Searching here asks for the token: press Token above");
      const waiting = new AbortController();
      await new Promise((done) => {
        byId("form").addEventListener("submit", () => askToken(), { signal: waiting.signal });
        addEventListener("token-kept", done, { once: true });
      });
      waiting.abort();
    }
  }
}

function showCollection() {
  const { name, objects, encoder, failures, reads_words: readsWords, writable, formats, version } = collection;
  document.title = `${name}: finding 3D objects`;
  byId("home").textContent = name;
  byId("about").textContent =
    `${objects.toLocaleString("en-GB")} ${objects === 1 ? "object" : "objects"}, described with ${encoder}`;
  byId("failures-button").hidden = failures === 0;
  byId("failures-button").textContent = `${failures.toLocaleString("en-GB")} not indexed`;
  byId("add-button").hidden = !writable;
  showTokenState(writable);
  byId("version").textContent = `mvretrieval ${version}`;
  byId("files").accept = acceptFor(formats);
  box.placeholder = readsWords ? "Words, pictures, meshes" : "A picture, a sketch or a mesh";
  const how = matchMedia("(pointer: coarse)").matches
    ? "choose a picture or a mesh"
    : "drop or paste a picture or a mesh anywhere";
  byId("words-help").textContent = readsWords
    ? `Mix words with pictures and meshes: ${how}. A minus says what it should not be like: chair -wooden`
    : `This collection reads no words: ${how}, or draw.`;
}

/** `later` makes a listener wait until the page can be used. */
function listen(later) {
  const onClick = (id, act) => byId(id).addEventListener("click", later(act));
  byId("form").addEventListener("submit", (event) => {
    event.preventDefault();
    // Enter in the filter or an option: its change has asked already.
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
    pose(fromHash(""));
    ask();
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
    else if (fromHash(location.hash).open) history.replaceState({ question: current }, "", toHash(question));
  });
}

/** The words of the box as terms. */
function readBox() {
  if (!collection.reads_words) return;
  setWords(box.value);
  changed();
}

/** Everything that shows the question. */
function show() {
  showTerms({ ask, editSketch: sketch, addMesh: collection.writable ? addMesh : null });
  showFilter();
  showOptions();
}

function pose({ terms, where, ...options }) {
  question.terms = terms.filter((term) => collection.reads_words || term.kind !== "text").map((term) => ({ ...term }));
  question.where = where;
  for (const name of Object.keys(DEFAULTS)) question[name] = options[name];
  // Nothing in the address takes nothing away of what is being typed.
  if (current !== null || question.terms.length) rewriteBox();
  changed();
}

async function takeFiles(files) {
  dialogs.forEach((dialog) => dialog.open && dialog.close());
  const { terms, unknown } = await termsOf(files, collection.formats);
  if (terms.length) {
    question.terms.push(...terms);
    await ask();
  }
  if (unknown.length) {
    const names = unknown.map((file) => file.name).join(", ");
    complain(`${names}: neither a picture nor a mesh. Meshes end in ${collection.formats.join(", ")}.`);
  }
}

function sketch(term = null) {
  openPad((file, strokes) => {
    const made = term ?? newTerm("images", {});
    Object.assign(made, { files: [file], strokes });
    if (!question.terms.includes(made)) question.terms.push(made);
    ask();
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
  buildFilter(collection.columns, ask); // a new label can be filtered by
  showFilter();
}

function submit() {
  if (!collection.reads_words && box.value.trim()) {
    say("");
    complain("");
    return tellOfWords(collection.words_hint, box.value.trim(), lookInNames);
  }
  if (collection.reads_words) setWords(box.value);
  ask();
}

function lookInNames(words) {
  question.where = conditionOf("id", "like", words);
  box.value = "";
  ask();
}

/** Ask the question as it is now, as a new entry of the history. */
async function ask() {
  changed();
  current = keep();
  const hash = toHash(question);
  const isSame = hash === (location.hash || "#") && !question.terms.some((term) => term.files);
  history[isSame ? "replaceState" : "pushState"]({ question: current }, "", hash);
  if (hitDialog.open) hitDialog.close();
  await search();
}

function keep() {
  const name = `${performance.timeOrigin}-${snapshots.size}`;
  snapshots.set(name, snapshot());
  return name;
}

/** What the address, or the history, says. */
async function restore() {
  const { question: name, open: opened } = history.state ?? {};
  const hash = fromHash(location.hash);
  if (name === undefined || name !== current) {
    const known = snapshots.get(name);
    pose(known ?? hash);
    current = known ? name : keep();
    history.replaceState({ question: current, open: opened }, "");
    await search();
    if (!known && hash.dropped) {
      say("Pictures and meshes are not part of the address: drop them again");
    }
  }
  if (!hash.open) {
    if (hitDialog.open) hitDialog.close();
  } else if (!hitDialog.open || hitDialog.dataset.shows !== hash.open) {
    try {
      show3d(shownObjects.find((object) => object.id === hash.open) ?? (await json(pathOf("objects", hash.open))));
    } catch (error) {
      hitDialog.close();
      complain(error.message);
    }
  }
}

function stop() {
  running?.abort();
  running = null;
  progress(false);
}

/** Run the question; the newest search wins. `goOn`: more of what is shown. */
async function search(goOn = false) {
  stop();
  const mine = (running = new AbortController());
  performance.mark("asked");
  progress(true);
  complain("");
  hideNotice();
  const wanted = goOn ? Math.min(k + question.k, MOST_HITS) : question.k;
  try {
    const found = question.terms.length
      ? await answersTo(question, wanted, collection, mine.signal)
      : await listingOf(question, goOn ? next : 0, collection, mine.signal);
    if (running !== mine) return;
    k = wanted;
    put(found, goOn);
  } catch (error) {
    if (error.name === "AbortError" || running !== mine) return;
    if (!goOn) put({ objects: [], text: "" }, false);
    complain(error.message);
  } finally {
    if (running === mine) stop();
  }
}

function put(found, goOn) {
  const known = new Set(goOn ? shownObjects.map((object) => object.id) : []);
  const fresh = found.objects.filter((object) => !known.has(object.id));
  shownObjects = goOn ? [...shownObjects, ...fresh] : fresh;
  asked = found.asked ?? null;
  next = found.next ?? null;
  noteValues(fresh);
  const cards = showObjects(fresh, { open, moreLike }, goOn);
  if (goOn) cards[0]?.querySelector(".card").focus({ preventScroll: true });
  byId("results-title").textContent = found.title ?? "";
  byId("results-title").hidden = !shownObjects.length;
  byId("more").hidden = !found.goesOn;
  say(goOn ? `${fresh.length} more` : found.text);
  performance.mark("answered");
}

function open(object) {
  history.pushState({ question: current, open: object.id }, "", toHash(question, object.id));
  show3d(object);
}

function show3d(object) {
  openHit(object, asked, {
    writable: collection.writable,
    columns: collection.columns,
    moreLike,
    addTerm,
    changed: (after) => {
      Object.assign(object, { metadata: after.metadata });
      noteValues([after]);
      refreshCard(object, { open, moreLike });
      refreshCollection().catch(() => {});
    },
    removed: (id) => {
      shownObjects = shownObjects.filter((other) => other.id !== id);
      const wasAsked = question.terms.some((term) => term.id === id);
      question.terms = question.terms.filter((term) => term.id !== id);
      changed();
      removeCard(id);
      if (wasAsked) ask().then(() => say(`‘${id}’ was deleted`));
      else say(`‘${id}’ was deleted`);
      refreshCollection().catch(() => {});
    },
  });
}

function moreLike(id) {
  pose({ ...question, terms: [newTerm("id", { id })] });
  scrollTo({ top: 0 });
  ask();
}

function addTerm(id, minus) {
  question.terms = [...question.terms.filter((term) => term.id !== id), newTerm("id", { id }, minus)];
  scrollTo({ top: 0 });
  ask();
}

function progress(shown) {
  byId("progress").hidden = !shown;
  byId("results").setAttribute("aria-busy", shown);
}

function say(status) {
  byId("status").textContent = status && sentence(status);
}

/** Stays until something else is asked. */
function complain(problem) {
  byId("problem").textContent = problem && sentence(problem);
}

start().catch((error) => complain(error.message));
