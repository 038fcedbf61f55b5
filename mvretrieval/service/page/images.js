// Thumbnails and models of objects. If reading needs the token they are fetched with it and shown from memory, since an <img>
// cannot send a header.

import { needsTokenToRead, pathOf, request } from "./api.js";

const MAX_CACHED = 500;
let hasImages = true;
const cache = new Map(); // path -> promise of a blob URL, oldest first

export const thumbnailPath = (id, view = 0) => `${pathOf("thumbnails", id)}?view=${view}`;
export const stripPath = (id) => pathOf("strips", id);
export const modelPath = (id) => pathOf("models", id);

/** Imported vectors have neither thumbnails nor models: nothing is requested then. */
export function setHasImages(has) {
  hasImages = has;
}

/** A URL that an element can load. */
export async function urlOf(path) {
  if (!needsTokenToRead()) return path;
  if (!cache.has(path)) {
    const loading = request(path)
      .then((response) => response.blob())
      .then(URL.createObjectURL);
    loading.catch(() => cache.delete(path));
    cache.set(path, loading);
    if (cache.size > MAX_CACHED) {
      const [oldest, url] = cache.entries().next().value;
      cache.delete(oldest);
      url.then(URL.revokeObjectURL, () => {});
    }
  }
  return cache.get(path);
}

/** Drop the cached images of an object whose mesh changed or that was removed. */
export function forgetImages(id) {
  const paths = [thumbnailPath(id).split("?")[0], stripPath(id), modelPath(id)];
  for (const path of cache.keys()) if (paths.includes(path.split("?")[0])) cache.delete(path);
}

const nearScreen = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      nearScreen.unobserve(target);
      load(target, target.dataset.path);
    }
  },
  { rootMargin: "300px" },
);

/** Show a path of the API in an <img>; by default once it is near the screen. */
export function showImage(image, path, { lazy = true } = {}) {
  if (!hasImages) {
    image.hidden = true;
    return;
  }
  image.addEventListener("error", () => image.classList.add("missing"), { once: true });
  if (!lazy) load(image, path);
  else if (needsTokenToRead()) {
    image.dataset.path = path;
    nearScreen.observe(image);
  } else {
    image.loading = "lazy";
    image.src = path;
  }
}

function load(image, path) {
  urlOf(path).then(
    (url) => {
      image.src = url;
    },
    () => image.classList.add("missing"),
  );
}
