// Results as the page shows them: { objects, title, text, searched, next, hasMore }.

import { json, sentence } from "./api.js";
import { requestOf } from "./query.js";

export const MAX_HITS = 1000; // limit of the service

/** The `k` best hits for a query. */
export async function searchFor(query, k, collection, signal) {
  const terms = query.terms.map((term) => ({ ...term }));
  const { body, files } = requestOf({ ...query, k });
  const response = await (files.size ? upload(body, files, signal) : post(body, signal));
  const objects = response.hits;
  const time = response.seconds < 0.01 ? "under 0.01 s" : `${response.seconds.toFixed(2)} s`;
  const note = query.confidence && query.terms.length > 1 ? "; hits of a mixture have no confidence to filter by" : "";
  const count = `${objects.length} of ${collection.objects.toLocaleString("en-GB")} objects, in ${time}${note}`;
  return {
    objects,
    title: "Results",
    text: objects.length ? count : response.no_match ? sentence(response.no_match) : noResults(query),
    searched: { terms, views: response.query },
    hasMore: objects.length === k && k < MAX_HITS,
  };
}

/** Some objects of the collection, for a query without terms; `after` is the `next` of the part before. */
export async function listObjects(query, after, collection, signal) {
  const parameters = new URLSearchParams({ limit: query.k, after });
  const where = query.where.trim();
  if (where) parameters.set("where", query.where);
  const page = await json(`/api/objects?${parameters}`, { signal });
  const empty = where ? noResults(query) : `The collection is empty${collection.writable ? ": add a mesh" : ""}.`;
  return {
    objects: page.objects,
    title: where ? "Objects that match the filter" : "Objects of the collection",
    text: page.objects.length ? "" : empty,
    next: page.next,
    hasMore: page.next !== null,
  };
}

function noResults(query) {
  return query.where.trim() ? "No object matches the filter." : "No results.";
}

const post = (body, signal) =>
  json("/api/search", {
    method: "POST",
    body: JSON.stringify(body),
    headers: { "Content-Type": "application/json" },
    signal,
  });

function upload(body, files, signal) {
  const form = new FormData();
  form.append("query", JSON.stringify(body));
  for (const [name, file] of files) form.append("files", file, name);
  return json("/api/search/upload", { method: "POST", body: form, signal });
}
