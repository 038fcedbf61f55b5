// One object in a dialog: 3D view, scores, best matching view, facts, labels and actions.

import { json, pathOf, request, sentence, sendJson } from "./api.js";
import { button, byId, dialogHead, make } from "./element.js";
import { labelEditor } from "./labels.js";
import { urlOf, forgetImages, modelPath, showImage, thumbnailPath } from "./images.js";
import { baseName, weightOf } from "./query.js";
import { percent } from "./results.js";
import { showViewer } from "./viewer.js";

const dialog = byId("hit");
const FACTS = { format: "Format", faces: "Faces", vertices: "Vertices", textured: "Textured", up: "Up axis", path: "File" };
let viewer = null;

/**
 * Open an object.
 *
 * `searched` is null or { terms, views }: the terms of the query, and the views that the service rendered for each. `actions`:
 * moreLike(id), addTerm(id, minus), removed(id), changed(object), columns, writable.
 */
export function openHit(hit, searched, actions) {
  const name = baseName(hit.id);
  const place = make("div", { class: "viewer" });
  const reset = button("Reset view", () => viewer?.reset(), { class: "quiet reset" });
  const labels = make("div", { class: "stack" });
  const notes = make("ul", { class: "notes" });
  const facts = make("dl", { class: "facts" });
  const errorText = make("p", { class: "problem", role: "alert" });
  const edit = make("div", { class: "stack" });
  const describe = (object) => {
    facts.replaceChildren(...factsOf(object));
    labels.replaceChildren(labelsOf(object));
    notes.replaceChildren(...notesOf(object));
  };
  // Editing waits for the object itself: an answer that came later would close an editor that is in use.
  const fill = (object) => {
    describe(object);
    if (actions.writable) edit.replaceChildren(...editing(object, edit, errorText, fill, actions));
  };
  dialog.replaceChildren(
    dialogHead(dialog, name),
    make(
      "div",
      { class: "hit-body" },
      actions.hasImages &&
        make("div", { class: "hit-look" }, make("div", { class: "viewer-frame" }, place, reset), match(hit, searched)),
      make(
        "div",
        { class: "hit-facts stack" },
        make("p", { class: "id" }, hit.id),
        scores(hit, searched),
        queryButtons(hit.id, actions),
        facts,
        labels,
        notes,
        actions.hasImages && make(
          "div",
          { class: "row" },
          button("Download GLB", () => download(hit.id, name, errorText), { class: "quiet" }),
        ),
        edit,
        errorText,
      ),
    ),
  );
  describe(hit);
  viewer?.close();
  viewer = actions.hasImages
    ? showViewer(place, { id: hit.id, name, view: hit.best_view, plain: !hit.facts?.textured })
    : null;
  dialog.dataset.shows = hit.id;
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  json(pathOf("objects", hit.id)).then(
    (object) => dialog.open && fill(object),
    (error) => {
      errorText.textContent = sentence(error.message);
    },
  );
}

dialog.addEventListener("close", () => {
  viewer?.close();
  viewer = null;
});
// A click outside closes the dialog.
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close();
});

function factsOf({ facts, path }) {
  const known = { ...facts, path: facts?.format === "vectors" ? undefined : path }; // imported vectors have no file
  return Object.entries(FACTS)
    .filter(([key]) => known[key] !== undefined && known[key] !== null)
    .flatMap(([key, name]) => [make("dt", {}, name), make("dd", {}, plain(key, known[key]))]);
}

function plain(key, value) {
  if (key === "textured") return value ? "yes" : "no";
  return typeof value === "number" ? value.toLocaleString("en-GB") : String(value);
}

const notesOf = ({ notes }) => (notes ?? []).map((note) => make("li", {}, sentence(note)));

function labelsOf({ metadata }) {
  const entries = Object.entries(metadata ?? {}).filter(([, value]) => value !== null);
  if (!entries.length) return make("p", { class: "hint" }, "No labels.");
  return make(
    "dl",
    { class: "facts" },
    entries.flatMap(([key, value]) => [make("dt", {}, key), make("dd", {}, String(value))]),
  );
}

function queryButtons(id, actions) {
  return make(
    "div",
    { class: "row" },
    button("More like this", () => actions.moreLike(id), { class: "main" }),
    button("+ Add to the query", () => actions.addTerm(id, false)),
    button("− Not like this", () => actions.addTerm(id, true)),
  );
}

