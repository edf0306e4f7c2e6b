// Settings that travel inside a file: the comment of an mp4, the XMP of a WebP, the text of a PNG (or a ZIP of them).
// What deployments/media/embedding.py writes is read here, in the browser; the file goes nowhere.

import { parse } from "./api.js";

const KEY = "wan_lora_serve"; // names what is ours among other programs' metadata
const LARGEST = 2 ** 30; // bytes

/** Return the body of the API that made the file. Raise an Error that says why there is none. */
export async function settingsIn(file) {
  if (file.size > LARGEST) throw new Error(`${file.name} is too large to look into.`);
  const bytes = new DataView(await file.arrayBuffer());
  const text = textIn(bytes);
  const found = text && understood(text);
  if (!found) throw new Error(`${file.name} carries no settings of this service. Videos that it made carry them; a copy that was edited or sent through a chat may have lost them.`);
  return found;
}

function textIn(bytes) {
  if (ascii(bytes, 4, 4) === "ftyp") return inMp4(bytes);
  if (ascii(bytes, 0, 4) === "RIFF" && ascii(bytes, 8, 4) === "WEBP") return inWebp(bytes);
  if (ascii(bytes, 1, 3) === "PNG") return inPng(bytes, 0);
  if (ascii(bytes, 0, 4) === "PK\u0003\u0004") return inPng(bytes, 30 + bytes.getUint16(26, true) + bytes.getUint16(28, true));
  return null;
}

function understood(text) {
  try {
    const { [KEY]: version, request } = parse(text);
    return version === 1 && Array.isArray(request.loras) && request.prompts.length ? request : null;
  } catch {
    return null; // another program's comment
  }
}

// ISO/IEC 14496-12: boxes of a length, a type, and content; iTunes' list of metadata lies at moov/udta/meta/ilst.
function inMp4(bytes) {
  let [start, end] = [0, bytes.byteLength];
  for (const type of ["moov", "udta", "meta", "ilst", "\u00a9cmt", "data"]) {
    const box = boxes(bytes, start, end).find((found) => found.type === type);
    if (!box) return null;
    [start, end] = [box.start + (type === "meta" ? 4 : 0), box.end]; // meta begins with a version
  }
  return utf8(bytes, start + 8, end); // behind type and locale
}

function boxes(bytes, start, end) {
  const found = [];
  while (start + 8 <= end) {
    const short = bytes.getUint32(start);
    const [size, head] = short === 1 ? [Number(bytes.getBigUint64(start + 8)), 16] : [short || end - start, 8];
    if (size < head) break;
    found.push({ type: ascii(bytes, start + 4, 4), start: start + head, end: Math.min(start + size, end) });
    start += size;
  }
  return found;
}

// RIFF: chunks of a name, a length and content, padded to even lengths.
function inWebp(bytes) {
  for (let at = 12; at + 8 <= bytes.byteLength; ) {
    const size = bytes.getUint32(at + 4, true);
    if (ascii(bytes, at, 4) === "XMP ") {
      const text = /<wan:settings>([^<]*)<\/wan:settings>/.exec(utf8(bytes, at + 8, at + 8 + size))?.[1];
      return text?.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&") ?? null;
    }
    at += 8 + size + (size % 2);
  }
  return null;
}

// PNG: chunks of a length, a name, content and a checksum. iTXt: keyword, 0, flags, language, 0, keyword, 0, text.
function inPng(bytes, start) {
  for (let at = start + 8; at + 12 <= bytes.byteLength; ) {
    const size = bytes.getUint32(at);
    const name = ascii(bytes, at + 4, 4);
    if (name === "IEND") return null;
    if (name === "iTXt") {
      const [keyword, , , ...text] = utf8(bytes, at + 8, at + 8 + size).split("\0");
      if (keyword === KEY) return text.at(-1);
    }
    at += 12 + size;
  }
  return null;
}

function ascii(bytes, at, length) {
  if (at + length > bytes.byteLength) return "";
  return String.fromCharCode(...new Uint8Array(bytes.buffer, bytes.byteOffset + at, length));
}

function utf8(bytes, start, end) {
  return new TextDecoder().decode(new Uint8Array(bytes.buffer, bytes.byteOffset + start, Math.max(0, end - start)));
}
