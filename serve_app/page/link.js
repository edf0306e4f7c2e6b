// Links to grids: a grid's settings and request ids in the hash of the address, compressed, checked when they are read.

import { kindOf } from "./axes.js";

const VERSION = 1;
const ID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const LONGEST = 20_000; // characters of an address; a browser's own limit is above that

/** Return a grid {base, columns, rows, ids} as text for an address; null if `read` would refuse it. The image stays with the requests. */
export async function written({ base, columns, rows, ids }) {
  const json = JSON.stringify({ v: VERSION, base: { ...base, ctrl_img: "" }, columns, rows, ids });
  const text = toText(await through(new CompressionStream("deflate-raw"), new TextEncoder().encode(json)));
  return text.length > LONGEST ? null : text;
}

/** Read such a text. Raise an Error that says what is wrong with it. */
export async function read(text) {
  if (text.length > LONGEST) throw new Error("This link is longer than any link to a grid.");
  const grid = await unpacked(text);
  if (grid?.v !== VERSION) throw new Error("This link was made by another version of the page. Ask for its settings and start a new grid.");
  if (!isGrid(grid)) throw new Error("This link is no grid: parts of it are missing. Ask for it again.");
  return grid;
}

async function unpacked(text) {
  try {
    const bytes = await through(new DecompressionStream("deflate-raw"), toBytes(text));
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    throw new Error("This link is damaged, or was cut off on its way. Copy the whole address, or ask for it again.");
  }
}

function isGrid({ base, columns, rows, ids }) {
  const axes = [columns, rows];
  const known = axes.every((axis) => axis && kindOf(axis.kind) && Array.isArray(axis.values) && axis.values.length);
  return (
    known &&
    typeof base?.prompt === "string" &&
    Array.isArray(ids) &&
    ids.length === columns.values.length * rows.values.length &&
    ids.every((id) => id === null || ID.test(id))
  );
}

async function through(transform, bytes) {
  return new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(transform)).arrayBuffer());
}

function toText(bytes) {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

function toBytes(text) {
  return Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (character) => character.charCodeAt(0));
}
