// What is known of the runs, what is asked to be seen, and how the one is chosen by the other.

export const runs = new Map(); // id -> run as the server tells it
export let study = null; // the rest of the last answer
let ahead = 0; // of the server's clock over ours, in seconds
export const now = () => Date.now() / 1000 + ahead;

const listeners = new Set();
export const onChange = (listener) => listeners.add(listener);
const tell = (what) => listeners.forEach((listener) => listener(what));

// --- the view, kept in the fragment of the address --------------------------------------

export function view() {
  const found = new URLSearchParams(location.hash.slice(1));
  return {
    view: found.get("view") || "study",
    words: found.get("q") || "",
    states: list(found.get("state")),
    axes: Object.fromEntries([...found].filter(([name]) => name.startsWith("axis."))
      .map(([name, value]) => [name.slice(5), value])),
    group: found.get("group") || "",
    metrics: list(found.get("metrics")),
    colour: found.get("colour") || "",
    log: found.get("log") === "1",
    seeds: found.get("seeds") === "1",
    hidden: list(found.get("hidden")),
    sort: found.get("sort") || "",
    compare: list(found.get("compare")),
    all: found.get("all") === "1",
    run: found.get("run") || "",
  };
}
const list = (text) => (text ? text.split(",").filter(Boolean) : []);

export function link(changes) {
  const next = { ...view(), ...changes };
  const words = new URLSearchParams();
  const put = (name, value) => { if (value && value.length !== 0) words.set(name, value); };
  put("view", next.view);
  put("q", next.words);
  put("state", next.states.join(","));
  for (const [name, value] of Object.entries(next.axes)) put(`axis.${name}`, value);
  put("group", next.group);
  put("metrics", next.metrics.join(","));
  put("colour", next.colour);
  put("log", next.log ? "1" : "");
  put("seeds", next.seeds ? "1" : "");
  put("hidden", next.hidden.join(","));
  put("sort", next.sort);
  put("compare", next.compare.join(","));
  put("all", next.all ? "1" : "");
  put("run", next.run);
  return `#${words}`;
}
export function go(changes, replace = false) {
  const address = link(changes);
  if (address === location.hash) return;
  if (replace) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
  tell("view");
}
window.addEventListener("hashchange", () => tell("view"));
window.addEventListener("popstate", () => tell("view"));

// --- which runs -------------------------------------------------------------------------

export function matches(run, wanted) {
  if (wanted.states.length && !wanted.states.includes(run.status)) return false;
  if (wanted.group && run.groupKey !== wanted.group) return false;
  for (const [name, value] of Object.entries(wanted.axes)) {
    if ((name === "stage" ? run.stage : run.axes[name]) !== value) return false;
  }
  if (!wanted.words) return true;
  const text = `${run.place} ${run.stage} ${run.status} ${run.study ?? ""} `
    + `${Object.values(run.axes).join(" ")}`.toLowerCase();
  return wanted.words.toLowerCase().split(/\s+/).every((word) => text.toLowerCase().includes(word));
}
export const chosen = (wanted = view()) => [...runs.values()].filter((run) => matches(run, wanted));

// Runs that differ in the seed alone.
export function siblings(run) {
  return ownAxes(run).map(([, value]) => value).join(" · ");
}
// What a study varies, or without one all that is known, but for the seed; numbers with their name.
export const ownAxes = (run) => run.own_axes.filter((name) => name !== "seed" && name !== "weights")
  .map((name) => [name, /^[\d.]+$/.test(run.axes[name]) ? `${name} ${run.axes[name]}` : run.axes[name]]);
// The group of the graph: a step of the study; without one the stage and how often it came before.
function setGroups() {
  const depth = new Map();
  const depthOf = (run, way) => {
    if (depth.has(run.id)) return depth.get(run.id);
    if (way.has(run.id)) return new Map();
    way.add(run.id);
    const before = new Map();
    for (const id of run.needs) {
      const other = runs.get(id);
      if (!other) continue;
      for (const [stage, count] of depthOf(other, way)) {
        before.set(stage, Math.max(before.get(stage) ?? 0, count));
      }
    }
    way.delete(run.id);
    before.set(run.stage, (before.get(run.stage) ?? 0) + 1);
    depth.set(run.id, before);
    return before;
  };
  for (const run of runs.values()) {
    const level = run.study ? 0 : depthOf(run, new Set()).get(run.stage);
    const title = run.group || run.stage || "not begun";
    run.groupTitle = level > 1 ? `${title} ${level}` : title;
    run.groupKey = `${run.study ?? run.place.split("/")[0]}/${run.step}/${run.groupTitle}`;
  }
}

// --- following ---------------------------------------------------------------------------

const pause = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));
const visible = () => (document.hidden
  ? new Promise((done) => document.addEventListener("visibilitychange", done, { once: true }))
  : null);

export async function follow(said) {
  let version = 0;
  let epoch = "";
  let failures = 0;
  for (;;) {
    await visible();
    try {
      const answer = await get(`api/study?since=${version}&epoch=${epoch}&wait=20`);
      if (answer.epoch !== epoch || answer.since === 0) runs.clear();
      ({ version, epoch } = answer);
      study = answer;
      ahead = answer.now - Date.now() / 1000;
      for (const run of answer.runs) runs.set(run.id, run);
      for (const id of answer.removed) runs.delete(id);
      if (answer.runs.length || answer.removed.length) setGroups();
      failures = 0;
      said(null);
      tell("data");
      await pause(answer.unread ? 0.4 : 0.2);
    } catch (error) {
      failures += 1;
      said(error);
      await pause(Math.min(failures, 5));
    }
  }
}

export async function get(address) {
  const answer = await fetch(address, { cache: "no-store" });
  if (!answer.ok) throw new Error(`${answer.status}: ${(await answer.text()).slice(0, 200)}`);
  return answer.json();
}

// --- curves: fetched again only of runs that have changed ---------------------------------

const curves = new Map(); // id -> {version, found}
export const curvesOf = (id) => curves.get(id)?.found ?? {};
let fetching = false;
let fetchedAt = 0;
let later = null;

export async function needCurves(wanted) {
  const old = wanted.filter((run) => run.done_steps !== null
    && curves.get(run.id)?.version !== run.version).slice(0, 400);
  if (!old.length) return;
  if (fetching || Date.now() - fetchedAt < 900) {
    later ??= setTimeout(() => { later = null; tell("curves"); }, 900);
    return;
  }
  fetching = true;
  fetchedAt = Date.now();
  try {
    for (let start = 0; start < old.length; start += 100) {
      const part = old.slice(start, start + 100);
      const found = await get(`api/curves?ids=${part.map((run) => run.id).join(",")}`);
      for (const run of part) curves.set(run.id, { version: run.version, found: found[run.id] });
      tell("curves");
    }
  } catch { /* gone meanwhile; the next look asks again */ } finally { fetching = false; }
}
