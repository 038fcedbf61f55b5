// The grid of objects. One card is in the tab order; arrow keys move between cards.

import { byId, button, make } from "./element.js";
import { showImage, thumbnailPath } from "./images.js";
import { baseName } from "./query.js";

const grid = byId("grid");
const MAX_LABELS = 2;

/** Show hits, or objects of the collection, which have no score; `append` keeps the cards that are there. */
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
  if (!neighbour) return byId("text").focus();
  makeCurrent(neighbour);
  neighbour.focus();
}

function makeCard(object, open, moreLike) {
  const { id, score, confidence, metadata, parts, best_view: best } = object;
  const name = baseName(id);
  const labels = Object.values(metadata ?? {})
    .filter((value) => value !== null && value !== "")
    .slice(0, MAX_LABELS)
    .join(", ");
  const visuallyHidden = (text) => make("span", { class: "visually-hidden" }, text);
  const numbers = [
    score !== undefined && [
      visuallyHidden(" score "),
      make(
        "span",
        { class: "score", title: parts?.length ? "weighted sum of z-scored cosines" : "cosine similarity" },
        rounded(score),
      ),
    ],
    typeof confidence === "number" && [
      visuallyHidden(" "),
      make("span", { class: "confidence", title: "confidence: probability of the query's class" }, `conf. ${percent(confidence)}`),
    ],
    labels && [visuallyHidden(" "), make("span", { class: "labels" }, labels)],
  ];
  const image = make("img", { alt: "", width: 112, height: 112, decoding: "async" });
  showImage(image, thumbnailPath(id, best?.view ?? 0));
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

/** Show an object again after its labels changed. */
export function refreshCard(object, { open, moreLike }) {
  const fresh = makeCard(object, open, moreLike);
  cardOf(object.id)?.replaceWith(fresh);
  if (fresh.isConnected) makeCurrent(fresh.querySelector(".card"));
}

/** With two decimals, and without the minus of -0.00. */
export const rounded = (score) => score.toFixed(2).replace(/^-(?=0\.00$)/, "");

export const percent = (probability) => `${Math.round(100 * probability)}%`;

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
