// An object that can be rotated: in 3D by <model-viewer>, loaded on first use, or as a turntable of its stored views.

import { sentence } from "./api.js";
import { make } from "./element.js";
import { urlOf, modelPath, showImage, stripPath, thumbnailPath } from "./images.js";

// The camera of the rendered views, so that the model replaces the thumbnail without a jump.
const FIELD_OF_VIEW = "30deg";
const DISTANCE = "3.94m";
// Decoders that our models do not need, and that would be loaded from another website.
self.ModelViewerElement = {
  dracoDecoderLocation: "/page/vendor/none/",
  ktx2TranscoderLocation: "/page/vendor/none/",
  lottieLoaderLocation: "/page/vendor/none/",
};

let library = null;

/**
 * Put a viewer into `place`: first the thumbnail of a view, then the model seen from there.
 *
 * `plain` objects have no texture and get darker light, or they would be white on white. Returns `{ reset, close }`.
 */
export function showViewer(place, { id, name, view, plain }) {
  const poster = make("img", { class: "poster", alt: `View of ${name}` });
  showImage(poster, thumbnailPath(id, view?.view ?? 0), { lazy: false });
  const status = make("p", { class: "viewer-status", role: "status" }, "Loading the model…");
  place.replaceChildren(poster, status);
  let viewer = null;
  let closed = false;

  const fallBack = (reason) => {
    if (closed) return;
    viewer?.remove();
    viewer = null;
    turntable(place, id, name, view?.view ?? 0, reason);
  };
  start().catch((error) => fallBack(sentence(error.message)));

  async function start() {
    if (!hasWebGl()) return fallBack("This browser has no WebGL.");
    library ??= import("./vendor/model-viewer.min.js");
    try {
      await library;
    } catch {
      library = null;
      return fallBack("The 3D viewer is not installed with this service.");
    }
    const url = await urlOf(modelPath(id));
    if (closed) return;
    viewer = modelViewer(url, name, view, plain);
    viewer.addEventListener(
      "load",
      () => {
        place.classList.add("loaded");
        poster.remove();
        status.textContent = "";
      },
      { once: true },
    );
    viewer.addEventListener("error", () => fallBack("The model cannot be shown."), { once: true });
    place.classList.remove("loaded");
    place.append(viewer);
  }

  return {
    reset() {
      if (!viewer) return;
      viewer.cameraOrbit = orbitOf(view);
      viewer.fieldOfView = FIELD_OF_VIEW;
      viewer.resetTurntableRotation(0);
    },
    close() {
      closed = true;
      place.replaceChildren();
    },
  };
}

function modelViewer(src, name, view, plain) {
  return make("model-viewer", {
    src,
    alt: `3D model of ${name}`,
    "camera-controls": true,
    "touch-action": "pan-y",
    "interaction-prompt": "none",
    "camera-orbit": orbitOf(view),
    "camera-target": "0m 0m 0m",
    "field-of-view": FIELD_OF_VIEW,
    "min-field-of-view": "5deg",
    "max-field-of-view": "45deg",
    "min-camera-orbit": "auto 0deg 1m",
    "max-camera-orbit": "auto 180deg 12m",
    "environment-image": plain ? "legacy" : "neutral",
    exposure: plain ? "0.5" : "0.55", // nearest to the rendered views
    "shadow-intensity": "0.8",
    "tone-mapping": "neutral",
    loading: "eager",
  });
}

function orbitOf(view) {
  const azimuth = view?.azimuth_deg ?? 30;
  const elevation = view?.elevation_deg ?? 25;
  return `${azimuth}deg ${90 - elevation}deg ${DISTANCE}`;
}

function hasWebGl() {
  const canvas = document.createElement("canvas");
  return Boolean(canvas.getContext("webgl2"));
}

/** The stored views side by side, of which one is visible; dragging and arrow keys switch between them. */
function turntable(place, id, name, first, reason) {
  const strip = make("img", { alt: "", draggable: "false" });
  const frame = make(
    "div",
    {
      class: "turntable",
      role: "slider",
      tabindex: 0,
      "aria-label": `Views of ${name}`,
      "aria-valuemin": 1,
      "aria-valuenow": first + 1,
    },
    strip,
  );
  let views = 1;
  let view = first;
  const show = (wanted) => {
    view = ((wanted % views) + views) % views;
    strip.style.transform = `translateX(${(-100 * view) / views}%)`;
    frame.setAttribute("aria-valuenow", view + 1);
  };
  strip.addEventListener("load", () => {
    views = Math.max(1, Math.round(strip.naturalWidth / strip.naturalHeight));
    frame.setAttribute("aria-valuemax", views);
    show(view);
  });
  showImage(strip, stripPath(id), { lazy: false });
  let from = null;
  frame.addEventListener("pointerdown", (event) => {
    from = { x: event.clientX, view };
    frame.setPointerCapture(event.pointerId);
  });
  frame.addEventListener("pointermove", (event) => {
    if (from) show(from.view - Math.round(((event.clientX - from.x) / frame.clientWidth) * views));
  });
  for (const end of ["pointerup", "pointercancel"])
    frame.addEventListener(end, () => {
      from = null;
    });
  frame.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    show(view + step);
  });
  place.classList.add("loaded");
  place.replaceChildren(
    frame,
    make("p", { class: "viewer-status", role: "status" }, `${reason} Drag left or right to see the stored views.`),
  );
}
