// DOM helpers: elements, templates, and what a screen reader is told.

/** Return a new element: h("button", {type: "button", onclick}, "Make"). */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (typeof value !== "string" && name in element) element[name] = value;
    else element.setAttribute(name === "className" ? "class" : name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Return the content of the template of that id, ready to be put into the page. */
export function template(id) {
  return document.getElementById(id).content.cloneNode(true);
}

/** Have screen readers say a text once what they say now has ended. */
export function announce(text) {
  document.getElementById("announcer").textContent = text;
}

/** Return a function that runs `work` once no call has come for `ms` milliseconds. */
export function settled(work, ms) {
  let timer;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...values), ms);
  };
}

/** Return whether a toggle button is pressed. */
export function pressed(button) {
  return button.getAttribute("aria-pressed") === "true";
}

/** Press a toggle button, or let it go. */
export function press(button, on) {
  button.setAttribute("aria-pressed", String(on));
}

/** Return predicted seconds as people say them: "about 40 s", "about 3 min". */
export function duration(seconds) {
  if (seconds < 0.95) return "under a second";
  if (seconds < 100) return `about ${seconds < 10 ? Math.round(seconds * 10) / 10 : Math.round(seconds)} s`;
  if (seconds < 5400) return `about ${Math.round(seconds / 60)} min`;
  return `about ${Math.round(seconds / 360) / 10} h`;
}

/** Return the last part of a path without its extension. */
export function stem(path) {
  return path.split("/").pop().replace(/\.safetensors$/i, "");
}

/** Return a name as nodes, so that a narrow column breaks it behind its underscores. */
export function breakable(name) {
  return name.split(/(?<=_)/).flatMap((part) => [part, h("wbr")]);
}

/** Return "3 videos", "1 video". */
export function count(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

/** Copy a text; also where the page is served without TLS, and browsers have no clipboard API. */
export async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const field = h("textarea", { className: "visually-hidden" }, text);
  const dialog = document.querySelector("dialog[open]") ?? document.body;
  dialog.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
}
