// A drawing pad for sketches: black on white, with mouse, pen or finger.

import { button, byId, dialogHead, make } from "./element.js";

const dialog = byId("pad");
const SIDE = 448; // twice the input size of most encoders
const WIDTHS = [
  ["3", "thin"],
  ["6", "medium"],
  ["12", "thick"],
];

/** Open the pad; `done(file, strokes)` gets a PNG when the user searches with the sketch. */
export function openPad(done, before = []) {
  const strokes = before.map((stroke) => ({ ...stroke, points: [...stroke.points] }));
  const canvas = make("canvas", { width: SIDE, height: SIDE, role: "img", "aria-label": "Drawing pad", tabindex: -1 });
  const pen = make(
    "select",
    { "aria-label": "Pen width" },
    WIDTHS.map(([value, text]) => make("option", { value }, text)),
  );
  pen.value = "6";
  const context = canvas.getContext("2d");
  const undo = button("Undo", () => {
    strokes.pop();
    redraw();
  });
  const clear = button("Clear", () => {
    strokes.length = 0;
    redraw();
  });
  const use = button("Search with the sketch", finish, { class: "main" });

  function redraw() {
    context.fillStyle = "#fff";
    context.fillRect(0, 0, SIDE, SIDE);
    strokes.forEach((stroke) => line(context, stroke));
    undo.disabled = clear.disabled = use.disabled = strokes.length === 0;
  }
  recordStrokes(canvas, strokes, () => Number(pen.value), redraw);
  function finish() {
    canvas.toBlob((blob) => {
      dialog.close();
      done(new File([blob], "sketch.png", { type: "image/png" }), strokes);
    }, "image/png");
  }

  dialog.replaceChildren(
    dialogHead(dialog, "Draw a sketch"),
    make(
      "div",
      { class: "stack" },
      canvas,
      make("div", { class: "row" }, make("label", { class: "inline" }, "Pen", pen), undo, clear, use),
    ),
  );
  redraw();
  dialog.showModal();
}

/** Append strokes of the pointer to `strokes`; `penWidth()` is the width of the next one. */
function recordStrokes(canvas, strokes, penWidth, redraw) {
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) * SIDE) / box.width, ((event.clientY - box.top) * SIDE) / box.height];
  };
  let drawing = null; // id of the pointer; a second finger is ignored
  canvas.addEventListener("pointerdown", (event) => {
    if (drawing !== null || event.button !== 0) return;
    event.preventDefault();
    drawing = event.pointerId;
    canvas.setPointerCapture(drawing);
    strokes.push({ width: penWidth(), points: [at(event)] });
    redraw();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerId !== drawing) return;
    for (const part of event.getCoalescedEvents?.() ?? [event]) strokes.at(-1).points.push(at(part));
    redraw();
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, (event) => {
      if (event.pointerId === drawing) drawing = null;
    });
  }
}

function line(context, { width, points }) {
  context.strokeStyle = "#000";
  context.lineWidth = width;
  context.lineCap = context.lineJoin = "round";
  context.beginPath();
  context.moveTo(...points[0]);
  // Curves through the midpoints, so that fast strokes have no corners.
  for (let i = 1; i < points.length - 1; i++) {
    const [x, y] = points[i];
    context.quadraticCurveTo(x, y, (x + points[i + 1][0]) / 2, (y + points[i + 1][1]) / 2);
  }
  context.lineTo(...points.at(-1));
  context.stroke();
}
