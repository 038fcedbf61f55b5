// What is asked: terms with weights, a filter and options. Plain data; `changed` tells who shows it.

import { wordsIn } from "./words.js";

export const DEFAULTS = { k: 24, match: 0, expand: 0, sure: 0, up: "", background: "auto" };
const PLUS = 1;
const MINUS = 0.5;

let lastKey = 0;

export const question = { terms: [], where: "", ...DEFAULTS };
const listeners = [];

export const onChange = (listener) => listeners.push(listener);
export const changed = () => listeners.forEach((listener) => listener());

/** A term: kind `text` (text), `id` (id), `mesh` (files: mesh first) or `images` (files, of one object; strokes of a sketch). */
export function newTerm(kind, rest, minus = false) {
  return { key: ++lastKey, kind, size: minus ? MINUS : PLUS, minus, ...rest };
}

export const weightOf = (term) => (term.minus ? -term.size : term.size);

export function setMinus(term, minus) {
  if (term.size === (term.minus ? MINUS : PLUS)) term.size = minus ? MINUS : PLUS;
  term.minus = minus;
}

/** The words of the box in place of those before; words that stay keep their weight. */
export function setWords(text) {
  const before = question.terms.filter((term) => term.kind === "text");
  const words = wordsIn(text).map(({ text: word, minus }) => {
    const same = before.find((term) => term.text === word) ?? newTerm("text", { text: word }, minus);
    if (same.minus !== minus) setMinus(same, minus);
    return same;
  });
  question.terms = [...words, ...question.terms.filter((term) => term.kind !== "text")];
}

/** For people: what a term is called. */
export function labelOf(term) {
  if (term.kind === "text") return `‘${term.text}’`;
  if (term.kind === "id") return lastPart(term.id);
  if (term.strokes) return "sketch";
  if (term.kind === "mesh") return term.files[0].name;
  return term.files.length === 1 ? term.files[0].name : `${term.files.length} pictures of one object`;
}

export const lastPart = (id) => id.split("/").filter(Boolean).pop() ?? id;

/** The request's body and the files that go with it. */
export function requestOf({ terms, where, k, match, expand, sure, up, background }) {
  const files = new Map();
  const named = terms.map((term) => {
    const weight = weightOf(term);
    if (term.kind === "text") return { text: term.text, weight };
    if (term.kind === "id") return { id: term.id, weight };
    const names = term.files.map((file) => fileName(files, file));
    return term.kind === "mesh" ? { mesh: names[0], weight } : { images: names, weight };
  });
  const query = { terms: named, k, match_views: match, expand, background, show_question: true };
  if (where.trim()) query.where = where;
  if (up) query.up = up;
  if (sure && terms.length === 1) query.min_confidence = sure / 100; // a mixture's hits carry no confidence
  return { query, files };
}

/** Under which name a file travels: its own, since meshes name their textures; with a number where two are called the same. */
function fileName(files, file) {
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
