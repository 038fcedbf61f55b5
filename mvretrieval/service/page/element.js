// Elements made in code. Text goes in as text, never as HTML: names and labels come from other people's files.

export const byId = (id) => document.getElementById(id);

/**
 * An element with attributes, listeners (`onclick: f`) and children; `null`, `undefined` and `false` are left out.
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(
    ...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false),
  );
  return element;
}

export function button(text, onclick, attributes = {}) {
  return make("button", { type: "button", onclick, ...attributes }, text);
}

/** A control with its label above it. */
export function field(text, control, hint) {
  return make("label", { class: "field" }, make("span", {}, text), control, hint && make("small", {}, hint));
}

export function select(choices, value, onchange, attributes = {}) {
  const made = make(
    "select",
    { onchange, ...attributes },
    choices.map(([key, text]) => make("option", { value: key }, text)),
  );
  made.value = value;
  return made;
}

/** What every dialog begins with: its title and the button that closes it. */
export function dialogHead(dialog, title) {
  return make(
    "div",
    { class: "dialog-head" },
    make("h2", { id: `${dialog.id}-title` }, title),
    button("Close", () => dialog.close(), { class: "quiet" }),
  );
}
