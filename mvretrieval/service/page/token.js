// The token for changes, and for reading if the service requires it. It is stored until this tab is closed.

import { isRightToken, needsTokenToRead, sentence, token } from "./api.js";
import { button, byId, dialogHead, field, make } from "./element.js";

const dialog = byId("token");
const opener = byId("token-button");

/** Open the token dialog; resolves to whether there is a token. */
export function requestToken(reason = "") {
  return new Promise((done) => {
    const input = make("input", {
      type: "password",
      autocomplete: "off",
      required: true,
      "aria-describedby": "token-error",
    });
    const errorText = make("p", { id: "token-error", class: "problem", role: "alert" }, reason);
    const form = make(
      "form",
      { class: "stack", onsubmit: submit },
      make(
        "p",
        {},
        `${needsTokenToRead() ? "Searching and changing this collection" : "Changing this collection"} ` +
          "needs the token that the service was started with. It is stored until this tab is closed.",
      ),
      field("Token", input),
      errorText,
      make(
        "div",
        { class: "row" },
        make("button", { class: "main" }, "Use this token"),
        token.get() &&
          button("Forget it", () => {
            token.forget();
            dialog.close();
          }),
      ),
    );
    async function submit(event) {
      event.preventDefault();
      try {
        const value = input.value.trim();
        if (await isRightToken(value)) {
          token.store(value);
          dialog.close();
        } else errorText.textContent = "The token is wrong.";
      } catch (error) {
        errorText.textContent = sentence(error.message);
      }
    }
    dialog.replaceChildren(dialogHead(dialog, "Token"), form);
    dialog.addEventListener(
      "close",
      () => {
        showState();
        done(Boolean(token.get()));
      },
      { once: true },
    );
    if (!dialog.open) dialog.showModal();
    input.focus();
  });
}

/** Update the button in the head of the page. */
export function showState(isShown = !opener.hidden) {
  opener.hidden = !isShown;
  opener.textContent = token.get() ? "Token ✓" : "Token";
}

opener.addEventListener("click", () => requestToken());
