// Line charts with bands, as SVG: colours follow the page, lines stay sharp, nothing is loaded.

import { el, number, svg } from "./dom.js";

const HEIGHT = 280;
const LEFT = 56;
const BOTTOM = 26;

// Seeds laid over each other: mean, least and most at each step that the longest one has.
export function bandOf(curves) {
  const whole = curves.map((curve) => finite(curve)).filter((curve) => curve.steps.length);
  if (!whole.length) return null;
  const longest = whole.reduce((a, b) => (b.steps.at(-1) > a.steps.at(-1) ? b : a));
  const points = [];
  for (const step of longest.steps) {
    const values = whole.map((curve) => at(curve, step)).filter((value) => value !== null);
    if (!values.length) continue;
    points.push({ step, mean: values.reduce((a, b) => a + b, 0) / values.length,
      low: Math.min(...values), high: Math.max(...values), count: values.length });
  }
  return { points, curves: whole };
}
function finite({ steps, values }) {
  const kept = steps.map((_, i) => i).filter((i) => values[i] !== null);
  return { steps: kept.map((i) => steps[i]), values: kept.map((i) => values[i]) };
}
function at({ steps, values }, step) {
  if (step < steps[0] || step > steps.at(-1)) return null;
  let low = 0;
  let high = steps.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (steps[middle] <= step) low = middle; else high = middle;
  }
  if (steps[high] === steps[low]) return values[high];
  const share = (step - steps[low]) / (steps[high] - steps[low]);
  return values[low] + share * (values[high] - values[low]);
}

function ticksOf(low, high, count) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((each) => each * power >= rough);
  const ticks = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high + step / 1e6; tick += step) {
    ticks.push(Math.abs(tick) < step / 1e6 ? 0 : tick);
  }
  return ticks;
}

// Draws series {label, colour, band, dotted} into a place that keeps its size.
export function draw(place, title, series, { log = false, seeds = false, small = false } = {}) {
  const height = small ? 150 : HEIGHT;
  const width = Math.max(place.clientWidth - (small ? 18 : 34), 200);
  const shown = series.filter((each) => each.band);
  const points = shown.flatMap((each) => each.band.points);
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img",
    tabindex: 0, "aria-label": spoken(title, shown) });
  place.replaceChildren(el("h3", {}, title), picture);
  if (!points.length) {
    picture.append(svg("text", { x: LEFT, y: height / 2 }, "no values yet"));
    return;
  }
  const scales = { ...makeScales(points, width, height, log), tell: teller(title) };
  drawGrid(picture, scales, width, height);
  for (const each of shown) drawSeries(picture, each, scales, seeds);
  follow(place, picture, shown, scales, width, height);
}

// Memory reads better in GiB than in bytes.
export const teller = (title) => (value, digits = 4) => (title.endsWith("_bytes")
  ? `${number(value / 2 ** 30, digits)} GiB` : number(value, digits));

function makeScales(points, width, height, log) {
  const most = (pick) => points.reduce((a, b) => Math.max(a, pick(b)), -Infinity);
  const least = (pick) => points.reduce((a, b) => Math.min(a, pick(b)), Infinity);
  const bend = log && least((p) => p.low) > 0 ? Math.log10 : (value) => value;
  let [low, high] = [bend(least((p) => p.low)), bend(most((p) => p.high))];
  const air = (high - low) * 0.06 || Math.abs(high) * 0.05 || 1;
  [low, high] = [low - air, high + air];
  const [first, last] = [0, most((p) => p.step) || 1];
  const x = (step) => LEFT + (width - LEFT - 8) * (step - first) / (last - first);
  const y = (value) => (height - BOTTOM) - (height - BOTTOM - 8) * (bend(value) - low) / (high - low);
  const raise = bend === Math.log10 ? (value) => 10 ** value : (value) => value;
  return { x, y, raise, low, high, first, last };
}

function drawGrid(picture, { x, y, raise, low, high, first, last, tell }, width, height) {
  for (const tick of ticksOf(low, high, height < 200 ? 3 : 5)) {
    const value = raise(tick);
    const line = Math.round(y(value)) + 0.5;
    picture.append(svg("line", { class: "grid", x1: LEFT, x2: width - 8, y1: line, y2: line }),
      svg("text", { x: LEFT - 6, y: line + 4, "text-anchor": "end" }, tell(value, 3)));
  }
  for (const tick of ticksOf(first, last, width < 420 ? 3 : 6)) {
    picture.append(svg("text", { x: x(tick), y: height - 8,
      "text-anchor": tick === 0 ? "start" : x(tick) > width - 30 ? "end" : "middle" },
    tick === 0 ? "step 0" : tick.toLocaleString("en")));
  }
}

