// The terms of the question below the box: each with its picture, plus or minus, its weight, and what else it can do.

import { button, byId, make } from "./element.js";
import { showPicture, thumbnailPath } from "./pictures.js";
import { labelOf, newTerm, question, setMinus } from "./question.js";
import { textOf } from "./words.js";

const list = byId("terms");
const addresses = new Map(); // file -> address of its blob

/** `actions`: ask(), editSketch(term), addMesh(files) or null where nobody may add. */
export function showTerms(actions) {
  const focused = document.activeElement?.dataset?.focus;
  forgetFiles();
  const alone = question.terms.length === 1 && question.terms[0].kind === "text" && !question.terms[0].minus;
  list.replaceChildren(...(alone ? [] : question.terms.map((term) => item(term, actions))));
  const single = question.terms.filter((term) => term.kind === "images" && !term.strokes);
  if (single.length > 1) {
    list.append(
      make(
        "li",
        { class: "term-action" },
        button("They all show one object", () => join(single, actions), { class: "quiet" }),
      ),
    );
  }
  if (focused) list.querySelector(`[data-focus="${focused}"]`)?.focus();
}

function item(term, actions) {
  const name = labelOf(term);
  const weight = make("input", {
    type: "range",
    min: 0.1,
    max: Math.max(2, term.size),
    step: 0.1,
    "aria-label": `Weight of ${name}`,
    "data-focus": `weight-${term.key}`,
    onchange: () => actions.ask(),
    oninput: (event) => {
      term.size = Number(event.target.value);
      shown.textContent = term.size.toFixed(1);
    },
  });
  weight.value = term.size;
  const shown = make("output", {}, term.size.toFixed(1));
  const several = question.terms.length > 1;
  return make(
    "li",
    { class: term.minus ? "term minus" : "term" },
    picture(term, actions),
    make("span", { class: "term-name", title: term.id ?? name }, name),
    several &&
      button(term.minus ? "−" : "+", () => flip(term, actions), {
        class: "sign",
        "aria-pressed": String(term.minus),
        "data-focus": `sign-${term.key}`,
        "aria-label": `Not like ${name}`,
        title: term.minus ? "should not be like this" : "should be like this",
      }),
    several && make("span", { class: "weight" }, weight, shown),
    term.kind === "images" &&
      term.files.length > 1 &&
      button("Separate", () => split(term, actions), { class: "quiet" }),
    term.kind === "mesh" && term.files.length > 1 && make("small", {}, `with ${term.files.length - 1} more`),
    term.kind === "mesh" &&
      actions.addMesh &&
      button("Add…", () => actions.addMesh(term.files), {
        class: "quiet",
        "aria-label": `Add ${name} to the collection`,
        title: "Add it to the collection",
      }),
    button("×", () => remove(term, actions), { class: "remove", "aria-label": `Leave out ${name}` }),
  );
}

function picture(term, actions) {
  if (term.kind === "text") return null;
  if (term.kind === "mesh")
    return make("span", { class: "term-picture letters", "aria-hidden": "true" }, suffix(term.files[0].name));
  if (term.kind === "id") {
    const image = make("img", { class: "term-picture", alt: "", width: 40, height: 40 });
    showPicture(image, thumbnailPath(term.id), { lazy: false });
    return image;
  }
  const images = term.files
    .slice(0, 4)
    .map((file) => make("img", { class: "term-picture", alt: "", width: 40, height: 40, src: addressOfFile(file) }));
  if (!term.strokes) return images;
  return make(
    "button",
    {
      type: "button",
      class: "term-picture",
      "aria-label": "Change the sketch",
      onclick: () => actions.editSketch(term),
    },
    images,
  );
}

const suffix = (name) => name.match(/\.([^.]+)$/)?.[1].slice(0, 4) ?? "";

function addressOfFile(file) {
  if (!addresses.has(file)) addresses.set(file, URL.createObjectURL(file));
  return addresses.get(file);
}

function forgetFiles() {
  const used = new Set(question.terms.flatMap((term) => term.files ?? []));
  for (const [file, address] of addresses) {
    if (used.has(file)) continue;
    URL.revokeObjectURL(address);
    addresses.delete(file);
  }
}

/** The box again after word terms changed below it. */
export function rewriteBox() {
  byId("words").value = textOf(question.terms.filter((term) => term.kind === "text"));
}

function flip(term, actions) {
  setMinus(term, !term.minus);
  again(actions);
}

function remove(term, actions) {
  question.terms = question.terms.filter((other) => other !== term);
  again(actions);
  byId("words").focus({ preventScroll: true });
}

function split(term, actions) {
  const alone = term.files.map((file) => ({ ...newTerm("images", { files: [file] }, term.minus), size: term.size }));
  question.terms = question.terms.flatMap((other) => (other === term ? alone : [other]));
  again(actions);
}

function join(terms, actions) {
  const joined = { ...terms[0], files: terms.flatMap((term) => term.files) };
  question.terms = question.terms
    .filter((term) => term === terms[0] || !terms.includes(term))
    .map((term) => (term === terms[0] ? joined : term));
  again(actions);
}

function again(actions) {
  rewriteBox();
  actions.ask();
}
