// The notice that the encoder has no text tower, with the command for one that has, and a search in the names instead.

import { sentence } from "./api.js";
import { button, byId, make } from "./element.js";

const place = byId("notice");

/** `hint` comes from the service: the reason, a colon and the command. */
export function showNoTextNotice(hint, text, searchNames) {
  const [reason, command] = (hint ?? "").split(/: (?=mvr )/);
  place.replaceChildren(
    make("p", {}, sentence(reason || "This collection's encoder has no text tower")),
    command ? make("pre", {}, command) : "",
    button(`Search for ‘${text}’ in the names instead`, () => searchNames(text)),
  );
  place.hidden = false;
}

export function hideNotice() {
  place.hidden = true;
}
