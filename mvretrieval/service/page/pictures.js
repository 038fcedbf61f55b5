// Pictures and models of objects. Where reading needs the token, they are fetched with it and shown from memory: an <img>
// cannot carry a header.

import { needsTokenToRead, pathOf, request } from "./api.js";

const MOST_KEPT = 500;
const kept = new Map(); // path -> promise of a blob's address, oldest first

export const thumbnailPath = (id, view = 0) => `${pathOf("thumbnails", id)}?view=${view}`;
export const stripPath = (id) => pathOf("strips", id);
export const modelPath = (id) => pathOf("models", id);

/** An address that an element can load. */
export async function addressOf(path) {
  if (!needsTokenToRead()) return path;
  if (!kept.has(path)) {
    const found = request(path)
      .then((response) => response.blob())
      .then(URL.createObjectURL);
    found.catch(() => kept.delete(path));
    kept.set(path, found);
    if (kept.size > MOST_KEPT) {
      const [oldest, address] = kept.entries().next().value;
      kept.delete(oldest);
      address.then(URL.revokeObjectURL, () => {});
    }
  }
  return kept.get(path);
}

/** An object changed its mesh or is gone. */
export function forgetPictures(id) {
  for (const path of kept.keys()) {
    if ([thumbnailPath(id).split("?")[0], stripPath(id), modelPath(id)].includes(path.split("?")[0])) kept.delete(path);
  }
}

const nearing = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      nearing.unobserve(target);
      load(target, target.dataset.path);
    }
  },
  { rootMargin: "300px" },
);

/** Let an <img> show a path of the API once it is near the screen. */
export function showPicture(image, path, { lazy = true } = {}) {
  image.addEventListener("error", () => image.classList.add("missing"), { once: true });
  if (!lazy) load(image, path);
  else if (needsTokenToRead()) {
    image.dataset.path = path;
    nearing.observe(image);
  } else {
    image.loading = "lazy";
    image.src = path;
  }
}

function load(image, path) {
  addressOf(path).then(
    (address) => {
      image.src = address;
    },
    () => image.classList.add("missing"),
  );
}
