// Puts the page together: the head, the filter, and one of the views.

import { WORDS, byId, bytes, duration, el, mark, number, percent, setText } from "./dom.js";
import { makeCurves } from "./curves.js";
import { makeCompare, makeRuns, showRun } from "./runs.js";
import { chosen, follow, go, link, onChange, runs, study, view } from "./store.js";
import { makeStudy, onLogs } from "./study.js";

const VIEWS = { study: makeStudy, curves: makeCurves, runs: makeRuns, compare: makeCompare,
  warnings: makeWarnings };
const MOST_CHOICES = 40;
let current = "";
let drawView = () => {};

function makeWarnings(main) {
  const place = el("div", {});
  main.append(place);
  return () => {
    const own = chosen().flatMap((run) => run.warnings.map((words) => ({ run, words })));
    const form = JSON.stringify([own.map(({ run, words }) => [run.id, words]), study.cautions, study.problems]);
    if (place.dataset.form === form) return;
    place.dataset.form = form;
    const items = (list) => el("ul", { class: "warnings" }, ...list.map((words) => el("li", {}, words)));
    place.replaceChildren(
      ...(study.problems.length ? [el("h2", {}, "Plans that cannot be read"), items(study.problems)] : []),
      el("h2", {}, `Of single runs (${own.length})`),
      own.length ? el("ul", { class: "warnings" }, ...own.slice(0, 300).map(({ run, words }) => el("li", {},
        el("button", { class: "plain", type: "button", onclick: () => go({ run: run.id }) }, run.name), `: ${words}`)))
        : el("p", { class: "soft" }, "None: no network that was tested is known to have met its test images, and no file is damaged."),
      el("h2", {}, "Before comparing"),
      study.cautions.length ? items(study.cautions)
        : el("p", { class: "soft" }, "Nothing to say yet: no evaluation is finished, or it has not been judged. This is judged anew when records are added."),
      el("p", { class: "soft" }, "nakt report says more: it compares recipes with the papers', draws the figures and names every record that was left out."));
  };
}

// --- head and filter ----------------------------------------------------------------------

function showHead(wanted) {
  const names = study.studies.map((each) => each.name);
  const title = (names.length ? names : study.folders).join(", ");
  setText(byId("title"), title);
  document.title = `${title} · nakt watch`;
  const counts = WORDS.map((word) => [word, study.summary.counts[word] ?? 0]).filter(([, count]) => count);
  byId("bar").setAttribute("aria-label", counts.map(([word, count]) => `${count} ${word}`).join(", "));
  byId("bar").replaceChildren(...counts.map(([word, count]) => el("span", { class: word,
    title: `${count} ${word}`, css: { "flex-grow": count } })));
  showChips(counts, wanted);
  showFigures();
}

function showChips(counts, wanted) {
  const place = byId("states");
  const form = JSON.stringify([counts, wanted.states]);
  if (place.dataset.form === form) return;
  place.dataset.form = form;
  const held = place.contains(document.activeElement) ? document.activeElement.dataset.word : null;
  place.replaceChildren(...counts.map(([word, count]) => {
    const set = wanted.states.includes(word);
    return el("button", { class: "chip", type: "button", "aria-pressed": String(set), "data-word": word,
      onclick: () => go({ states: set ? wanted.states.filter((each) => each !== word) : [...wanted.states, word] }) },
    mark(word), `${count} ${word}`);
  }));
  if (held) place.querySelector(`[data-word="${held}"]`)?.focus();
}

function showFigures() {
  const { summary, currency } = study;
  const live = [...runs.values()].filter((run) => run.status === "running");
  const all = (name) => live.map((run) => run[name]).filter((value) => value !== null);
  const waits = all("data_wait");
  const memory = all("gpu_memory_bytes");
  const figures = [
    ["Time left", summary.seconds_left !== null && `≈ ${duration(summary.seconds_left)}`],
    ["Process hours", number(summary.process_hours, 3)],
    ["Cost so far", summary.cost !== null && `${summary.cost.toFixed(2)} ${currency}`],
    ["Images/s, all", summary.images_per_second !== null && number(summary.images_per_second, 3)],
    ["Data wait", waits.length && percent(waits.reduce((a, b) => a + b, 0) / waits.length)],
    ["GPU memory, most", memory.length && bytes(Math.max(...memory))],
  ].filter(([, value]) => value);
  const place = byId("figures");
  if (place.children.length !== figures.length) {
    place.replaceChildren(...figures.map(([name]) => el("div", {}, el("dt", {}, name), el("dd", {}))));
  }
  figures.forEach(([name, value], i) => {
    setText(place.children[i].firstChild, name);
    setText(place.children[i].lastChild, value);
  });
}

