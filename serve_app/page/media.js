// Finished files as elements: a looping video, an animated picture, or a still that stands for a ZIP of frames.

import { here } from "./api.js";
import { h } from "./dom.js";

/** Return an element that shows a `Video` of the API; `controls` are the browser's own. */
export function shown({ format, url, width, height }, label, { controls = true } = {}) {
  const source = here(url);
  if (format === "mp4") {
    return h("video", { src: source, width, height, controls, loop: true, muted: true, autoplay: controls, playsInline: true, preload: "auto", "aria-label": label });
  }
  return h("img", { src: format === "webp" ? source : variant(source, "thumbnail"), width, height, alt: label });
}

/** Return whether an element can be played in step with others. */
export function plays(element) {
  return element instanceof HTMLVideoElement || "seekTo" in element;
}

/** Return the address of another form of an output. */
export function variant(url, name) {
  const address = new URL(here(url));
  address.searchParams.set("variant", name);
  return address.href;
}

/** Return the name under which an output is saved. */
export function fileName({ index, format }, requestId) {
  return `${requestId.slice(0, 8)}_${index}.${format === "png" ? "zip" : format}`;
}
