// The views "Runs" and "Compare", and all about one run.

import { bandOf, draw } from "./charts.js";
import { byId, bytes, duration, el, number, percent, state } from "./dom.js";
import { chosen, curvesOf, get, go, link, needCurves, runs, view } from "./store.js";
import { factsOf, progress, runLink, secondsOf, shareDone, timeLeft } from "./study.js";

const PAGE = 150;
const COLUMNS = [
  ["name", "Run", (run) => run.place],
  ["state", "State", (run) => run.status],
  ["progress", "Progress", shareDone, "minor"],
  ["metric", "Metric", (run) => run.metrics[run.metric] ?? null, "number"],
  ["speed", "Images/s", (run) => run.images_per_second, "number minor"],
  ["wait", "Data wait", (run) => run.data_wait, "number minor"],
  ["memory", "GPU memory", (run) => run.gpu_memory_bytes, "number minor"],
  ["left", "Left", timeLeft, "number minor"],
  ["took", "Took", secondsOf, "number minor"],
];

export function makeRuns(main) {
  const place = el("div", { class: "wide runs" });
  const more = el("button", { type: "button", onclick: () => { most += PAGE; redraw(); } });
  main.append(place, el("p", {}, more));
  let most = PAGE;
  let form = "";
  let redraw = () => {};
  redraw = () => {
    const wanted = view();
    const sorted = sort(chosen(wanted), wanted.sort);
    const shown = sorted.slice(0, most);
    more.hidden = sorted.length <= most;
    more.textContent = `Show ${Math.min(PAGE, sorted.length - most)} more of ${sorted.length}`;
    const next = JSON.stringify([shown.map((run) => [run.id, run.version, Math.round(timeLeft(run) / 5)]),
      wanted.sort, wanted.compare]);
    if (next === form || place.matches(":focus-within") && next.split("],[").length === form.split("],[").length
      && place.dataset.sort === wanted.sort + wanted.compare && Date.now() - place.dataset.at < 3000) return;
    form = next;
    Object.assign(place.dataset, { sort: wanted.sort + wanted.compare, at: Date.now() });
    const held = document.activeElement?.dataset?.name;
    place.replaceChildren(table(shown, wanted));
    if (held) place.querySelector(`[data-name="${CSS.escape(held)}"]`)?.focus();
  };
  return redraw;
}

function sort(many, by) {
  const column = COLUMNS.find(([name]) => name === by.replace("-", ""));
  if (!column) return many;
  const sign = by.startsWith("-") ? -1 : 1;
  const empty = (value) => value === null || value === undefined;
  return [...many].sort((a, b) => {
    const [one, other] = [column[2](a), column[2](b)];
    if (empty(one) || empty(other)) return empty(one) - empty(other);
    return sign * (typeof one === "string" ? one.localeCompare(other) : one - other);
  });
}

function table(shown, wanted) {
  const head = COLUMNS.map(([name, title, , kind]) => {
    const sorted = wanted.sort.replace("-", "") === name;
    const down = wanted.sort === name;
    return el("th", { scope: "col", class: kind ?? null,
      "aria-sort": sorted ? (down ? "ascending" : "descending") : null },
    el("button", { type: "button", "data-name": `sort ${name}`,
      onclick: () => go({ sort: down ? `-${name}` : name }, true) },
    `${title}${sorted ? (down ? " ▴" : " ▾") : ""}`));
  });
  return el("table", {}, el("caption", { class: "hidden" }, "Runs"),
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, el("span", { class: "hidden" }, "Compare")), ...head)),
    el("tbody", {}, ...shown.map((run) => row(run, wanted))));
}

