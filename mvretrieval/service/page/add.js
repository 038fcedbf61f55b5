// Adds meshes to the collection; needs the token.

import { request, sentence } from "./api.js";
import { button, byId, dialogHead, field, make, select } from "./element.js";
import { termsOf } from "./files.js";
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
  const input = make("input", {
    type: "file",
    multiple: true,
    accept: [...formats, ".mtl", ".bin", "image/*"].join(","),
    onchange: () => take([...input.files]),
  });
  const id = make("input", { maxlength: 4096, placeholder: "name of the file" });
  const up = select([["", "by format"], ...["+y", "+z", "+x", "-y", "-z", "-x"].map((axis) => [axis, axis])], "", null);
  const labels = labelEditor({}, columns);
  const send = make("button", { class: "main" }, "Add to the collection");
  take = async (given) => {
    const { terms } = await termsOf(given, formats);
    chosen = terms.filter((term) => term.kind === "mesh").map((term) => term.files);
    errorText.textContent = chosen.length ? "" : `Not a mesh: choose a file with one of the suffixes ${formats.join(", ")}.`;
    fileNames.textContent = chosen
      .map(([mesh, ...others]) => mesh.name + (others.length ? ` with ${others.length} more files` : ""))
      .join(", ");
    id.disabled = chosen.length > 1;
    send.disabled = !chosen.length;
  };
  async function submit(event) {
    event.preventDefault();
    send.disabled = true;
    errorText.textContent = "";
    const done = [];
    try {
      for (const each of chosen) {
        result.replaceChildren(`Adding ${each[0].name}…`);
        done.push(await post(each, !id.disabled && id.value.trim(), up.value, labels.read()));
        added(done.at(-1));
      }
      chosen = [];
      fileNames.textContent = input.value = id.value = "";
    } catch (error) {
      errorText.textContent = sentence(error.message);
      send.disabled = false;
    }
    result.replaceChildren(
      ...done.map((object) =>
        make(
          "p",
          {},
          `Added ${object.id}. `,
          button(
            "Open",
            () => {
              dialog.close();
              open(object);
            },
            { class: "quiet" },
          ),
        ),
      ),
    );
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