function scores(hit, searched) {
  if (hit.score === undefined) return null;
  const parts =
    hit.parts?.length === searched?.terms.length
      ? searched.views.map((term, i) => `${term.label} ${hit.parts[i].toFixed(2)}`)
      : [];
  return make(
    "p",
    {},
    make("strong", {}, `Score ${hit.score.toFixed(3)}`),
    `, rank ${hit.rank}`,
    typeof hit.confidence === "number" && `, confidence ${percent(hit.confidence)}`,
    parts.length > 1 && make("small", { class: "hint" }, ` (${parts.join(", ")})`),
  );
}

/** The best matching view beside the most similar view of the query. */
function match(hit, searched) {
  const best = hit.best_view;
  if (!best) return null;
  const direction =
    best.azimuth_deg === undefined || best.azimuth_deg === null
      ? `view ${best.view + 1}`
      : `from ${Math.round(best.azimuth_deg)}°`;
  const caption = `Hit: ${direction}`;
  const found = thumbnail(thumbnailPath(hit.id, best.view), caption);
  const yours = searched && queryView(searched, best.query_view);
  return make(
    "div",
    { class: "match" },
    yours ? make("figure", {}, yours.image, make("figcaption", {}, yours.caption)) : null,
    make("figure", {}, found, make("figcaption", {}, caption)),
    make(
      "p",
      { class: "hint" },
      (yours ? "Best matching views" : "Best matching view") +
        (searched?.terms.length === 1 ? `: cosine ${best.similarity.toFixed(2)}.` : "."),
    ),
  );
}

function queryView({ terms, views }, view) {
  if (view === undefined || view === null) return null;
  // The service compares with the first term of this kind.
  const at = terms.findIndex((term) => term.kind !== "text" && weightOf(term) > 0);
  if (at < 0) return null;
  const urls = views[at]?.views ?? [];
  const caption = `Query: ${terms[at].strokes ? "sketch" : baseName(views[at]?.label ?? "")}`;
  if (terms[at].kind === "id") return { image: thumbnail(thumbnailPath(terms[at].id, view), caption), caption };
  const url = urls[Math.min(view, urls.length - 1)];
  return url ? { image: make("img", { src: url, alt: caption, width: 112, height: 112 }), caption } : null;
}

function thumbnail(path, alt) {
  const image = make("img", { alt, width: 112, height: 112 });
  showImage(image, path, { lazy: false });
  return image;
}

async function download(id, name, errorText) {
  try {
    const link = make("a", { href: await urlOf(modelPath(id)), download: `${name.replace(/\.[^.]+$/, "")}.glb` });
    document.body.append(link);
    link.click();
    link.remove();
  } catch (error) {
    errorText.textContent = sentence(error.message);
  }
}

function editing(object, place, errorText, fill, actions) {
  const withErrors = (work) => async () => {
    errorText.textContent = "";
    try {
      await work();
    } catch (error) {
      errorText.textContent = sentence(error.message);
    }
  };
  const edit = () => {
    const editor = labelEditor(object.metadata, actions.columns);
    const save = withErrors(async () => {
      const changes = editor.read();
      const after = Object.keys(changes).length
        ? await sendJson("PATCH", pathOf("objects", object.id), { metadata: changes })
        : object;
      fill(after);
      actions.changed(after);
    });
    place.replaceChildren(
      editor.element,
      make(
        "div",
        { class: "row" },
        button("Save labels", save, { class: "main" }),
        button("Cancel", () => fill(object)),
      ),
    );
    editor.element.querySelector("input").focus();
  };
  const confirm = () => {
    const keep = button("Cancel", () => fill(object));
    const remove = withErrors(async () => {
      await request(pathOf("objects", object.id), { method: "DELETE" });
      forgetImages(object.id);
      dialog.close();
      actions.removed(object.id);
    });
    place.replaceChildren(
      make(
        "p",
        {},
        `Delete ${baseName(object.id)} from the collection? A file that was indexed from a folder is not deleted.`,
      ),
      make("div", { class: "row" }, button("Delete", remove, { class: "danger" }), keep),
    );
    keep.focus();
  };
  return [
    make(
      "div",
      { class: "row" },
      button("Edit labels", edit, { class: "quiet" }),
      button("Delete…", confirm, { class: "quiet" }),
    ),
  ];
}