function row(run, wanted) {
  const set = wanted.compare.includes(run.id);
  const cells = [
    el("td", {}, runLink(run), run.warnings.length ? el("span", { title: run.warnings.join("\n"),
      role: "img", "aria-label": "has warnings" }, " ⚠") : null),
    el("td", {}, state(run.status), run.reason ? el("div", { class: "soft" }, run.reason) : null),
    el("td", { class: "minor" }, progress(run)),
    el("td", { class: "number", title: run.metric }, run.metric ? number(run.metrics[run.metric]) : "–"),
    el("td", { class: "number minor" }, run.images_per_second === null ? "–" : number(run.images_per_second, 3)),
    el("td", { class: "number minor" }, percent(run.data_wait)),
    el("td", { class: "number minor" }, bytes(run.gpu_memory_bytes)),
    el("td", { class: "number minor" }, duration(timeLeft(run))),
    el("td", { class: "number minor" }, duration(secondsOf(run))),
  ];
  return el("tr", {}, el("td", {}, el("input", { type: "checkbox", checked: set, "data-name": run.id,
    "aria-label": `compare ${run.name}`, onchange: () => compare(run.id) })), ...cells);
}
function compare(id) {
  const { compare: old } = view();
  go({ compare: old.includes(id) ? old.filter((each) => each !== id) : [...old, id] }, true);
}

// --- settings side by side -------------------------------------------------------------------

const settings = new Map();
async function needSettings(ids, done) {
  const wanted = ids.filter((id) => !settings.has(id) && runs.has(id));
  if (!wanted.length) return;
  wanted.forEach((id) => settings.set(id, null));
  try {
    Object.entries(await get(`api/settings?ids=${wanted.join(",")}`)).forEach(([id, found]) =>
      settings.set(id, found));
    done();
  } catch { wanted.forEach((id) => settings.delete(id)); }
}

export function makeCompare(main) {
  const place = el("div", {});
  main.append(place);
  let form = "";
  const redraw = () => {
    const wanted = view();
    const many = wanted.compare.map((id) => runs.get(id)).filter(Boolean).slice(0, 12);
    needSettings(many.map((run) => run.id), redraw);
    needCurves(many);
    const next = JSON.stringify([many.map((run) => [run.id, run.version, Boolean(settings.get(run.id)),
      Object.keys(curvesOf(run.id)).length]), wanted.all]);
    if (next === form) return;
    form = next;
    if (many.length < 2) {
      place.replaceChildren(el("p", {}, "Choose two runs or more with the boxes in the view ",
        el("a", { href: link({ view: "runs" }) }, "Runs"), "; here stand their settings side by side, "
        + "and only those in which they differ."));
      return;
    }
    place.replaceChildren(el("div", { class: "controls" }, el("label", {}, el("input", { type: "checkbox",
      checked: wanted.all, onchange: () => go({ all: !wanted.all }, true) }), " settings that are alike, too"),
    el("button", { type: "button", onclick: () => go({ compare: [] }, true) }, "Choose others")),
    el("div", { class: "wide" }, sideBySide(many, wanted.all)), el("div", { class: "charts", css: { "margin-top": ".9rem" } }));
    const common = many.map((run) => run.metric).find((metric) => metric && many.some((run) => curvesOf(run.id)[metric]));
    if (!common) return;
    const chart = place.lastChild.appendChild(el("figure", { class: "panel chart", css: { margin: 0 } }));
    draw(chart, common, many.map((run, i) => ({ label: run.name, colour: `var(--c${i})`,
      band: bandOf([curvesOf(run.id)[common]].filter(Boolean)) })));
  };
  return redraw;
}

function sideBySide(many, all) {
  const texts = (name, pick) => ({ name, values: many.map(pick) });
  const shown = (value) => (value === undefined ? "–" : typeof value === "string" ? value : JSON.stringify(value));
  const keys = [...new Set(many.flatMap((run) => Object.keys(settings.get(run.id) ?? {})))].sort();
  const rows = keys.filter((key) => all || key !== "output").map((key) => texts(key, (run) => shown(settings.get(run.id)?.[key])));
  const metrics = [...new Set(many.flatMap((run) => Object.keys(run.metrics)))].sort();
  const results = [texts("state", (run) => run.status),
    ...metrics.map((name) => texts(name, (run) => number(run.metrics[name]))),
    texts("took", (run) => duration(secondsOf(run)))];
  const differs = ({ values }) => new Set(values).size > 1;
  const body = (title, list) => [el("tr", {}, el("th", { colspan: many.length + 1, scope: "colgroup" }, title)),
    ...list.filter((each) => all || differs(each)).map((each) => el("tr", { class: all && differs(each) ? "differs" : null },
      el("th", { scope: "row" }, each.name), ...each.values.map((value) => el("td", {}, value))))];
  return el("table", {}, el("thead", {}, el("tr", {}, el("td", {}), ...many.map((run, i) =>
    el("th", { scope: "col" }, el("span", { class: "swatch", css: { "--c": `var(--c${i})` } }), " ", runLink(run))))),
  el("tbody", {}, ...body("Settings", rows), ...body("Results", results)));
}

