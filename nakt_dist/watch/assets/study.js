// The view "Study": what runs now, what failed, the graph, and a cell for each run.

import { SIGNS, bytes, duration, el, number, percent, setAttribute, state } from "./dom.js";
import { graph, groups, signature } from "./graph.js";
import { chosen, get, go, now, ownAxes, runs, siblings } from "./store.js";

const MOST_CARDS = 9;
const MOST_FAILED = 20;
const MOST_IN_A_ROW = 8;
const logs = new Map(); // id -> {version, lines}

export function makeStudy(main) {
  const parts = Object.fromEntries(["graph", "failed", "alive", "grid"].map((name) =>
    [name, el("section", {})]));
  main.append(...Object.values(parts));
  let drawn = "";
  let size = 0;
  let cells = null;
  return () => {
    const wanted = chosen();
    const shown = new Set(wanted.map((run) => run.id));
    const all = groups(shown);
    showAlive(parts.alive, wanted);
    showFailed(parts.failed, wanted);
    if (signature(all) !== drawn || parts.graph.clientWidth !== size) {
      const held = parts.graph.contains(document.activeElement)
        ? document.activeElement.getAttribute("aria-label")?.split(",")[0] : null;
      drawn = signature(all);
      size = parts.graph.clientWidth;
      parts.graph.replaceChildren(...(all.length ? [el("h2", {}, "Steps"),
        el("div", { class: "panel graph" }, graph(all, size))] : []));
      if (held) [...parts.graph.querySelectorAll("a")].find((each) =>
        each.getAttribute("aria-label").startsWith(`${held},`))?.focus();
    }
    cells = showGrid(parts.grid, all, cells);
  };
}

export const runLink = (run, text = run.name) => el("button", { class: "plain", type: "button",
  onclick: () => go({ run: run.id }) }, text);

export const shareDone = (run) => (run.done_steps !== null && run.total_steps
  ? Math.min(run.done_steps / run.total_steps, 1) : null);

export const timeLeft = (run) => (run.status === "running" && run.expected_end !== null
  && run.expected_end > now() ? run.expected_end - now() : null);

export const secondsOf = (run) => run.seconds
  ?? (run.started !== null && run.status === "running"
    ? run.earlier_seconds + Math.max(now() - run.started, 0) : null);

export const progress = (run) => {
  const share = shareDone(run);
  return share === null ? null : el("div", { class: `share ${run.status}`, role: "img",
    "aria-label": `${Math.round(100 * share)} % of the steps` },
  el("span", { css: { width: `${100 * share}%` } }));
};

export function factsOf(run) {
  const told = [
    [run.metric, run.metric && number(run.metrics[run.metric])],
    ["step", run.done_steps !== null && (run.total_steps
      ? `${run.done_steps.toLocaleString("en")} of ${run.total_steps.toLocaleString("en")}`
      : run.done_steps.toLocaleString("en"))],
    ["images/s", run.images_per_second !== null && number(run.images_per_second, 3)],
    ["data wait", run.data_wait !== null && percent(run.data_wait)],
    ["GPU memory", run.gpu_memory_bytes !== null && bytes(run.gpu_memory_bytes)],
    ["left", timeLeft(run) !== null && duration(timeLeft(run))],
    [run.status === "done" ? "took" : "for", secondsOf(run) !== null && duration(secondsOf(run))],
    ["attempt", run.attempt > 1 && String(run.attempt)],
    ["job", run.job],
  ];
  return el("p", { class: "facts" }, ...told.filter(([, value]) => value)
    .map(([name, value]) => el("span", {}, `${name} `, el("b", {}, value))));
}

function showAlive(place, wanted) {
  const live = wanted.filter((run) => ["running", "requeued"].includes(run.status));
  if (!live.length) { place.replaceChildren(); return; }
  if (place.contains(document.activeElement)) return; // not from under somebody's fingers
  const cards = live.slice(0, MOST_CARDS).map((run) => el("article", { class: "panel card" },
    el("h3", {}, runLink(run)), progress(run),
    run.status === "running" ? null : el("p", { class: "facts" }, state(run.status), run.reason ?? ""),
    factsOf(run)));
  const more = live.length > cards.length
    ? el("p", {}, el("button", { type: "button", onclick: () => go({ view: "runs", states: ["running"] }) },
      `and ${live.length - cards.length} more`)) : null;
  place.replaceChildren(el("h2", {}, "Running now"), el("div", { class: "cards" }, ...cards), more ?? "");
}