const path = (points, x, y, pick) =>
  points.map((p, i) => `${i ? "L" : "M"}${x(p.step).toFixed(1)} ${y(pick(p)).toFixed(1)}`).join("");

function drawSeries(picture, { colour, band, dotted, faded }, { x, y }, seeds) {
  const group = svg("g", { css: { "--c": colour }, class: faded ? "faded" : null });
  const { points, curves } = band;
  if (curves.length > 1) {
    const back = [...points].reverse();
    group.append(svg("path", { class: "band",
      d: `${path(points, x, y, (p) => p.high)}L${path(back, x, y, (p) => p.low).slice(1)}Z` }));
  }
  if (seeds && curves.length > 1) {
    for (const { steps, values } of curves) {
      const own = steps.map((step, i) => ({ step, value: values[i] }));
      group.append(svg("path", { class: "line seed", d: path(own, x, y, (p) => p.value) }));
    }
  }
  group.append(svg("path", { class: `line${dotted ? " dotted" : ""}`,
    d: path(points, x, y, (p) => p.mean) }));
  if (points.length === 1) {
    group.append(svg("circle", { class: "dot", r: 3, cx: x(points[0].step), cy: y(points[0].mean) }));
  }
  picture.append(group);
}

// A cross that follows the pointer or the arrow keys, with what each series has there.
function follow(place, picture, shown, { x, first, last, tell }, width, height) {
  const cross = svg("line", { class: "cross", y1: 4, y2: height - BOTTOM, visibility: "hidden" });
  const tip = el("div", { class: "tip", hidden: true });
  picture.append(cross);
  place.append(tip);
  let step = last;
  const show = (wanted) => {
    step = Math.min(Math.max(wanted, first), last);
    const rows = shown.map((each) => ({ each, point: nearest(each.band.points, step) }))
      .filter(({ point }) => Math.abs(point.step - step) < (last - first) / 8)
      .sort((a, b) => b.point.mean - a.point.mean);
    if (!rows.length) return;
    const place_ = x(rows[0].point.step);
    cross.setAttribute("x1", place_);
    cross.setAttribute("x2", place_);
    cross.setAttribute("visibility", "visible");
    tip.replaceChildren(el("div", { class: "soft" }, `step ${rows[0].point.step.toLocaleString("en")}`),
      ...rows.slice(0, 12).map(({ each, point }) => el("div", {},
        swatch(each), el("span", {}, each.label),
        el("b", {}, point.count > 1
          ? `${tell(point.mean)} (${tell(point.low, 3)} – ${tell(point.high, 3)})`
          : tell(point.mean)))),
      rows.length > 12 ? el("div", { class: "soft" }, `and ${rows.length - 12} more`) : "");
    tip.hidden = false;
    const scale = picture.clientWidth / width;
    tip.style.top = "2.4rem";
    const onLeft = place_ > width / 2;
    tip.style.left = onLeft ? "auto" : `${place_ * scale + 24}px`;
    tip.style.right = onLeft ? `${(width - place_) * scale + 24}px` : "auto";
  };
  const hide = () => { tip.hidden = true; cross.setAttribute("visibility", "hidden"); };
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    const share = ((event.clientX - box.left) * width / box.width - LEFT) / (width - LEFT - 8);
    show(first + share * (last - first));
  });
  picture.addEventListener("pointerleave", hide);
  picture.addEventListener("blur", hide);
  picture.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    show(step + by * (last - first) / 40);
  });
}
export const swatch = ({ colour, dotted }) =>
  el("span", { class: `swatch${dotted ? " dotted" : ""}`, css: { "--c": colour } });
const nearest = (points, step) =>
  points.reduce((a, b) => (Math.abs(b.step - step) < Math.abs(a.step - step) ? b : a));

function spoken(title, shown) {
  const told = shown.slice(0, 8).map((each) =>
    `${each.label}: ${number(each.band.points.at(-1)?.mean)}`);
  return `${title} by step. Last values: ${told.join("; ")}. Arrow keys read along the curve.`;
}
