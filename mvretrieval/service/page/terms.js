// The terms of the query below the search box: each with its image, sign, weight and actions.

import { button, byId, make } from "./element.js";
import { showImage, thumbnailPath } from "./images.js";
import { labelOf, newTerm, query, setMinus } from "./query.js";
import { formatText } from "./query_text.js";

const list = byId("terms");
const urls = new Map(); // file -> its blob URL

/** `actions`: search(), editSketch(term), addMesh(files) or null if the service is read-only. */
export function showTerms(actions) {
  const focused = document.activeElement?.dataset?.focus;
  revokeUnusedUrls();
  const isPlainText = query.terms.length === 1 && query.terms[0].kind === "text" && !query.terms[0].minus;
  list.replaceChildren(...(isPlainText ? [] : query.terms.map((term) => item(term, actions))));
  const single = query.terms.filter((term) => term.kind === "images" && !term.strokes);
  if (single.length > 1) {
    list.append(
      make(
        "li",
        { class: "term-action" },
        button("All show one object", () => join(single, actions), { class: "quiet" }),
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
    onchange: () => actions.search(),
    oninput: (event) => {
      term.size = Number(event.target.value);
      shown.textContent = term.size.toFixed(1);
    },
  });
  weight.value = term.size;
  const shown = make("output", {}, term.size.toFixed(1));
  const several = query.terms.length > 1;
  return make(
    "li",
    { class: term.minus ? "term minus" : "term" },
    preview(term, actions),
    make("span", { class: "term-name", title: term.id ?? name }, name),
    several &&
      button(term.minus ? "−" : "+", () => flip(term, actions), {
        class: "sign",
        "aria-pressed": String(term.minus),
        "data-focus": `sign-${term.key}`,
        "aria-label": `Not like ${name}`,
        title: term.minus ? "objects should not look like this" : "objects should look like this",
      }),
    several && make("span", { class: "weight" }, weight, shown),
    term.kind === "images" &&
      term.files.length > 1 &&
      button("Separate", () => split(term, actions), { class: "quiet" }),
    term.kind === "mesh" && term.files.length > 1 && make("small", {}, `with ${term.files.length - 1} more files`),
    term.kind === "mesh" &&
      actions.addMesh &&
      button("Add…", () => actions.addMesh(term.files), {
        class: "quiet",
        "aria-label": `Add ${name} to the collection`,
        title: "Add it to the collection",
      }),
    button("×", () => remove(term, actions), { class: "remove", "aria-label": `Remove ${name} from the query` }),
  );
}

function preview(term, actions) {
  if (term.kind === "text") return null;
  if (term.kind === "mesh") return suffixBox(term.files[0]);
  if (term.kind === "id") {
    const image = make("img", { class: "term-image", alt: "", width: 40, height: 40 });
    showImage(image, thumbnailPath(term.id), { lazy: false });
    return image;
  }
  const images = term.files.slice(0, 4).map(fileImage);
  if (!term.strokes) return images;
  return make(
    "button",
    {
      type: "button",
      class: "term-image",
      "aria-label": "Change the sketch",
      onclick: () => actions.editSketch(term),
    },
    images,
  );
}

/** The image of a file, or its suffix if the browser cannot decode it. */
function fileImage(file) {
  const image = make("img", { class: "term-image", alt: "", width: 40, height: 40, src: urlOfFile(file) });
  image.addEventListener("error", () => image.replaceWith(suffixBox(file)), { once: true });
  return image;
}

function suffixBox(file) {
  const suffix = file.name.match(/\.([^.]+)$/)?.[1].slice(0, 4) ?? "";
  return make("span", { class: "term-image suffix", "aria-hidden": "true" }, suffix);
}

function urlOfFile(file) {
  if (!urls.has(file)) urls.set(file, URL.createObjectURL(file));
  return urls.get(file);
}

function revokeUnusedUrls() {
  const used = new Set(query.terms.flatMap((term) => term.files ?? []));
  for (const [file, url] of urls) {
    if (used.has(file)) continue;
    URL.revokeObjectURL(url);
    urls.delete(file);
  }
}

/** Write the text terms into the search box after they were changed below it. */
export function updateSearchBox() {
  byId("text").value = formatText(query.terms.filter((term) => term.kind === "text"));
}

function flip(term, actions) {
  setMinus(term, !term.minus);
  update(actions);
}

function remove(term, actions) {
  query.terms = query.terms.filter((other) => other !== term);
  update(actions);
  byId("text").focus({ preventScroll: true });
}

function split(term, actions) {
  const separate = term.files.map((file) => ({ ...newTerm("images", { files: [file] }, term.minus), size: term.size }));
  query.terms = query.terms.flatMap((other) => (other === term ? separate : [other]));
  update(actions);
}

function join(terms, actions) {
  const joined = { ...terms[0], files: terms.flatMap((term) => term.files) };
  query.terms = query.terms
    .filter((term) => term === terms[0] || !terms.includes(term))
    .map((term) => (term === terms[0] ? joined : term));
  update(actions);
}

function update(actions) {
  updateSearchBox();
  actions.search();
}
