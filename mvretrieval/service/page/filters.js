// A filter on labels and facts, built from conditions or typed. Its grammar is in mvretrieval/store/filters.py.

import { button, byId, field, make, select } from "./element.js";
import { query } from "./query.js";

const place = byId("filter");
const OPERATORS = [
  ["=", "is"],
  ["!=", "is not"],
  ["like", "contains"],
  ["<", "less than"],
  ["<=", "at most"],
  [">", "more than"],
  [">=", "at least"],
  ["is null", "is missing"],
  ["is not null", "exists"],
];
const KEYWORDS = new Set(["and", "between", "false", "in", "is", "like", "not", "null", "or", "true"]);
const MAX_VALUES = 200;
const known = new Map(); // column -> values of the objects on this page

let expression = null;
let summary = null;

/** `columns` of the collection; `search()` searches again. */
export function buildFilter(columns, search) {
  function apply() {
    query.where = expression.value;
    search();
  }
  expression = make("input", {
    id: "where",
    spellcheck: "false",
    autocapitalize: "none",
    placeholder: "label = 'chair' and faces < 5000",
    maxlength: 4000,
    onchange: apply,
  });
  const append = (condition) => {
    expression.value = expression.value.trim() ? `${expression.value.trim()} and ${condition}` : condition;
    apply();
  };
  const clear = () => {
    expression.value = "";
    apply();
  };
  summary = make("summary", {}, "Filter");
  place.replaceChildren(
    summary,
    make(
      "div",
      { class: "stack" },
      conditionRow(columns, append),
      field("Filter expression", expression),
      make("div", { class: "row" }, button("Clear filter", clear, { class: "quiet" })),
    ),
  );
}

/** Controls for one condition; `append(condition)` adds it to the filter. */
function conditionRow(columns, append) {
  const values = make("datalist", { id: "filter-values" });
  const value = make("input", { list: "filter-values", "aria-label": "Value", placeholder: "value" });
  const toggleValue = () => {
    value.disabled = /null/.test(operator.value);
  };
  const operator = select(OPERATORS, "=", toggleValue, { "aria-label": "Comparison" });
  const suggest = () =>
    values.replaceChildren(
      ...[...(known.get(column.value) ?? [])].slice(0, MAX_VALUES).map((text) => make("option", { value: text })),
    );
  const names = columns.map((name) => [name, name]);
  const first = columns.includes("label") ? "label" : columns[0];
  const column = select(names, first, suggest, { "aria-label": "Label or fact" });
  function add() {
    if (!value.disabled && !value.value.trim()) return value.focus();
    const condition = conditionOf(column.value, operator.value, value.value.trim());
    value.value = "";
    append(condition);
  }
  value.addEventListener("focus", suggest);
  value.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    add();
  });
  return make("div", { class: "row" }, column, operator, value, values, button("Add condition", add));
}

/** Show the filter of the current query. */
export function showFilter() {
  expression.value = query.where;
  summary.textContent = query.where.trim() ? `Filter: ${query.where}` : "Filter";
  summary.classList.toggle("set", Boolean(query.where.trim()));
}

/** Remember the values of some objects as suggestions. */
export function rememberValues(objects) {
  for (const { metadata, facts, id } of objects) {
    for (const [name, value] of Object.entries({ ...facts, ...metadata, id })) {
      if (value === null || typeof value === "object") continue;
      if (!known.has(name)) known.set(name, new Set());
      if (known.get(name).size < MAX_VALUES) known.get(name).add(value);
    }
  }
}

export function conditionOf(column, operator, value) {
  const name =
    /^[\p{L}_][\p{L}\p{N}_]*$/u.test(column) && !KEYWORDS.has(column.toLowerCase())
      ? column
      : `"${column.replaceAll('"', '""')}"`;
  if (operator.includes("null")) return `${name} ${operator}`;
  if (operator === "like") return `${name} like ${quoted(`%${value}%`)}`;
  const isText = [...(known.get(column) ?? [])].some((other) => typeof other === "string");
  return `${name} ${operator} ${!isText && /^-?\d+(\.\d+)?$/.test(value) ? value : quoted(value)}`;
}

const quoted = (text) => `'${text.replaceAll("'", "''")}'`;