function showFailed(place, wanted) {
  const failed = wanted.filter((run) => run.status === "failed");
  readLogs(failed.slice(0, MOST_FAILED));
  const told = JSON.stringify(failed.map((run) => [run.id, run.version, logs.get(run.id)?.lines]));
  if (place.dataset.told === told) return;
  place.dataset.told = told;
  if (!failed.length) { place.replaceChildren(); return; }
  const cards = failed.slice(0, MOST_FAILED).map((run) => {
    const lines = logs.get(run.id)?.lines ?? [];
    return el("article", { class: "panel card failed" }, el("h3", {}, runLink(run)),
      el("p", { class: "facts" }, state("failed"), run.reason ?? "",
        run.attempt > 1 ? el("span", {}, "attempt ", el("b", {}, String(run.attempt))) : null),
      lines.length ? el("pre", { tabindex: 0, "aria-label": "its last lines" },
        lines.slice(-8).join("\n")) : null);
  });
  const more = failed.length - cards.length;
  place.replaceChildren(el("h2", {}, `Failed (${failed.length})`), el("div", { class: "cards" }, ...cards),
    more > 0 ? el("p", { class: "soft" }, `and ${more} more in the view Runs`) : "");
  for (const each of place.querySelectorAll("pre")) each.scrollTop = each.scrollHeight;
}

async function readLogs(failed) {
  const wanted = failed.filter((run) => run.study && logs.get(run.id)?.version !== run.version);
  if (!wanted.length) return;
  wanted.forEach((run) => logs.set(run.id, { version: run.version, lines: logs.get(run.id)?.lines ?? [] }));
  try {
    const found = await get(`api/log?ids=${wanted.map((run) => run.id).join(",")}`);
    wanted.forEach((run) => logs.set(run.id, { version: run.version, lines: found[run.id] }));
    redraw();
  } catch { wanted.forEach((run) => logs.delete(run.id)); }
}
let redraw = () => {};
export const onLogs = (draw) => { redraw = draw; };

// --- a cell for each run -------------------------------------------------------------------

function showGrid(place, all, known) {
  const groups_ = all.filter((group) => group.shown.length);
  const form = JSON.stringify(groups_.map((group) => [group.key, group.shown.map((run) => run.id)]));
  if (known?.form !== form) {
    const made = new Map();
    const blocks = groups_.map((group) => block(group, made));
    place.replaceChildren(el("h2", {}, "Runs"), ...(blocks.length
      ? [el("div", { class: "groups" }, ...blocks.map((each) => each.node))]
      : [el("p", { class: "soft" }, runs.size ? "No run fits the filter." : "No runs are there yet.")]));
    known = { form, made, blocks };
  }
  for (const [id, cell] of known.made) paint(cell, runs.get(id));
  for (const { count, group } of known.blocks) {
    const ended = group.shown.filter((run) => runs.get(run.id)?.status === "done").length;
    count.textContent = `${ended} of ${group.shown.length} done`;
  }
  return known;
}

function block(group, made) {
  const rows = new Map();
  for (const run of group.shown) {
    const label = siblings(run) || run.name.split("/").at(-1);
    const many = rows.get(label) ?? [];
    rows.set(label, [...many, run]);
  }
  const common = commonAxes(group.shown);
  const cellOf = (run) => {
    const cell = el("button", { type: "button", onclick: () => go({ run: run.id }) });
    made.set(run.id, cell);
    return cell;
  };
  const natural = ([a], [b]) => a.localeCompare(b, "en", { numeric: true });
  const isLong = [...rows.values()].some((many) => many.length > MOST_IN_A_ROW);
  const lines = [...rows].sort(natural).map(([, many]) => el("div", { class: `row${isLong ? " long" : ""}` },
    el("span", { title: labelOf(many[0], new Set()) }, labelOf(many[0], common)),
    el("span", { class: "cells" }, ...many.sort(bySeed).map(cellOf))));
  const count = el("span", { class: "soft" });
  return { group, count, node: el("section", { class: `panel group${lines.length > 14 || isLong ? " many" : ""}`,
    "aria-label": group.title },
  el("header", {}, el("h3", {}, group.title), count), el("div", { class: "rows" }, ...lines)) };
}
const bySeed = (a, b) => Number(a.axes.seed ?? 0) - Number(b.axes.seed ?? 0) || a.name.localeCompare(b.name);

// What all runs of a group share is not said in each row.
function commonAxes(many) {
  const first = many[0].axes;
  return new Set(Object.keys(first).filter((name) => many.length > 1
    && many.every((run) => run.axes[name] === first[name])));
}
function labelOf(run, common) {
  const words = ownAxes(run).filter(([name]) => !common.has(name)).map(([, value]) => value);
  return words.join(" · ") || run.name.split("/").at(-1);
}

function paint(cell, run) {
  if (!run) return;
  const share = shareDone(run);
  const told = `${run.name}: ${run.status}${run.reason ? `, ${run.reason}` : ""}`
    + `${share !== null && run.status === "running" ? `, ${Math.round(100 * share)} %` : ""}`;
  setAttribute(cell, "class", `cell ${run.status}`);
  setAttribute(cell, "title", told);
  setAttribute(cell, "aria-label", told);
  if (run.status === "running") {
    if (!cell.firstElementChild) cell.replaceChildren(el("i", {}));
    cell.style.setProperty("--share", `${100 * (share ?? 0.5)}%`);
  } else if (cell.textContent !== SIGNS[run.status]) cell.replaceChildren(SIGNS[run.status] ?? "");
}
