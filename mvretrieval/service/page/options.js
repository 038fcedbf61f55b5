// How the question is asked.

import { byId, field, make, select } from "./element.js";
import { DEFAULTS, question } from "./question.js";

const place = byId("options");
const controls = {};
let summary = null;

export function buildOptions(isCalibrated, ask) {
  const number = (name, min, max) => {
    const input = make("input", {
      type: "number",
      min,
      max,
      step: 1,
      inputmode: "numeric",
      onchange: () => {
        const value = Math.round(Number(input.value));
        question[name] =
          Number.isFinite(value) && input.value !== "" ? Math.min(Math.max(value, min), max) : DEFAULTS[name];
        ask();
      },
    });
    return (controls[name] = input);
  };
  const choice = (name, choices) =>
    (controls[name] = select(choices, question[name], (event) => {
      question[name] = event.target.value;
      ask();
    }));
  const surest = field(
    "Least sure, in per cent",
    number("sure", 0, 100),
    "Leaves out what is less likely to be of the question's kind. Not in mixtures.",
  );
  surest.hidden = !isCalibrated;
  summary = make("summary", {}, "Options");
  place.replaceChildren(
    summary,
    make(
      "div",
      { class: "fields" },
      field("Results", number("k", 1, 1000)),
      field(
        "Match views of the best",
        number("match", 0, 1000),
        "Compares so many objects view by view. Slower, and often better.",
      ),
      field("Expand with neighbours", number("expand", 0, 100), "Asks again with so many nearest objects mixed in."),
      field(
        "Up in mesh files",
        choice("up", [["", "by format"], ...["+y", "+z", "+x", "-y", "-z", "-x"].map((axis) => [axis, axis])]),
      ),
      field(
        "Background of pictures",
        choice("background", [
          ["auto", "make plain ones white"],
          ["keep", "keep"],
        ]),
      ),
      surest,
    ),
  );
}

/** What the question says now. */
export function showOptions() {
  for (const [name, control] of Object.entries(controls)) control.value = question[name];
  const set = Object.entries(DEFAULTS).filter(([name, usual]) => question[name] !== usual).length;
  summary.textContent = set ? `Options (${set} set)` : "Options";
  summary.classList.toggle("set", set > 0);
}
