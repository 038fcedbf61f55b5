// Files that could not be indexed.

import { json, sentence } from "./api.js";
import { byId, dialogHead, make } from "./element.js";

const dialog = byId("failures");

export async function openFailures() {
  const list = make("ul", { class: "failures" }, make("li", {}, "Loading…"));
  dialog.replaceChildren(dialogHead(dialog, "Files that could not be indexed"), list);
  dialog.showModal();
  try {
    const failures = await json("/api/failures");
    list.replaceChildren(
      ...failures.map(({ file, code, message }) =>
        make("li", {}, make("strong", {}, file), " ", make("code", {}, code), make("p", {}, sentence(message))),
      ),
    );
    if (!failures.length) list.replaceChildren(make("li", {}, "All files were indexed."));
  } catch (error) {
    list.replaceChildren(make("li", { class: "problem" }, sentence(error.message)));
  }
}
