// Search options.

import { byId, field, make, select, upAxisSelect } from "./element.js";
import { DEFAULTS, query } from "./query.js";

const place = byId("options");
const controls = {};
let summary = null;

export function buildOptions(isCalibrated, search) {
  const number = (name, min, max) => {
    const input = make("input", {
      type: "number",
      min,
      max,
      step: 1,
      inputmode: "numeric",
      onchange: () => {
        const value = Math.round(Number(input.value));
        const isNumber = Number.isFinite(value) && input.value !== "";
        query[name] = isNumber ? Math.min(Math.max(value, min), max) : DEFAULTS[name];
        search();
      },
    });
    return (controls[name] = input);
  };
  const choose = (name) => (event) => {
    query[name] = event.target.value;
    search();
  };
  const backgrounds = [
    ["auto", "white if uniform"],
    ["keep", "keep"],
  ];
  controls.up = upAxisSelect(query.up, choose("up"));
  controls.background = select(backgrounds, query.background, choose("background"));
  const confidence = field(
    "Minimum confidence in %",
    number("confidence", 0, 100),
    "Leaves out hits with a lower confidence: the probability of the query's class, or of the same object if calibrated without a label. Not for mixtures.",
  );
  confidence.hidden = !isCalibrated;
  summary = make("summary", {}, "Options");
  place.replaceChildren(
    summary,
    make(
      "div",
      { class: "fields" },
      field("Results", number("k", 1, 1000)),
      field(
        "Re-rank by views",
        number("rerank", 0, 1000),
        "Compares this many best hits with the query view by view. Slower, and often more accurate.",
      ),
      field(
        "Expand with neighbours",
        number("expand", 0, 100),
        "Averages the query with this many nearest objects and searches again.",
      ),
      field("Up axis of mesh files", controls.up),
      field("Background of images", controls.background),
      confidence,
    ),
  );
}

/** Show the options of the current query. */
export function showOptions() {
  for (const [name, control] of Object.entries(controls)) control.value = query[name];
  const nSet = Object.entries(DEFAULTS).filter(([name, usual]) => query[name] !== usual).length;
  summary.textContent = nSet ? `Options (${nSet} set)` : "Options";
  summary.classList.toggle("set", nSet > 0);
}
