// Creates elements. Text is inserted as text, never as HTML, since names and labels come from files of others.

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

/** A control with a label above and an optional hint below. */
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

/** A choice of the up axis; the empty value means the convention of the format. */
export function upAxisSelect(value, onchange) {
  return select([["", "by format"], ...["+y", "+z", "+x", "-y", "-z", "-x"].map((axis) => [axis, axis])], value, onchange);
}

/** The head of a dialog: title and close button. */
export function dialogHead(dialog, title) {
  return make(
    "div",
    { class: "dialog-head" },
    make("h2", { id: `${dialog.id}-title` }, title),
    button("Close", () => dialog.close(), { class: "quiet" }),
  );
}
