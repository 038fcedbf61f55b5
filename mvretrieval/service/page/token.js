// The token that writers show, and readers where the service asks them: kept until this tab is closed.

import { isRightToken, needsTokenToRead, sentence, token } from "./api.js";
import { button, byId, dialogHead, field, make } from "./element.js";

const dialog = byId("token");
const opener = byId("token-button");

/** Ask for the token; true once there is one. */
export function askToken(reason = "") {
  return new Promise((done) => {
    const input = make("input", {
      type: "password",
      autocomplete: "off",
      required: true,
      "aria-describedby": "token-said",
    });
    const said = make("p", { id: "token-said", class: "problem", role: "alert" }, reason);
    const form = make(
      "form",
      { class: "stack", onsubmit: keep },
      make(
        "p",
        {},
        `${needsTokenToRead() ? "Who searches here, or changes anything," : "Who adds, changes or removes objects"} ` +
          "shows the token that the service was started with. " +
          "It is kept until this tab is closed.",
      ),
      field("Token", input),
      said,
      make(
        "div",
        { class: "row" },
        make("button", { class: "main" }, "Use it"),
        token.get() &&
          button("Forget it", () => {
            token.forget();
            dialog.close();
          }),
      ),
    );
    async function keep(event) {
      event.preventDefault();
      try {
        const value = input.value.trim();
        if (await isRightToken(value)) {
          token.keep(value);
          dialog.close();
        } else said.textContent = "That token is not the right one.";
      } catch (error) {
        said.textContent = sentence(error.message);
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

/** The button in the head of the page. */
export function showState(isAsked = !opener.hidden) {
  opener.hidden = !isAsked;
  opener.textContent = token.get() ? "Token ✓" : "Token";
}

opener.addEventListener("click", () => askToken());
