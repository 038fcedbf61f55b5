// Files that are dropped, pasted or chosen, sorted into terms of a query.

import { newTerm } from "./query.js";

const HAS_REFERENCES = /\.(obj|gltf|dae)$/i; // meshes whose materials and textures are separate files
const IMAGE = /\.(png|jpe?g|webp|gif|bmp|tiff?)$/i;
const MAX_SIDE = 1600;

const suffixOf = (file) => file.name.toLowerCase().match(/\.[^.]+$/)?.[0] ?? "";
const isImage = (file) => file.type.startsWith("image/") || IMAGE.test(file.name);

/** The `accept` attribute of a file input. */
export const acceptFor = (formats) => ["image/*", ...formats, ".mtl", ".bin"].join(",");

/**
 * Images that come together are views of one object; each mesh is an object of its own. If a mesh references other files, all
 * other files belong to it.
 *
 * Returns { terms, unknown }: unknown files are neither images nor meshes.
 */
export async function termsOf(files, formats) {
  const meshes = files.filter((file) => formats.includes(suffixOf(file)));
  const images = files.filter((file) => !meshes.includes(file) && isImage(file));
  const rest = files.filter((file) => !meshes.includes(file) && !images.includes(file));
  const referrer = meshes.find((file) => HAS_REFERENCES.test(file.name));
  const terms = meshes.map((file) =>
    newTerm("mesh", { files: file === referrer ? [file, ...images, ...rest] : [file] }),
  );
  if (referrer) return { terms, unknown: [] };
  if (images.length) terms.push(newTerm("images", { files: await Promise.all(images.map(smaller)) }));
  return { terms, unknown: rest };
}

/** A large photo, scaled down: encoders use far fewer pixels, and it takes long to send. */
async function smaller(file) {
  if (file.type !== "image/jpeg" || file.size < 1 << 20) return file;
  try {
    const image = await createImageBitmap(file);
    const scale = Math.min(1, MAX_SIDE / Math.max(image.width, image.height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.round(image.width * scale);
    canvas.height = Math.round(image.height * scale);
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.92));
    return blob && blob.size < file.size ? new File([blob], file.name, { type: blob.type }) : file;
  } catch {
    return file; // the service may still support it
  }
}

/** Call `take(files)` for files dropped or pasted anywhere; `cover` is shown while files are dragged over the page. */
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
