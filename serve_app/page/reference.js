// A reference beside a grid: a training preview from this machine. It plays in step and stands in every comparison.

import { h } from "./dom.js";
import { filmIn, screenOf } from "./film.js";

/** Return {label, clip} of a file: an animated WebP, as AI Toolkit writes its previews, or a video. Raise an Error otherwise. */
export async function referenceIn(file) {
  const label = "Training preview";
  const film = await filmIn(file);
  if (film) return { label, clip: { width: film.width, height: film.height, element: () => screenOf(film, label) } };
  const source = URL.createObjectURL(file);
  const { videoWidth: width, videoHeight: height } = await loaded(videoOf(source, label), file.name);
  return { label, clip: { width, height, element: () => videoOf(source, label) } };
}

function videoOf(source, label) {
  return h("video", { src: source, muted: true, playsInline: true, preload: "auto", "aria-label": label });
}

function loaded(video, name) {
  return new Promise((resolve, reject) => {
    video.onloadedmetadata = () => (video.videoWidth ? resolve(video) : video.onerror());
    video.onerror = () => reject(new Error(`${name} is no animated WebP, and no video that this browser plays.`));
  });
}
