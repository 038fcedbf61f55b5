// What is found for a question, as the page shows it: { objects, title, text, asked, next, goesOn }.

import { json, sentence } from "./api.js";
import { requestOf } from "./question.js";

export const MOST_HITS = 1000; // that the service gives at once

/** The `k` best answers. */
export async function answersTo(question, k, collection, signal) {
  const terms = question.terms.map((term) => ({ ...term }));
  const { query, files } = requestOf({ ...question, k });
  const answer = await (files.size ? upload(query, files, signal) : ask(query, signal));
  const objects = answer.hits;
  const time = answer.seconds < 0.01 ? "under 0.01 s" : `${answer.seconds.toFixed(2)} s`;
  const uncut = question.sure && question.terms.length > 1 ? "; a mixture's answers carry no certainty to be cut by" : "";
  const count = `${objects.length} of ${collection.objects.toLocaleString("en-GB")} objects, in ${time}${uncut}`;
  return {
    objects,
    title: "Found",
    text: objects.length ? count : answer.nothing ? sentence(answer.nothing) : nothing(question),
    asked: { terms, sources: answer.question },
    goesOn: answer.hits.length === k && k < MOST_HITS,
  };
}

/** Some of the collection, where nothing is asked; `after` is the `next` of the part before. */
export async function listingOf(question, after, collection, signal) {
  const parts = new URLSearchParams({ limit: question.k, after });
  const where = question.where.trim();
  if (where) parts.set("where", question.where);
  const page = await json(`/api/objects?${parts}`, { signal });
  const empty = where
    ? nothing(question)
    : `The collection is empty${collection.writable ? ": add a mesh to it" : ""}.`;
  return {
    objects: page.objects,
    title: where ? "Objects that pass the filter" : "Some of the collection",
    text: page.objects.length ? "" : empty,
    next: page.next,
    goesOn: page.next !== null,
  };
}

function nothing(question) {
  return question.where.trim() ? "Nothing passes the filter." : "Nothing was found.";
}

const ask = (query, signal) =>
  json("/api/search", {
    method: "POST",
    body: JSON.stringify(query),
    headers: { "Content-Type": "application/json" },
    signal,
  });

function upload(query, files, signal) {
  const body = new FormData();
  body.append("query", JSON.stringify(query));
  for (const [name, file] of files) body.append("files", file, name);
  return json("/api/search/upload", { method: "POST", body, signal });
}
