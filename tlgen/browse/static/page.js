// Functions that both pages use: requests to the server, elements, and formatting of numbers.

/** Request JSON from the server; if the server refuses, throw an error with its message. */
export async function ask(address) {
  let response;
  try {
    response = await fetch(address, { credentials: "same-origin" });
  } catch {
    throw new Error("the server does not answer: is tlgen browse still running?");
  }
  const content = await response.json();
  if (!response.ok) throw new Error(content.error);
  return content;
}

/** Create an element with attributes and children; text is never interpreted as HTML. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Format a number with a readable number of digits; other values are not changed. */
export function shown(value) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "number" || Number.isInteger(value)) return String(value);
  return String(Number(value.toPrecision(4)));
}

export function bytes(n) {
  const k = Math.min(4, Math.floor(Math.log10(Math.max(n, 1)) / 3));
  return `${shown(n / 1000 ** k)} ${["bytes", "kB", "MB", "GB", "TB"][k]}`;
}

const colours = new Map();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => colours.clear());

/** Return a colour of the style sheet; it differs between light and dark mode. */
export function colour(name) {
  if (!colours.has(name)) {
    const probe = make("i");
    probe.style.color = `var(--${name})`;
    document.body.append(probe);
    colours.set(name, getComputedStyle(probe).color);
    probe.remove();
  }
  return colours.get(name);
}

/** Set the size of a canvas so that it is sharp on any screen; returns its context in page units. */
export function sized(canvas, width, height) {
  const fine = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * fine);
  canvas.height = Math.round(height * fine);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.setTransform(fine, 0, 0, fine, 0, 0);
  return context;
}

/** Call when the next picture of the page has been painted. */
export function painted(then) {
  requestAnimationFrame(() => setTimeout(then));
}