// --- one run -----------------------------------------------------------------------------------

let shownRun = "";
let log = [];

export function showRun() {
  const dialog = byId("run");
  const run = runs.get(view().run);
  if (!run) { if (dialog.open) dialog.close(); shownRun = ""; return; }
  needCurves([run]);
  needSettings([run.id], showRun);
  const form = JSON.stringify([run.id, run.version, Boolean(settings.get(run.id)),
    Object.values(curvesOf(run.id)).map((curve) => curve.steps.at(-1)), log.length]);
  if (form === shownRun) return;
  const isOther = !shownRun.startsWith(`["${run.id}"`);
  if (isOther) log = [];
  shownRun = form;
  if (run.study) readLog(run);
  const top = dialog.scrollTop;
  dialog.replaceChildren(...content(run));
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = isOther ? 0 : top;
  const names = Object.keys(curvesOf(run.id));
  const place = dialog.querySelector(".charts");
  for (const name of names) {
    const chart = place.appendChild(el("div", { class: "chart" }));
    draw(chart, name, [{ label: run.name, colour: "var(--c0)", band: bandOf([curvesOf(run.id)[name]]) }], { small: true });
  }
}

async function readLog(run) {
  try {
    const lines = (await get(`api/log?ids=${run.id}`))[run.id];
    if (view().run !== run.id || lines.join("\n") === log.join("\n")) return;
    log = lines;
    const place = byId("lines");
    if (place) { place.textContent = log.join("\n"); place.parentElement.hidden = !log.length; place.scrollTop = 1e6; }
  } catch { /* the run has gone */ }
}

function content(run) {
  const close = el("button", { type: "button", onclick: () => go({ run: "" }) }, "Close");
  const before = run.needs.map((id) => runs.get(id)).filter(Boolean);
  const after = [...runs.values()].filter((other) => other.needs.includes(run.id));
  const links = (title, many) => (many.length ? [el("h3", {}, title), el("ul", {}, ...many.slice(0, 30)
    .map((other) => el("li", {}, state(other.status), " ", runLink(other)))),
  many.length > 30 ? el("p", { class: "soft" }, `and ${many.length - 30} more`) : ""] : []);
  const facts = [["stage", run.stage], ["study", run.study], ...Object.entries(run.axes), ["host", run.host],
    ["processes", run.processes > 1 ? run.processes : null]].filter(([, value]) => value);
  const given = Object.entries(settings.get(run.id) ?? {});
  return [
    el("div", { class: "top" }, el("h2", { id: "run-title" }, run.name), close),
    el("p", {}, state(run.status), run.reason ? ` ${run.reason}` : ""), progress(run) ?? "", factsOf(run),
    ...run.warnings.map((warning) => el("p", { class: "notice" }, `⚠ ${warning}`)),
    el("p", { class: "facts" }, ...facts.map(([name, value]) => el("span", {}, `${name} `, el("b", {}, value)))),
    el("p", {}, el("button", { type: "button", onclick: () => { compare(run.id); } },
      view().compare.includes(run.id) ? "Do not compare" : "Compare")),
    el("div", { hidden: !log.length }, el("h3", {}, "Last lines"),
      el("pre", { id: "lines", tabindex: 0 }, log.join("\n"))),
    el("h3", {}, "Curves"), el("div", { class: "charts" }),
    el("h3", {}, "Last values"), el("div", { class: "wide" }, el("table", {}, el("tbody", {},
      ...Object.entries(run.metrics).map(([name, value]) => el("tr", {}, el("th", { scope: "row" }, name),
        el("td", { class: "number" }, number(value, 6))))))),
    ...links("Needs", before), ...links("Needed by", after),
    el("h3", {}, "Settings"), el("details", {}, el("summary", {}, `${given.length} settings`),
      el("div", { class: "wide" }, el("table", {}, el("tbody", {}, ...given.map(([name, value]) => el("tr", {},
        el("th", { scope: "row" }, name), el("td", {}, typeof value === "string" ? value : JSON.stringify(value)))))))),
  ];
}
