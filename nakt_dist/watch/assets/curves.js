// The view "Curves": metrics as they grow, runs that differ in the seed alone as one band.

import { bandOf, draw, swatch, teller } from "./charts.js";
import { el } from "./dom.js";
import { chosen, curvesOf, go, needCurves, ownAxes, siblings, view } from "./store.js";

const COLOURS = 12;
const MOST_RUNS = 400;

export function makeCurves(main) {
  const controls = el("div", { class: "controls" });
  const told = el("p", { class: "soft" });
  const charts = el("div", { class: "charts" });
  const legend = el("div", { class: "wide legend" });
  main.append(controls, told, charts, legend);
  return () => {
    const wanted = view();
    const logged = chosen(wanted).filter((run) => run.done_steps !== null);
    const some = logged.slice(0, MOST_RUNS);
    needCurves(some);
    const names = metricsOf(some);
    const metrics = wanted.metrics.length ? wanted.metrics : firstMetrics(some, names);
    const series = seriesOf(some, wanted.colour, wanted.hidden);
    showControls(controls, wanted, names, metrics, some);
    told.textContent = logged.length > some.length
      ? `The first ${some.length} of ${logged.length} runs are drawn; filter to see others.`
      : some.length ? "" : "No run that logs metrics fits the filter.";
    showCharts(charts, metrics, series, wanted);
    showLegend(legend, metrics, series, wanted);
  };
}

function metricsOf(many) {
  const names = new Set(many.flatMap((run) => Object.keys(curvesOf(run.id))));
  return [...names].sort((a, b) => rank(a) - rank(b) || a.localeCompare(b));
}
const rank = (name) => (name === "validation_auroc" || name === "validation_dice" ? 0
  : name.startsWith("validation_") ? 1 : name === "loss" ? 2 : name.endsWith("loss") ? 3 : 4);
const firstMetrics = (many, names) => names.filter((name) => rank(name) === 0 || name === "loss")
  .concat(names).filter((name, i, all) => all.indexOf(name) === i).slice(0, 2);

export function seriesOf(many, colourBy, hidden = []) {
  const bands = new Map();
  for (const run of many) {
    const key = `${run.groupKey}|${siblings(run)}`;
    bands.set(key, [...(bands.get(key) ?? []), run]);
  }
  const common = commonOf(many);
  const all = [...bands.values()].map((group) => ({ runs: group, label: nameOf(group, common) }));
  const said = new Map();
  for (const each of all) said.set(each.label, (said.get(each.label) ?? 0) + 1);
  const kinds = [...new Set(all.map((each) => kindOf(each.runs[0], colourBy)))]
    .sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  all.forEach((each, place) => {
    if (said.get(each.label) > 1) each.label += ` (${each.runs[0].name})`;
    const number_ = colourBy ? kinds.indexOf(kindOf(each.runs[0], colourBy)) : place;
    each.colour = `var(--c${number_ % COLOURS})`;
    each.dotted = !colourBy && place >= COLOURS;
    each.hidden = hidden.includes(each.label);
  });
  return all;
}
const kindOf = (run, axis) => (axis === "step" ? run.groupTitle : run.axes[axis]) ?? "none";
function commonOf(many) {
  const names = new Set(many.flatMap((run) => Object.keys(run.axes)));
  return new Set([...names].filter((name) => many.every((run) => run.axes[name] === many[0].axes[name])));
}
function nameOf([run, ...others], common) {
  const words = ownAxes(run).filter(([name]) => !common.has(name)).map(([, value]) => value);
  return words.join(" · ") || (others.length ? run.groupTitle : run.name.split("/").at(-1));
}

