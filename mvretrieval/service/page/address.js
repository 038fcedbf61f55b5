// The query in the address of the page, to bookmark and share: text, ids, filter and options. Files cannot be part of it.

import { DEFAULTS, newTerm, query, weightOf } from "./query.js";

export function toHash({ terms, ...rest }, open = null) {
  const parts = new URLSearchParams();
  for (const term of terms) {
    if (term.kind === "text" || term.kind === "id") parts.append(term.kind, `${weightOf(term)}:${term[term.kind]}`);
  }
  const nFiles = terms.filter((term) => term.files).length;
  if (nFiles) parts.set("dropped", nFiles);
  if (rest.where.trim()) parts.set("where", rest.where);
  for (const [name, usual] of Object.entries(DEFAULTS)) if (rest[name] !== usual) parts.set(name, rest[name]);
  if (open) parts.set("open", open);
  return `#${parts}`;
}

/** { terms, where, options, open, dropped }; invalid parts are left out. */
export function fromHash(hash) {
  const parts = new URLSearchParams(hash.replace(/^#/, ""));
  const found = { ...DEFAULTS, terms: [], where: parts.get("where") ?? "" };
  for (const [kind, value] of parts) {
    const [, weight, rest] = /^(-?\d+(?:\.\d+)?):(.+)$/s.exec(value) ?? [];
    if ((kind !== "text" && kind !== "id") || !Number(weight)) continue;
    found.terms.push({ ...newTerm(kind, { [kind]: rest }, weight < 0), size: Math.abs(weight) });
  }
  for (const [name, usual] of Object.entries(DEFAULTS)) {
    const value = parts.get(name);
    if (value === null) continue;
    found[name] = typeof usual === "number" ? Math.max(0, Math.round(Number(value)) || usual) : value;
  }
  return { ...found, open: parts.get("open"), dropped: Number(parts.get("dropped")) || 0 };
}

/** A copy of the current query. */
export const snapshot = () => ({ ...query, terms: query.terms.map((term) => ({ ...term })) });
