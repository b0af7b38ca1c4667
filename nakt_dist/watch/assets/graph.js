// The study as a graph: a box for each step, an arrow where one reads what another writes.

import { WORDS, svg } from "./dom.js";
import { go, link, runs, view } from "./store.js";

const WIDE = { width: 176, height: 58, across: 56, down: 20 };
const GUTTER = 74; // of the narrow form, where arrows are arcs beside a column

export function groups(shown) {
  const found = new Map();
  for (const run of runs.values()) {
    if (!found.has(run.groupKey)) {
      found.set(run.groupKey, { key: run.groupKey, title: run.groupTitle, stage: run.stage,
        step: run.step, study: run.study, runs: [], needs: new Set() });
    }
    const group = found.get(run.groupKey);
    group.runs.push(run);
    for (const id of run.needs) {
      const other = runs.get(id);
      if (other && other.groupKey !== run.groupKey) group.needs.add(other.groupKey);
    }
  }
  const all = [...found.values()];
  setLayers(all, found);
  all.sort((a, b) => a.step - b.step || a.layer - b.layer || a.title.localeCompare(b.title));
  for (const group of all) group.shown = group.runs.filter((run) => shown.has(run.id));
  return all;
}

// A group stands one layer behind the last of those that it needs.
function setLayers(all, found) {
  const open = new Set();
  const layerOf = (group) => {
    if (group.layer !== undefined) return group.layer;
    if (open.has(group.key)) return 0; // a circle, between groups that no plan made
    open.add(group.key);
    const before = [...group.needs].map((key) => found.get(key)).filter((other) => !open.has(other.key));
    group.layer = before.length ? Math.max(...before.map(layerOf)) + 1 : 0;
    open.delete(group.key);
    return group.layer;
  };
  all.forEach(layerOf);
}

const sums = (group) => WORDS.map((word) => [word, group.runs.filter((run) => run.status === word).length])
  .filter(([, count]) => count);

export function signature(all) {
  return JSON.stringify(all.map((group) => [group.key, sums(group), [...group.needs]]))
    + view().group;
}

export function graph(all, width) {
  const narrow = width < 700;
  const places = narrow ? column(all, width) : layers(all);
  const picture = svg("svg", { width: places.width, height: places.height,
    viewBox: `0 0 ${places.width} ${places.height}`, role: "group",
    "aria-label": `the study as a graph of ${all.length} steps` });
  const edges = [];
  for (const group of all) {
    for (const key of group.needs) {
      const from = places.at.get(key);
      const to = places.at.get(group.key);
      if (!from || !to) continue;
      const edge = svg("path", { class: "edge", d: narrow ? arc(from, to) : curve(from, to) });
      edges.push({ edge, ends: [key, group.key] });
      picture.append(edge);
    }
  }
  for (const group of all) picture.append(node(group, places.at.get(group.key), edges));
  return picture;
}

function layers(all) {
  const { width, height, across, down } = WIDE;
  const columns = [];
  for (const group of all) (columns[group.layer] ??= []).push(group);
  const most = Math.max(...columns.map((each) => each?.length ?? 0));
  const at = new Map();
  // Each column in the order of the middle of what its groups need, so that few arrows cross.
  columns.forEach((column_, layer) => {
    const middle = (group) => {
      const ys = [...group.needs].map((key) => at.get(key)?.y).filter((y) => y !== undefined);
      return ys.length ? ys.reduce((a, b) => a + b, 0) / ys.length : group.step * 1e-3;
    };
    column_.sort((a, b) => middle(a) - middle(b));
    const free = (most - column_.length) * (height + down) / 2;
    column_.forEach((group, row) => at.set(group.key, {
      x: 4 + layer * (width + across), y: 4 + free + row * (height + down), width, height }));
  });
  return { at, width: columns.length * (width + across) - across + 8,
    height: most * (height + down) - down + 8 };
}

function column(all, width) {
  const at = new Map();
  const size = Math.max(Math.min(width - GUTTER - 26, 420), 180);
  [...all].sort((a, b) => a.layer - b.layer || a.step - b.step).forEach((group, row) =>
    at.set(group.key, { x: GUTTER, y: 4 + row * 68, width: size, height: 58, row }));
  return { at, width: GUTTER + size + 4, height: all.length * 68 };
}

function curve(from, to) {
  const [x1, y1] = [from.x + from.width, from.y + from.height / 2];
  const [x2, y2] = [to.x, to.y + to.height / 2];
  const bend = Math.max((x2 - x1) / 2, 24);
  return `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`;
}
function arc(from, to) {
  const [y1, y2] = [from.y + from.height * 0.68, to.y + to.height * 0.32];
  const out = Math.max(GUTTER - 10 - 12 * Math.abs(to.row - from.row), 6);
  return `M${from.x} ${y1}C${out} ${y1} ${out} ${y2} ${to.x} ${y2}`;
}

function node(group, place, edges) {
  const { x, y, width, height } = place;
  const counts = sums(group);
  const done = group.runs.filter((run) => run.status === "done").length;
  const chosen = view().group === group.key;
  const told = counts.map(([word, count]) => `${count} ${word}`).join(", ");
  const light = (on) => edges.forEach(({ edge, ends }) =>
    edge.classList.toggle("lit", on && ends.includes(group.key)));
  const worst = counts.some(([word]) => word === "failed") ? " is-failed"
    : counts.some(([word]) => word === "running") ? " is-running" : "";
  const parts = [];
  let start = x + 10;
  for (const [word, count] of counts) {
    const size = (width - 20) * count / group.runs.length;
    parts.push(svg("rect", { class: `part ${word}`, x: start, y: y + height - 13,
      width: Math.max(size - 1, 1), height: 5, rx: 1.5 }));
    start += size;
  }
  return svg("a", { href: link({ group: chosen ? "" : group.key }), class: `node${worst}${chosen ? " set" : ""}`,
    "aria-label": `${group.title}, ${group.stage}: ${told}. ${chosen ? "Show all steps" : "Show these runs alone"}`,
    onclick: (event) => { event.preventDefault(); go({ group: chosen ? "" : group.key }); },
    onpointerenter: () => light(true), onpointerleave: () => light(false),
    onfocus: () => light(true), onblur: () => light(false) },
  svg("title", {}, `${group.title} (${group.stage}): ${told}`),
  svg("rect", { class: "box", x, y, width, height, rx: 8 }),
  svg("text", { x: x + 10, y: y + 20 }, short(group.title, Math.floor((width - 20) / 7.2))),
  svg("text", { class: "small", x: x + 10, y: y + 37 },
    group.title.startsWith(group.stage) ? `${done} of ${group.runs.length} done`
      : `${group.stage} · ${done} of ${group.runs.length} done`),
  ...parts);
}
const short = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
