// An editor for labels: rows of name and value.

import { button, make } from "./element.js";

const NUMBER = /^-?(0|[1-9]\d{0,14})(\.\d+)?$/;

/** An editor of `metadata`. Returns { element, read }: read() returns the changes, with null for removed labels. */
export function labelEditor(metadata, knownNames = []) {
  const rows = make("div", { class: "stack" });
  const names = make(
    "datalist",
    { id: "label-names" },
    knownNames.map((name) => make("option", { value: name })),
  );
  const add = (name = "", value = "") => {
    const key = make("input", {
      value: name,
      placeholder: "label",
      list: "label-names",
      "aria-label": "Label name",
      maxlength: 100,
    });
    const input = make("input", { value, placeholder: "chair", "aria-label": "Label value" });
    const row = make(
      "div",
      { class: "row label-row" },
      key,
      input,
      button("×", () => row.remove(), { class: "remove", "aria-label": "Remove this label" }),
    );
    rows.append(row);
    return key;
  };
  for (const [name, value] of Object.entries(metadata)) add(name, value ?? "");
  if (!rows.children.length) add();
  const element = make(
    "div",
    { class: "stack" },
    names,
    rows,
    button("Add a label", () => add().focus(), { class: "quiet" }),
  );

  function read() {
    const found = {};
    for (const row of rows.children) {
      const [name, value] = [...row.querySelectorAll("input")].map((input) => input.value.trim());
      if (name && value) found[name] = valueOf(value, metadata[name]);
    }
    const changed = Object.entries(found).filter(([name, value]) => metadata[name] !== value);
    const removed = Object.keys(metadata).filter((name) => metadata[name] !== null && !(name in found));
    return Object.fromEntries([...changed, ...removed.map((name) => [name, null])]);
  }
  return { element, read };
}

/** A number is read as a number, unless the label was text before. */
function valueOf(text, before) {
  if (typeof before === "string") return text;
  return NUMBER.test(text) ? Number(text) : text;
}
