// Elements, numbers and words. Text only ever enters the page as text, never as markup.

export const WORDS = ["done", "running", "requeued", "queued", "ready", "waiting", "silent",
  "failed", "blocked"];
export const SIGNS = { done: "✓", running: "▸", requeued: "↻", queued: "≡", ready: "○",
  waiting: "·", silent: "?", failed: "✕", blocked: "⊘" };

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "css") for (const [k, v] of Object.entries(value)) node.style.setProperty(k, v);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined
    && child !== false));
  return node;
}
export const el = (tag, props, ...children) => fill(document.createElement(tag), props, children);
export const svg = (tag, props, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), props, children);
export const byId = (id) => document.getElementById(id);

// Sets what has changed and nothing else, so that nothing flickers or loses the focus.
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
export function setAttribute(node, name, value) {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

export const mark = (word) =>
  el("span", { class: `mark ${word}`, "aria-hidden": "true" }, SIGNS[word] ?? "·");
export const state = (word) => el("span", { class: "state" }, mark(word), word);

export function number(value, digits = 4) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  if (size >= 10 ** 6 || (size > 0 && size < 10 ** -3)) return value.toExponential(2);
  return String(Number(value.toPrecision(digits)));
}
export const percent = (share) => (share === null ? "–" : `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`);
export const bytes = (count) => (count === null ? "–" : `${(count / 2 ** 30).toFixed(1)} GiB`);

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  for (const [unit, size, small, part] of [["d", 86400, "h", 3600], ["h", 3600, "min", 60],
    ["min", 60, "s", 1]]) {
    if (seconds < size) continue;
    if (unit === "min" && seconds >= 600) return `${Math.round(seconds / 60)} min`;
    const all = Math.round(seconds / part);
    const rest = all % (size / part);
    return `${Math.floor(all / (size / part))} ${unit}${rest ? ` ${rest} ${small}` : ""}`;
  }
  return `${Math.round(seconds)} s`;
}
