// An object to be turned: in 3D by <model-viewer>, fetched when first needed, or through its stored views.

import { sentence } from "./api.js";
import { make } from "./element.js";
import { addressOf, modelPath, showPicture, stripPath, thumbnailPath } from "./pictures.js";

// As the views were rendered, so that the model takes the thumbnail's place without a jump.
const FIELD_OF_VIEW = "30deg";
const DISTANCE = "3.94m";
// Decoders that our models do not need would come from elsewhere.
self.ModelViewerElement = {
  dracoDecoderLocation: "/page/vendor/none/",
  ktx2TranscoderLocation: "/page/vendor/none/",
  lottieLoaderLocation: "/page/vendor/none/",
};

let library = null;

/**
 * Put a viewer into `place`: the picture of a view at once, then the model at that view.
 *
 * `plain` objects have no texture: in the usual light these are white on white. Returns `{ reset, close }`.
 */
export function showViewer(place, { id, name, view, plain }) {
  const poster = make("img", { class: "poster", alt: `View of ${name}` });
  showPicture(poster, thumbnailPath(id, view?.view ?? 0), { lazy: false });
  const said = make("p", { class: "viewer-said", role: "status" }, "Loading the model…");
  place.replaceChildren(poster, said);
  let viewer = null;
  let closed = false;

  const giveUp = (why) => {
    if (closed) return;
    viewer?.remove();
    viewer = null;
    turntable(place, id, name, view?.view ?? 0, why);
  };
  start().catch((error) => giveUp(sentence(error.message)));

  async function start() {
    if (!hasWebGl()) return giveUp("This browser draws no 3D here.");
    library ??= import("./vendor/model-viewer.min.js");
    try {
      await library;
    } catch {
      library = null;
      return giveUp("The 3D viewer is not installed with this service.");
    }
    const address = await addressOf(modelPath(id));
    if (closed) return;
    viewer = make("model-viewer", {
      src: address,
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
      exposure: plain ? "0.5" : "0.9",
      "shadow-intensity": "0.8",
      "tone-mapping": "neutral",
      loading: "eager",
    });
    viewer.addEventListener(
      "load",
      () => {
        place.classList.add("loaded");
        poster.remove();
        said.textContent = "";
      },
      { once: true },
    );
    viewer.addEventListener("error", () => giveUp("The model could not be shown."), { once: true });
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

function orbitOf(view) {
  const azimuth = view?.azimuth_deg ?? 30;
  const elevation = view?.elevation_deg ?? 25;
  return `${azimuth}deg ${90 - elevation}deg ${DISTANCE}`;
}

function hasWebGl() {
  const canvas = document.createElement("canvas");
  return Boolean(canvas.getContext("webgl2"));
}

/** The stored views side by side behind a window of one: dragging or arrow keys move it. */
function turntable(place, id, name, first, why) {
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
  showPicture(strip, stripPath(id), { lazy: false });
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
    make("p", { class: "viewer-said", role: "status" }, `${why} Drag left or right to turn through the stored views.`),
  );
}
