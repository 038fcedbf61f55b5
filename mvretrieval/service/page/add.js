// Adds meshes to the collection; needs the token.

import { request, sentence } from "./api.js";
import { button, byId, dialogHead, field, make, upAxisSelect } from "./element.js";
import { acceptFor, termsOf } from "./files.js";
import { labelEditor } from "./labels.js";

const dialog = byId("add");
let take = null; // receives files that are dropped while the dialog is open

export const isAdding = () => dialog.open;
export const takeFilesToAdd = (files) => take?.(files);

/** `formats` of meshes; `columns` to suggest label names; `added(object)` and `open(object)` are called afterwards. */
export function openAdd(files, { formats, columns, added, open }) {
  let chosen = [];
  const fileNames = make("p", { class: "hint" });
  const errorText = make("p", { class: "problem", role: "alert" });
  const result = make("div", { role: "status" });
  const accept = acceptFor(formats);
  const input = make("input", { type: "file", multiple: true, accept, onchange: () => take([...input.files]) });
  const id = make("input", { maxlength: 4096, placeholder: "name of the file" });
  const up = upAxisSelect("", null);
  const labels = labelEditor({}, columns);
  const send = make("button", { class: "main" }, "Add to the collection");
  take = async (given) => {
    const { terms } = await termsOf(given, formats);
    chosen = terms.filter((term) => term.kind === "mesh").map((term) => term.files);
    errorText.textContent = chosen.length ? "" : `Not a mesh: choose a file with one of the suffixes ${formats.join(", ")}.`;
    fileNames.textContent = namesOf(chosen);
    id.disabled = chosen.length > 1;
    send.disabled = !chosen.length;
  };
  async function submit(event) {
    event.preventDefault();
    send.disabled = true;
    errorText.textContent = "";
    const done = [];
    try {
      for (; chosen.length; chosen = chosen.slice(1)) {
        result.replaceChildren(`Adding ${chosen[0][0].name}…`);
        done.push(await post(chosen[0], !id.disabled && id.value.trim(), up.value, labels.read()));
        added(done.at(-1));
      }
      input.value = id.value = "";
    } catch (error) {
      errorText.textContent = sentence(error.message);
      send.disabled = false;
    }
    fileNames.textContent = namesOf(chosen); // those that are left after an error
    result.replaceChildren(...done.map((object) => addedMessage(object, open)));
  }
  dialog.replaceChildren(
    dialogHead(dialog, "Add a mesh"),
    make(
      "form",
      { class: "stack", onsubmit: submit },
      field("Mesh, with its materials and textures", input, "Or drop the files here."),
      fileNames,
      field("Id", id, "An existing object with this id is not replaced."),
      field("Up axis of the file", up),
      make("fieldset", {}, make("legend", {}, "Labels"), labels.element),
      make("div", { class: "row" }, send),
      errorText,
      result,
    ),
  );
  send.disabled = true;
  if (files.length) take(files);
  dialog.showModal();
}

const namesOf = (meshes) =>
  meshes
    .map(([mesh, ...others]) => mesh.name + (others.length ? ` with ${others.length} more files` : ""))
    .join(", ");

/** Message about an added object, with a button that opens it. */
function addedMessage(object, open) {
  const openObject = () => {
    dialog.close();
    open(object);
  };
  return make("p", {}, `Added ${object.id}. `, button("Open", openObject, { class: "quiet" }));
}

async function post(files, id, up, labels) {
  const form = new FormData();
  for (const file of files) form.append("files", file, file.name);
  if (id) form.append("id", id);
  if (up) form.append("up", up);
  if (Object.keys(labels).length) form.append("metadata", JSON.stringify(labels));
  return (await request("/api/objects", { method: "POST", body: form })).json();
}

dialog.addEventListener("close", () => {
  take = null;
});
