// One object in a dialog: to be turned, with its facts, why it was found, and what can be done with it.

import { json, pathOf, request, sentence, sendJson } from "./api.js";
import { button, byId, dialogHead, make } from "./element.js";
import { labelEditor } from "./labels.js";
import { addressOf, forgetPictures, modelPath, showPicture, thumbnailPath } from "./pictures.js";
import { lastPart, weightOf } from "./question.js";
import { percent } from "./results.js";
import { showViewer } from "./viewer.js";

const dialog = byId("hit");
const FACTS = { format: "Format", faces: "Faces", vertices: "Vertices", textured: "Textured", up: "Up", path: "File" };
let viewer = null;

/**
 * Open an object.
 *
 * `asked` is null or { terms, sources }: the terms of the question and what the service saw of each. `actions`: moreLike(id),
 * addTerm(id, minus), removed(id), changed(object), columns, writable.
 */
export function openHit(hit, asked, actions) {
  const name = lastPart(hit.id);
  const place = make("div", { class: "viewer" });
  const back = button("Turn it back", () => viewer?.reset(), { class: "quiet reset" });
  const labels = make("div", { class: "stack" });
  const notes = make("ul", { class: "notes" });
  const facts = make("dl", { class: "facts" });
  const said = make("p", { class: "problem", role: "alert" });
  const write = make("div", { class: "stack" });
  const fill = (object) => {
    facts.replaceChildren(...factsOf(object));
    labels.replaceChildren(labelsOf(object));
    notes.replaceChildren(...(object.notes ?? []).map((note) => make("li", {}, sentence(note))));
    if (actions.writable) write.replaceChildren(...writing(object, write, said, fill, actions));
  };
  dialog.replaceChildren(
    dialogHead(dialog, name),
    make(
      "div",
      { class: "hit-body" },
      make("div", { class: "hit-look" }, make("div", { class: "viewer-frame" }, place, back), match(hit, asked)),
      make(
        "div",
        { class: "hit-facts stack" },
        make("p", { class: "id" }, hit.id),
        scores(hit, asked),
        make(
          "div",
          { class: "row" },
          button("More like this", () => actions.moreLike(hit.id), { class: "main" }),
          button("+ Add to the question", () => actions.addTerm(hit.id, false)),
          button("− Not like this", () => actions.addTerm(hit.id, true)),
        ),
        facts,
        labels,
        notes,
        make(
          "div",
          { class: "row" },
          button("Download GLB", () => download(hit.id, name, said), { class: "quiet" }),
        ),
        write,
        said,
      ),
    ),
  );
  fill(hit);
  viewer?.close();
  viewer = showViewer(place, { id: hit.id, name, view: hit.best_view, plain: !hit.facts?.textured });
  dialog.dataset.shows = hit.id;
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  json(pathOf("objects", hit.id)).then(
    (object) => dialog.open && fill(object),
    (error) => {
      said.textContent = sentence(error.message);
    },
  );
}

dialog.addEventListener("close", () => {
  viewer?.close();
  viewer = null;
});
// A click beside the dialog closes it.
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close();
});

function factsOf({ facts, path }) {
  const known = { ...facts, path };
  return Object.entries(FACTS)
    .filter(([key]) => known[key] !== undefined && known[key] !== null)
    .flatMap(([key, name]) => [make("dt", {}, name), make("dd", {}, plain(key, known[key]))]);
}

function plain(key, value) {
  if (key === "textured") return value ? "yes" : "no";
  return typeof value === "number" ? value.toLocaleString("en-GB") : String(value);
}

function labelsOf({ metadata }) {
  const entries = Object.entries(metadata ?? {}).filter(([, value]) => value !== null);
  if (!entries.length) return make("p", { class: "hint" }, "No labels.");
  return make(
    "dl",
    { class: "facts" },
    entries.flatMap(([key, value]) => [make("dt", {}, key), make("dd", {}, String(value))]),
  );
}

function scores(hit, asked) {
  if (hit.score === undefined) return null;
  const parts =
    hit.parts?.length === asked?.terms.length
      ? asked.sources.map((source, i) => `${source.label} ${hit.parts[i].toFixed(2)}`)
      : [];
  return make(
    "p",
    {},
    make("strong", {}, `Score ${hit.score.toFixed(3)}`),
    `, rank ${hit.rank}`,
    typeof hit.confidence === "number" && `, ${percent(hit.confidence)} sure`,
    parts.length > 1 && make("small", { class: "hint" }, ` (${parts.join(", ")})`),
  );
}

/** The view that matched beside the one of the question that it is most like. */
function match(hit, asked) {
  const best = hit.best_view;
  if (!best) return null;
  const where =
    best.azimuth_deg === undefined || best.azimuth_deg === null
      ? `view ${best.view + 1}`
      : `seen from ${Math.round(best.azimuth_deg)}°`;
  const found = picture(thumbnailPath(hit.id, best.view), `Found: ${where}`);
  const yours = asked && questionView(asked, best.query_view);
  return make(
    "div",
    { class: "match" },
    yours ? make("figure", {}, yours.image, make("figcaption", {}, yours.caption)) : null,
    make("figure", {}, found, make("figcaption", {}, `Found: ${where}`)),
    make(
      "p",
      { class: "hint" },
      (yours ? "These views match best" : "This view matches best") +
        (asked?.terms.length === 1 ? `: similarity ${best.similarity.toFixed(2)}.` : "."),
    ),
  );
}

function questionView({ terms, sources }, queryView) {
  if (queryView === undefined || queryView === null) return null;
  // The service compares with the first of these.
  const at = terms.findIndex((term) => term.kind !== "text" && weightOf(term) > 0);
  if (at < 0) return null;
  const views = sources[at]?.views ?? [];
  const caption = `Asked: ${terms[at].strokes ? "sketch" : lastPart(sources[at]?.label ?? "")}`;
  if (terms[at].kind === "id") return { image: picture(thumbnailPath(terms[at].id, queryView), caption), caption };
  const address = views[Math.min(queryView, views.length - 1)];
  return address ? { image: make("img", { src: address, alt: caption, width: 112, height: 112 }), caption } : null;
}

function picture(path, alt) {
  const image = make("img", { alt, width: 112, height: 112 });
  showPicture(image, path, { lazy: false });
  return image;
}

async function download(id, name, said) {
  try {
    const link = make("a", { href: await addressOf(modelPath(id)), download: `${name.replace(/\.[^.]+$/, "")}.glb` });
    document.body.append(link);
    link.click();
    link.remove();
  } catch (error) {
    said.textContent = sentence(error.message);
  }
}

function writing(object, place, said, fill, actions) {
  const tried = (work) => async () => {
    said.textContent = "";
    try {
      await work();
    } catch (error) {
      said.textContent = sentence(error.message);
    }
  };
  const edit = () => {
    const editor = labelEditor(object.metadata, actions.columns);
    const save = tried(async () => {
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
    const keep = button("Keep it", () => fill(object));
    const remove = tried(async () => {
      await request(pathOf("objects", object.id), { method: "DELETE" });
      forgetPictures(object.id);
      dialog.close();
      actions.removed(object.id);
    });
    place.replaceChildren(
      make(
        "p",
        {},
        `Delete ${lastPart(object.id)} from the collection? A file that was indexed from a folder stays where it is.`,
      ),
      make("div", { class: "row" }, button("Delete it", remove, { class: "danger" }), keep),
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