function showControls(place, wanted, names, metrics, many) {
  const axes = [...new Set(many.flatMap((run) => Object.keys(run.axes)))].filter((name) =>
    name !== "seed" && new Set(many.map((run) => run.axes[name])).size > 1);
  const form = JSON.stringify([wanted, names, metrics, axes]);
  if (place.dataset.form === form) return;
  place.dataset.form = form;
  const held = document.activeElement?.dataset?.name;
  const toggle = (name) => go({ metrics: metrics.includes(name)
    ? metrics.filter((each) => each !== name) : [...metrics, name] }, true);
  const box = (name, words, key) => el("label", {}, el("input", { type: "checkbox", "data-name": key,
    checked: wanted[key], onchange: () => go({ [key]: !wanted[key] }, true) }), ` ${words}`);
  place.replaceChildren(
    el("div", { class: "chips", role: "group", "aria-label": "Metrics" }, ...names.map((name) =>
      el("button", { class: "chip", type: "button", "data-name": name,
        "aria-pressed": String(metrics.includes(name)), onclick: () => toggle(name) }, name))),
    el("label", {}, "Colour by ", el("select", { "data-name": "colour",
      onchange: (event) => go({ colour: event.target.value }, true) },
    ...["", "step", ...axes].map((axis) => el("option", { value: axis, selected: wanted.colour === axis },
      axis || "each band")))),
    box("log", "logarithmic", "log"), box("seeds", "single seeds", "seeds"));
  if (held) place.querySelector(`[data-name="${CSS.escape(held)}"]`)?.focus();
}

function showCharts(place, metrics, series, wanted) {
  while (place.children.length > metrics.length) place.lastChild.remove();
  metrics.forEach((metric, i) => {
    const chart = place.children[i] ?? place.appendChild(el("figure", { class: "panel chart", css: { margin: 0 } }));
    const drawn = series.map((each) => ({ ...each,
      band: each.hidden ? null : bandOf(each.runs.map((run) => curvesOf(run.id)[metric]).filter(Boolean)) }));
    const form = JSON.stringify([metric, wanted.log, wanted.seeds, chart.clientWidth,
      drawn.map((each) => [each.label, each.colour, each.band?.points.length, each.band?.points.at(-1)])]);
    if (chart.dataset.form === form || chart.matches(":hover, :focus-within") && chart.dataset.metric === metric
      && chart.dataset.count === String(drawn.length) && Date.now() - chart.dataset.at < 4000) return;
    Object.assign(chart.dataset, { form, metric, count: drawn.length, at: Date.now() });
    draw(chart, metric, drawn, { log: wanted.log, seeds: wanted.seeds });
  });
}

function showLegend(place, metrics, series, wanted) {
  const rows = series.map((each) => [each.label, each.colour, each.hidden, each.runs.length,
    ...metrics.map((metric) => lastOf(each.runs, metric))]);
  const form = JSON.stringify([metrics, rows]);
  if (place.dataset.form === form) return;
  place.dataset.form = form;
  const toggle = (each) => go({ hidden: each.hidden ? wanted.hidden.filter((name) => name !== each.label)
    : [...wanted.hidden, each.label] }, true);
  place.hidden = !series.length;
  place.replaceChildren(el("table", {}, el("caption", { class: "hidden" }, "Last values of each band"),
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Runs"), el("th", { scope: "col", class: "number" }, "seeds"),
      ...metrics.map((metric) => el("th", { scope: "col", class: "number" }, metric)))),
    el("tbody", {}, ...series.map((each) => el("tr", {},
      el("td", {}, el("button", { type: "button", "aria-pressed": String(!each.hidden), onclick: () => toggle(each) },
        swatch(each), each.label)),
      el("td", { class: "number" }, String(each.runs.length)),
      ...metrics.map((metric) => {
        const [mean, range] = lastOf(each.runs, metric);
        return el("td", { class: "number" }, mean, el("span", { class: "minor soft" }, range));
      }))))));
}
function lastOf(many, metric) {
  const tell = teller(metric);
  const values = many.map((run) => run.metrics[metric] ?? run[metric]).filter((value) => typeof value === "number");
  if (!values.length) return ["–", ""];
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  return [tell(mean), values.length > 1
    ? ` (${tell(Math.min(...values), 3)} – ${tell(Math.max(...values), 3)})` : ""];
}
