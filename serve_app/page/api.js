// Client of the HTTP API: JSON calls, refusals as errors with their fields, and server-sent events that resume.

const BASE = new URL(".", document.baseURI);
const KEY = "wan-lora-key"; // in session storage: it ends with the tab
const LOST_AGAIN_MS = [500, 1000, 2000, 4000, 8000]; // waits before a lost connection is tried again
const BUSY = 429;
const ENDED = 204; // to a stream that resumes behind its last event

export const FINAL = new Set(["succeeded", "failed", "canceled"]);

/** A refusal of the service. `code` is null where the service could not be reached. */
export class Refusal extends Error {
  constructor(message, { status = 0, code = null, details = {}, problems = [], retryAfter = null } = {}) {
    super(message);
    Object.assign(this, { status, code, details, problems, retryAfter });
  }
}

let asking = null; // one dialog at a time, however many calls were refused

/** Call the API; return its JSON. A refusal for want of a key asks for one, and calls again. */
export async function call(method, path, body, { headers = {}, signal } = {}) {
  const answer = await send(method, path, {
    headers: body === undefined ? headers : { "Content-Type": "application/json", ...headers },
    body: body === undefined ? undefined : serialise(body),
    signal,
  });
  return parse(await answer.text());
}

export const get = (path, options) => call("GET", path, undefined, options);
export const post = (path, body, options) => call("POST", path, body, options);

/** POST a request for videos; sent again after a lost connection, it is still one request. */
export async function submit(body, { signal } = {}) {
  const headers = { "Idempotency-Key": randomName() };
  for (let tries = 0; ; tries++) {
    try {
      return await post("v1/inference", body, { headers, signal });
    } catch (error) {
      const again = error.status === BUSY ? error.retryAfter * 1000 : error.status === 0 && LOST_AGAIN_MS[tries];
      if (!again || signal?.aborted) throw error;
      await pause(again, signal);
    }
  }
}

/** Upload a LoRA file below `lora_root`; `onProgress` is told the share that was sent. */
export function upload(path, file, onProgress) {
  // fetch tells nothing of what was sent so far
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PUT", new URL(`v1/loras/${path.split("/").map(encodeURIComponent).join("/")}`, BASE));
    request.setRequestHeader("Content-Type", "application/octet-stream");
    for (const [name, value] of Object.entries(authorization())) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => onProgress(event.loaded / event.total);
    request.onerror = () => reject(unreachable());
    request.onload = () =>
      request.status < 300
        ? resolve(parse(request.responseText))
        : reject(refusal(request.status, request.responseText, request.getResponseHeader("Retry-After")));
    request.send(file);
  });
}

/** Yield {event, data} of a request until it has ended; a lost connection resumes behind the last event. */
export async function* events(id, signal) {
  let last = null;
  for (let lost = 0; ; lost++) {
    try {
      const headers = last === null ? {} : { "Last-Event-ID": last };
      const answer = await send("GET", `v1/requests/${id}/events`, { headers, signal });
      if (answer.status === ENDED) return;
      for await (const { id: number, event, data } of parseEvents(answer.body)) {
        last = number ?? last;
        lost = 0;
        yield { event, data: parse(data) };
        if (event === "done") return;
      }
    } catch (error) {
      const final = error.status >= 400 && error.status < 500 && error.status !== BUSY;
      if (signal?.aborted || final) throw error;
    }
    await pause(LOST_AGAIN_MS[Math.min(lost, LOST_AGAIN_MS.length - 1)], signal);
  }
}

/** Return the address of an output at this page's own origin, where the policy lets it be loaded. */
export function here(url) {
  const { pathname, search } = new URL(url, BASE);
  return new URL(pathname.slice(pathname.indexOf("/v1/") + 1) + search, BASE).href;
}

/** Return the address of an API path, for text to be copied. */
export const address = (path) => new URL(path, BASE).href;

/** Parse JSON; a seed that a double cannot hold stays a text. */
export function parse(text) {
  return text === "" ? null : JSON.parse(text.replace(/("seed":\s*)(\d{16,})/g, '$1"$2"'));
}

/** Write JSON; such a seed is a number again. */
export function serialise(value, space) {
  return JSON.stringify(value, null, space).replace(/("seed":\s*)"(\d+)"/g, "$1$2");
}

async function send(method, path, { headers, body, signal }) {
  for (;;) {
    let answer;
    try {
      const all = { ...headers, ...authorization() };
      answer = await fetch(new URL(path, BASE), { method, headers: all, body, signal, cache: "no-store" });
    } catch (error) {
      throw signal?.aborted ? error : unreachable();
    }
    if (answer.ok) return answer;
    const refused = refusal(answer.status, await answer.text(), answer.headers.get("Retry-After"));
    if (answer.status !== 401) throw refused;
    asking ??= askForKey(refused.message).finally(() => (asking = null));
    await asking;
  }
}

/** Return whether calls are made with a key. */
export const hasKey = () => sessionStorage.getItem(KEY) !== null;

function authorization() {
  const key = sessionStorage.getItem(KEY);
  return key ? { Authorization: `Bearer ${key}` } : {};
}

function askForKey(reason) {
  const dialog = document.getElementById("key-dialog");
  const field = dialog.querySelector("input");
  dialog.querySelector("#key-reason").textContent = reason;
  field.value = "";
  dialog.showModal();
  return new Promise((resolve, reject) => {
    dialog.onclose = () => {
      if (!field.value) return reject(new Refusal(reason, { status: 401, code: "KEY_REQUIRED" }));
      sessionStorage.setItem(KEY, field.value.trim());
      resolve();
    };
  });
}

function unreachable() {
  return new Refusal("The service cannot be reached. Is it running, and is this machine online?");
}

function refusal(status, text, retryAfter) {
  const detail = detailOf(text);
  const common = { status, retryAfter: Number(retryAfter) || 2 };
  if (Array.isArray(detail)) {
    const message = detail.map(({ loc, msg }) => `${loc.slice(1).join(".")}: ${msg}`).join("; ");
    return new Refusal(message, { ...common, code: "INVALID", problems: detail });
  }
  const { code = null, message = `The service answered ${status}.`, details = {} } = detail?.error ?? {};
  return new Refusal(message, { ...common, code, details: details ?? {} });
}

function detailOf(text) {
  try {
    return JSON.parse(text).detail;
  } catch {
    return null; // a proxy's own answer, which is no JSON
  }
}

async function* parseEvents(stream) {
  let rest = "";
  let event = {};
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split(/\r\n|\n|\r/);
    rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (event.data !== undefined) yield event;
        event = {};
      } else if (!line.startsWith(":")) {
        const [, name, text] = /^([^:]*):? ?(.*)$/.exec(line);
        event[name] = name === "data" && event.data !== undefined ? `${event.data}\n${text}` : text;
      }
    }
  }
}

function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => (clearTimeout(timer), reject(signal.reason)), { once: true });
  });
}

function randomName() {
  // crypto.randomUUID is missing where the page is served without TLS
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
