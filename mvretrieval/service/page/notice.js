// The encoder sees and does not read: say so, how to get one that does, and offer what works instead.

import { sentence } from "./api.js";
import { button, byId, make } from "./element.js";

const place = byId("notice");

/** `hint` is the service's: why, and the command after a colon. */
export function tellOfWords(hint, words, lookInNames) {
  const [why, how] = (hint ?? "").split(/: (?=mvr )/);
  place.replaceChildren(
    make("p", {}, sentence(why || "This collection's encoder reads no words")),
    how ? make("pre", {}, how) : "",
    button(`Look for ‘${words}’ in the names instead`, () => lookInNames(words)),
  );
  place.hidden = false;
}

export function hideNotice() {
  place.hidden = true;
}
