// Animated WebP as a film that can be put to any time: browsers play one at their own pace, and let nobody seek in it.
// The container's chunks are read here (developers.google.com/speed/webp/docs/riff_container), the pictures by the browser.

const VP8X_ALPHA = 0x10;
const ANMF_HEAD = 16; // bytes of a frame's place, size, duration and flags
const TO_BACKGROUND = 1; // flag: once it was shown, its place is cleared
const NO_BLENDING = 2; // flag: it takes the place of what is below it

/** Return {width, height, frames: [{picture, until}]} with times in seconds; null where a file is no animated WebP. */
export async function filmIn(file) {
  const bytes = new DataView(await file.arrayBuffer());
  if (name(bytes, 0) !== "RIFF" || name(bytes, 8) !== "WEBP") return null;
  const chunks = [...chunksOf(bytes, 12, bytes.byteLength)];
  const head = chunks.find(({ type }) => type === "VP8X");
  const parts = chunks.filter(({ type }) => type === "ANMF");
  if (!head || !parts.length) return null;
  const [width, height] = [uint24(bytes, head.start + 4) + 1, uint24(bytes, head.start + 7) + 1];
  return { width, height, frames: await composed(bytes, parts, width, height) };
}

/** Return a canvas that shows a film: `seekTo(seconds)` puts it to a time, `duration` is its length. */
export function screenOf({ width, height, frames }, label) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height, duration: frames.at(-1).until, currentTime: 0 });
  const context = canvas.getContext("2d");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", label);
  canvas.seekTo = (seconds) => {
    canvas.currentTime = seconds;
    context.drawImage((frames.find(({ until }) => seconds < until) ?? frames.at(-1)).picture, 0, 0);
  };
  canvas.seekTo(0);
  return canvas;
}

// Each frame may be a part of the picture, which is laid over the one before it.
async function composed(bytes, parts, width, height) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d");
  const frames = [];
  let until = 0;
  for (const { start, end } of parts) {
    const [x, y] = [uint24(bytes, start) * 2, uint24(bytes, start + 3) * 2];
    const [w, tall] = [uint24(bytes, start + 6) + 1, uint24(bytes, start + 9) + 1];
    const flags = bytes.getUint8(start + 15);
    if (flags & NO_BLENDING) context.clearRect(x, y, w, tall);
    context.drawImage(await createImageBitmap(still(bytes, start + ANMF_HEAD, end, w, tall)), x, y);
    until += uint24(bytes, start + 12) / 1000;
    frames.push({ picture: await createImageBitmap(canvas), until });
    if (flags & TO_BACKGROUND) context.clearRect(x, y, w, tall);
  }
  return frames;
}

/** Return one frame as a WebP file of its own. */
function still(bytes, start, end, width, height) {
  const content = new Uint8Array(bytes.buffer, start, end - start);
  const head = name(bytes, start) === "ALPH" ? extended(width, height) : new Uint8Array();
  const riff = new DataView(new ArrayBuffer(12));
  write(riff, 0, "RIFF");
  riff.setUint32(4, 4 + head.byteLength + content.byteLength, true);
  write(riff, 8, "WEBP");
  return new Blob([riff, head, content], { type: "image/webp" });
}

// A chunk VP8X, which a picture with a chunk of its own for transparency needs.
function extended(width, height) {
  const chunk = new DataView(new ArrayBuffer(18));
  write(chunk, 0, "VP8X");
  chunk.setUint32(4, 10, true);
  chunk.setUint8(8, VP8X_ALPHA);
  for (const [at, size] of [[12, width], [15, height]]) {
    chunk.setUint16(at, (size - 1) & 0xffff, true);
    chunk.setUint8(at + 2, (size - 1) >> 16);
  }
  return chunk;
}

function* chunksOf(bytes, start, end) {
  for (let at = start; at + 8 <= end; ) {
    const size = bytes.getUint32(at + 4, true);
    yield { type: name(bytes, at), start: at + 8, end: Math.min(at + 8 + size, end) };
    at += 8 + size + (size % 2);
  }
}

function name(bytes, at) {
  return at + 4 > bytes.byteLength ? "" : String.fromCharCode(...new Uint8Array(bytes.buffer, at, 4));
}

function write(view, at, text) {
  [...text].forEach((character, index) => view.setUint8(at + index, character.charCodeAt(0)));
}

function uint24(bytes, at) {
  return bytes.getUint16(at, true) | (bytes.getUint8(at + 2) << 16);
}
