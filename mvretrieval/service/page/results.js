// The grid of objects. One card is in the tab order; arrow keys move among them.

import { byId, button, make } from "./element.js";
import { showPicture, thumbnailPath } from "./pictures.js";
import { lastPart } from "./question.js";

const grid = byId("grid");
const MOST_LABELS = 2;

/** Show hits, or objects of the collection, which have no score; `append` keeps those that are there. */
export function showObjects(objects, { open, moreLike }, append = false) {
  const cards = objects.map((object) => makeCard(object, open, moreLike));
  if (append) grid.append(...cards);
  else grid.replaceChildren(...cards);
  const first = grid.querySelector(".card");
  if (first && !grid.querySelector('.card[tabindex="0"]')) makeCurrent(first);
  return cards;
}

export const cardOf = (id) => [...grid.children].find((item) => item.dataset.id === id);

export function removeCard(id) {
  const gone = cardOf(id);
  const next = gone?.nextElementSibling ?? gone?.previousElementSibling;
  gone?.remove();
  const neighbour = next?.querySelector(".card");
  if (!neighbour) return byId("words").focus();
  makeCurrent(neighbour);
  neighbour.focus();
}

function makeCard(object, open, moreLike) {
  const { id, score, confidence, metadata, parts, best_view: best } = object;
  const name = lastPart(id);
  const labels = Object.values(metadata ?? {})
    .filter((value) => value !== null && value !== "")
    .slice(0, MOST_LABELS)
    .join(", ");
  const unseen = (text) => make("span", { class: "unseen" }, text);
  const numbers = [
    score !== undefined && [
      unseen(" score "),
      make(
        "span",
        { class: "score", title: parts?.length ? "sum of the terms' standardised similarities" : "similarity" },
        rounded(score),
      ),
    ],
    typeof confidence === "number" && [
      unseen(" likely right: "),
      make("span", { class: "sure", title: "how likely it is of the question's kind" }, `${percent(confidence)} sure`),
    ],
    labels && [unseen(" "), make("span", { class: "labels" }, labels)],
  ];
  const image = make("img", { alt: "", width: 112, height: 112, decoding: "async" });
  showPicture(image, thumbnailPath(id, best?.view ?? 0));
  return make(
    "li",
    { "data-id": id },
    make(
      "button",
      {
        type: "button",
        class: "card",
        title: id,
        tabindex: -1,
        onclick: () => open(object),
        onfocus: (event) => makeCurrent(event.currentTarget),
      },
      image,
      make("span", { class: "name" }, name),
      make("span", { class: "numbers" }, numbers),
    ),
    button("≈", () => moreLike(id), {
      class: "like",
      tabindex: -1,
      title: "More like this",
      "aria-label": `More like ${name}`,
    }),
  );
}

/** An object's labels changed. */
export function refreshCard(object, { open, moreLike }) {
  const fresh = makeCard(object, open, moreLike);
  cardOf(object.id)?.replaceWith(fresh);
  if (fresh.isConnected) makeCurrent(fresh.querySelector(".card"));
}

/** Without a minus before nothing. */
export const rounded = (score) => score.toFixed(2).replace(/^-(?=0\.00$)/, "");

export const percent = (share) => `${Math.round(100 * share)}%`;

function makeCurrent(card) {
  for (const other of grid.querySelectorAll('[tabindex="0"]')) other.tabIndex = -1;
  card.tabIndex = 0;
  card.nextElementSibling.tabIndex = 0;
}

grid.addEventListener("keydown", (event) => {
  const cards = [...grid.querySelectorAll(".card")];
  const at = cards.indexOf(event.target.closest("li")?.querySelector(".card"));
  const below = cards.findIndex((card) => card.parentElement.offsetTop > cards[0].parentElement.offsetTop);
  const across = below < 0 ? 0 : below;
  const steps = {
    ArrowRight: 1,
    ArrowLeft: -1,
    ArrowDown: across,
    ArrowUp: -across,
    Home: -at,
    End: cards.length - 1 - at,
  };
  if (at < 0 || !(event.key in steps) || steps[event.key] === 0) return;
  event.preventDefault();
  cards[Math.min(Math.max(at + steps[event.key], 0), cards.length - 1)].focus();
});
