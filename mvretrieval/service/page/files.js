// Files that come by dropping, pasting or picking, sorted into terms of a question.

import { newTerm } from "./question.js";

const NAMES_OTHERS = /\.(obj|gltf|dae)$/i; // meshes whose materials and textures are files of their own
const PICTURE = /\.(png|jpe?g|webp|gif|bmp|tiff?)$/i;
const MOST_PIXELS_ACROSS = 1600;

const suffixOf = (file) => file.name.toLowerCase().match(/\.[^.]+$/)?.[0] ?? "";
const isPicture = (file) => file.type.startsWith("image/") || PICTURE.test(file.name);

/** What a file input should offer. */
export const acceptFor = (formats) => ["image/*", ...formats, ".mtl", ".bin"].join(",");

/**
 * Pictures that come together are views of one object; each mesh is one of its own. With a mesh that names other files come
 * those files.
 *
 * Returns { terms, unknown }: unknown files are neither.
 */
export async function termsOf(files, formats) {
  const meshes = files.filter((file) => formats.includes(suffixOf(file)));
  const pictures = files.filter((file) => !meshes.includes(file) && isPicture(file));
  const rest = files.filter((file) => !meshes.includes(file) && !pictures.includes(file));
  const namer = meshes.find((file) => NAMES_OTHERS.test(file.name));
  const terms = meshes.map((file) =>
    newTerm("mesh", { files: file === namer ? [file, ...pictures, ...rest] : [file] }),
  );
  if (namer) return { terms, unknown: [] };
  if (pictures.length) terms.push(newTerm("images", { files: await Promise.all(pictures.map(smaller)) }));
  return { terms, unknown: rest };
}

/** A photo of many megapixels says no more than one of two, and takes long to send. */
async function smaller(file) {
  if (file.type !== "image/jpeg" || file.size < 1 << 20) return file;
  try {
    const picture = await createImageBitmap(file);
    const scale = Math.min(1, MOST_PIXELS_ACROSS / Math.max(picture.width, picture.height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.round(picture.width * scale);
    canvas.height = Math.round(picture.height * scale);
    canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
    const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.92));
    return blob && blob.size < file.size ? new File([blob], file.name, { type: blob.type }) : file;
  } catch {
    return file; // the service may still know it
  }
}

/** Calls `take(files)` for files dropped or pasted anywhere; `cover` is shown while they hover over the page. */
export function listenForFiles(take, cover) {
  let depth = 0;
  const show = (shown) => {
    depth = shown ? depth : 0;
    cover.hidden = !shown;
  };
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragenter", (event) => {
    if (!hasFiles(event)) return;
    depth++;
    show(true);
  });
  addEventListener("dragleave", (event) => {
    if (hasFiles(event) && --depth <= 0) show(false);
  });
  addEventListener("dragover", (event) => {
    if (hasFiles(event)) event.preventDefault();
  });
  addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    show(false);
    take([...event.dataTransfer.files]);
  });
  addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length) return;
    event.preventDefault();
    take(files);
  });
}
