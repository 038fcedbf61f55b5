// The current query: terms with weights, a filter and search options. Plain data; `changed` notifies the parts that show it.

import { parseText } from "./query_text.js";

export const DEFAULTS = { k: 24, rerank: 0, expand: 0, confidence: 0, up: "", background: "auto" };
const DEFAULT_WEIGHT = 1;
const DEFAULT_MINUS_WEIGHT = 0.5;

let lastKey = 0;

export const query = { terms: [], where: "", ...DEFAULTS };
const listeners = [];

export const onChange = (listener) => listeners.push(listener);
export const changed = () => listeners.forEach((listener) => listener());

const defaultWeight = (minus) => (minus ? DEFAULT_MINUS_WEIGHT : DEFAULT_WEIGHT);

/** A term: kind `text` (text), `id` (id), `mesh` (files: mesh first) or `images` (files, of one object; strokes of a sketch). */
export function newTerm(kind, rest, minus = false) {
  return { key: ++lastKey, kind, size: defaultWeight(minus), minus, ...rest };
}

export const weightOf = (term) => (term.minus ? -term.size : term.size);

export function setMinus(term, minus) {
  if (term.size === defaultWeight(term.minus)) term.size = defaultWeight(minus);
  term.minus = minus;
}

/** Replace the text terms by those of the search box. A term whose text is unchanged keeps its weight. */
export function setText(text) {
  const before = query.terms.filter((term) => term.kind === "text");
  const terms = parseText(text).map((parsed) => {
    const term = before.find((other) => other.text === parsed.text) ?? newTerm("text", { text: parsed.text }, parsed.minus);
    if (term.minus !== parsed.minus) setMinus(term, parsed.minus);
    return term;
  });
  query.terms = [...terms, ...query.terms.filter((term) => term.kind !== "text")];
}

/** Name of a term, for people. */
export function labelOf(term) {
  if (term.kind === "text") return `‘${term.text}’`;
  if (term.kind === "id") return baseName(term.id);
  if (term.strokes) return "sketch";
  if (term.kind === "mesh") return term.files[0].name;
  return term.files.length === 1 ? term.files[0].name : `${term.files.length} images of one object`;
}

/** The last part of an id that has a name. */
export const baseName = (id) => id.replace(/\/+$/, "").split("/").at(-1) || id;

/** The body of a search request and the files that it names. */
export function requestOf({ terms, where, k, rerank, expand, confidence, up, background }) {
  const files = new Map();
  const named = terms.map((term) => {
    const weight = weightOf(term);
    if (term.kind === "text") return { text: term.text, weight };
    if (term.kind === "id") return { id: term.id, weight };
    const names = term.files.map((file) => uniqueName(files, file));
    return term.kind === "mesh" ? { mesh: names[0], weight } : { images: names, weight };
  });
  const body = { terms: named, k, rerank_views: rerank, expand, background, include_query_views: true };
  if (where.trim()) body.where = where;
  if (up) body.up = up;
  if (confidence && terms.length === 1) body.min_confidence = confidence / 100; // hits of a mixture have no confidence
  return { body, files };
}

/** Name of an uploaded file: its own, since meshes reference textures by name, with a number if it is taken. */
function uniqueName(files, file) {
  const own =
    file.name
      .replace(/[\\/<>:"|?*]/g, "_")
      .replace(/^\.+/, "")
      .slice(-150) || "file";
  let name = own;
  for (let i = 2; files.has(name) && files.get(name) !== file; i++) name = `${i}-${own}`;
  files.set(name, file);
  return name;
}