function showFilter(wanted) {
  const choices = { stage: new Set([...runs.values()].map((run) => run.stage).filter(Boolean)) };
  for (const run of runs.values()) {
    for (const [name, value] of Object.entries(run.axes)) (choices[name] ??= new Set()).add(value);
  }
  const axes = Object.entries(choices).filter(([name, values]) => wanted.axes[name] !== undefined
    || (name !== "weights" && values.size > 1 && values.size <= MOST_CHOICES));
  const form = JSON.stringify([axes.map(([name, values]) => [name, [...values]]), wanted.axes]);
  const place = byId("axes");
  if (place.dataset.form !== form) {
    place.dataset.form = form;
    const held = document.activeElement?.dataset?.axis;
    place.replaceChildren(...axes.map(([name, values]) => el("select", { "aria-label": name, "data-axis": name,
      class: wanted.axes[name] === undefined ? null : "set",
      onchange: (event) => {
        const { [name]: _, ...others } = view().axes;
        go({ axes: event.target.value ? { ...others, [name]: event.target.value } : others });
      } },
    el("option", { value: "" }, `${name}: all`),
    ...[...values].sort((a, b) => a.localeCompare(b, "en", { numeric: true })).map((value) =>
      el("option", { value, selected: wanted.axes[name] === value }, `${name}: ${value}`)))));
    if (held) place.querySelector(`[data-axis="${CSS.escape(held)}"]`)?.focus();
  }
  const words = byId("words");
  if (document.activeElement !== words) words.value = wanted.words;
  const count = chosen(wanted).length;
  setText(byId("shown"), count === runs.size ? `${runs.size} runs` : `${count} of ${runs.size} runs`);
  byId("clear").hidden = count === runs.size && !wanted.group;
}

// --- drawing ---------------------------------------------------------------------------------

function drawAll() {
  const wanted = view();
  if (!(wanted.view in VIEWS)) wanted.view = "study";
  if (!study) return;
  if (wanted.view !== current) {
    current = wanted.view;
    byId("main").replaceChildren();
    drawView = VIEWS[current](byId("main"));
  }
  showHead(wanted);
  for (const each of document.querySelectorAll("nav a[data-view]")) {
    each.href = link({ view: each.dataset.view, run: "" });
    if (each.dataset.view === current) each.setAttribute("aria-current", "page");
    else each.removeAttribute("aria-current");
  }
  const warned = [...runs.values()].filter((run) => run.warnings.length).length + study.problems.length;
  setText(byId("compared"), wanted.compare.length ? String(wanted.compare.length) : "");
  setText(byId("warned"), warned ? String(warned) : "");
  byId("explore").hidden = ![...runs.values()].some((run) => run.stage === "teach");
  showFilter(wanted);
  drawView();
  showRun();
}

let asked = false;
function draw() {
  if (asked) return;
  asked = true;
  setTimeout(() => { asked = false; drawAll(); }, 0);
}

function said(error) {
  const place = byId("live");
  place.className = error ? "lost" : study?.unread ? "busy" : "";
  const reading = study?.unread ? `reading ${study.unread} of ${runs.size} runs …` : "live";
  setText(place, error ? `no answer; trying again (${error.message})` : reading);
}

byId("words").addEventListener("input", (event) => go({ words: event.target.value }, true));
byId("filter").addEventListener("submit", (event) => event.preventDefault());
byId("clear").addEventListener("click", () => go({ words: "", states: [], axes: {}, group: "" }));
byId("link").addEventListener("click", async (event) => {
  const button = event.currentTarget;
  try { await navigator.clipboard.writeText(location.href); setText(button, "Copied"); }
  catch { setText(button, "Copy it from the address bar"); }
  setTimeout(() => setText(button, "Copy link"), 2000);
});
byId("run").addEventListener("cancel", (event) => { event.preventDefault(); go({ run: "" }); });
byId("run").addEventListener("click", (event) => { if (event.target === byId("run")) go({ run: "" }); });
new ResizeObserver(draw).observe(document.body);
onChange(draw);
onLogs(draw);
setInterval(draw, 2000); // times that pass
follow(said);
