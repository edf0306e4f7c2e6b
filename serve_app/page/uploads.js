// Uploading LoRA files: sent whole, checked by the service before it keeps them, told of where they were dropped.

import { upload } from "./api.js";
import { announce, h } from "./dom.js";
import { service } from "./service.js";

const EXTENSION = ".safetensors";

export const isLora = (file) => file.name.toLowerCase().endsWith(EXTENSION);

/** Upload files one after another, and show how far in `place`. */
export async function uploadAll(files, place) {
  place.replaceChildren(); // what was told of the files before
  if (!service.loras.uploads_allowed) {
    place.replaceChildren(h("p", { className: "field-problem", role: "alert" }, "This service takes no uploads; its operator allows them with the arg uploads."));
    return;
  }
  for (const file of files) await uploadOne(file, place);
  await service.reload();
}

async function uploadOne(file, place) {
  const bar = h("progress", { max: 1, value: 0, "aria-label": `Upload of ${file.name}` });
  const line = h("p", { className: "upload" }, file.name, bar);
  place.append(line);
  try {
    await upload(file.name, file, (share) => (bar.value = share));
    line.remove();
    announce(`${file.name} is uploaded`);
  } catch (error) {
    line.replaceWith(h("p", { className: "field-problem", role: "alert" }, `${file.name}: ${error.message}`));
  }
}
