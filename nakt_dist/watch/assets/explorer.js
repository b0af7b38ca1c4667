// The exclusion explorer's page: statistics come once per set, all else happens here.

import {alphaAt, asWords, asYaml, count, describeRule, edges, judge, oneDecimal, showThreshold,
  smallestBeta} from "./explorer_rule.js";
import {Scatter, drawHistogram, drawOverlay, drawRamp, logPlace, marksOf, scaleOf} from "./explorer_plots.js";

const COUNTS = {before: "before", after: "after", excluded: "excluded", below_alpha_alone: "by α alone",
  above_beta_alone: "by β alone", below_alpha_and_above_beta: "by both"};
const MEASURES = {expected_dice: "expected Dice", mean_confidence: "mean confidence",
  teacher_disagreement: "disagreement of the teachers"};
const COLOURS = {verdict: "kept or excluded", ...MEASURES};
const ALL = "", EDGE_IMAGES = 4, SLIDER_STEPS = 1000;
const find = id => document.getElementById(id);
const scatter = new Scatter(find("scatter"));
let told = null, set = null, rule = null, images = false, pending = 0, imageTimer = 0, addressTimer = 0;

function make(tag, text, properties) {
  return Object.assign(document.createElement(tag), text === undefined ? {} : {textContent: text}, properties);
}

function complain(message) {
  find("problem").textContent = message;
  find("problem").hidden = !message;
}

async function fetched(address) {
  const answer = await fetch(address, {cache: "no-store"});
  if (answer.ok) return answer;
  let reason = `${answer.status} ${answer.statusText}`;
  try { reason = (await answer.json()).error || reason; } catch { /* not ours: its status is said */ }
  throw new Error(reason);
}

/** Reads the statistics of a set: see pack_statistics. */
function unpacked(bytes) {
  const length = new DataView(bytes).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 4, length)));
  const kinds = {f8: Float64Array, f4: Float32Array, u2: Uint16Array};
  const columns = header.columns.map(({name, type, offset}) =>
    [name, new kinds[type](bytes, 4 + length + offset, header.rows)]);
  return {...header, ...Object.fromEntries(columns)};
}

// What the page shows, in its address.

function fromAddress() {
  const words = new URLSearchParams(location.hash.slice(1)), rule = {...told.rule};
  for (const name of ["alpha", "beta"]) {
    if (!words.has(name)) continue;
    const value = Number.parseFloat(words.get(name));
    rule[name] = words.get(name) === "null" ? null : value >= 0 && value < 1e30 ? value : rule[name];
  }
  if (["either", "both"].includes(words.get("combine"))) rule.combine = words.get("combine");
  if (words.has("scale_alpha")) rule.scale_alpha = words.get("scale_alpha") === "true";
  return {rule, place: words.get("set"), split: words.get("split") ?? ALL, colour: words.get("colour")};
}

function toAddress() {
  const words = {set: set.place, alpha: rule.alpha, beta: rule.beta, combine: rule.combine,
    scale_alpha: rule.scale_alpha, split: find("split").value, colour: find("colour").value};
  history.replaceState(null, "", `#${new URLSearchParams(words)}`);
}

// The panel of the rule.

function pixelsMost() {
  return Math.max(set.height * set.width, rule.scale_alpha ? set.referencePixels : 0);
}

function alphaToSlider(alpha) {
  return alpha < 1 ? 0 : Math.round(SLIDER_STEPS * Math.min(1, Math.log(alpha) / Math.log(pixelsMost())));
}

function alphaFromSlider(step) {
  return step === 0 ? 0 : Math.round(pixelsMost() ** (step / SLIDER_STEPS));
}

function showRule(except) {
  find("use-alpha").checked = rule.alpha !== null;
  find("use-beta").checked = rule.beta !== null;
  for (const name of ["alpha", "beta"]) {
    find(name).disabled = find(`${name}-slider`).disabled = rule[name] === null;
    if (rule[name] !== null && except !== name) find(name).value = rule[name];
  }
  if (rule.alpha !== null && except !== "alpha-slider") find("alpha-slider").value = alphaToSlider(rule.alpha);
  if (rule.beta !== null && except !== "beta-slider") find("beta-slider").value = rule.beta;
  find("scale_alpha").checked = rule.scale_alpha;
  document.querySelector(`input[name=combine][value=${rule.combine}]`).checked = true;
  find("use-beta").disabled = !set.soft;
  if (!set.soft) find("beta").disabled = find("beta-slider").disabled = true;
  find("alpha-words").textContent = alphaWords();
  find("beta-words").textContent = !set.soft ? "Every teacher gave binary masks: β does not apply."
    : rule.beta === null ? "No limit: β excludes nothing." : `E > ${rule.beta} bits is left out.`;
  find("yaml").textContent = asYaml(rule);
  find("words").replaceChildren(...asWords(rule).split(/ (?=--)/).flatMap(each => [make("span", each), " "]));
}

function alphaWords() {
  if (rule.alpha === null) return "No limit: α excludes nothing.";
  const alpha = alphaAt(rule, set), area = set.height * set.width;
  const share = value => `${Number((100 * value).toPrecision(2))} %`;
  const words = `N < ${showThreshold(alpha)} is left out: ${share(alpha / area)} of ${set.height} × ${set.width} pixels.`;
  return rule.scale_alpha || area === set.referencePixels ? words
    : `${words} At 384 × 384, where the paper states it, α = ${showThreshold(rule.alpha)} is ${share(rule.alpha / set.referencePixels)}.`;
}

function setRule(changes, except) {
  rule = {...rule, ...changes};
  showRule(except);
  redraw();
}

function listen() {
  const positive = text => { const value = Number.parseFloat(text); return value >= 0 && value < 1e30 ? value : null; };
  find("alpha-slider").oninput = event => setRule({alpha: alphaFromSlider(event.target.valueAsNumber)}, "alpha-slider");
  find("beta-slider").oninput = event => setRule({beta: event.target.valueAsNumber}, "beta-slider");
  for (const name of ["alpha", "beta"]) {
    find(name).oninput = event => {
      const value = positive(event.target.value);
      if (value !== null) setRule({[name]: value}, name);
    };
    find(name).onchange = () => showRule();
    find(`use-${name}`).onchange = event =>
      setRule({[name]: event.target.checked ? positive(find(name).value) ?? told.rule[name] : null});
  }
  find("scale_alpha").onchange = event => setRule({scale_alpha: event.target.checked});
  for (const radio of document.querySelectorAll("input[name=combine]")) radio.onchange = () => setRule({combine: radio.value});
  find("paper-rule").onclick = () => setRule({...told.rule});
  find("three-quarters").onclick = () => {
    const beta = smallestBeta(set, rule, 0.75);
    if (beta !== null) setRule({beta});
    else find("told").textContent = "α alone excludes more than a quarter: no β keeps 75 %.";
  };
  find("rule").onsubmit = event => event.preventDefault();
  find("set").onchange = event => open(event.target.value);
  find("split").onchange = find("colour").onchange = redraw;
  find("show-images").onclick = () => { images = !images; redraw(); };
  for (const button of document.querySelectorAll("[data-copies]")) button.onclick = () => copy(button.dataset.copies);
  find("scatter").onpointermove = point;
  find("scatter").onclick = showPointed;
  const again = () => { scatter.resize(); redraw(); };
  new ResizeObserver(again).observe(find("scatter"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  window.addEventListener("hashchange", load);
}

async function copy(id) {
  const text = find(id).textContent.trim();
  try {
    await navigator.clipboard.writeText(text);
    find("told").textContent = "Copied.";
  } catch {
    getSelection().selectAllChildren(find(id));
    find("told").textContent = document.execCommand("copy") ? "Copied." : "Marked: copy it with Ctrl-C.";
  }
}

// What follows from the rule.

function redraw() {
  if (!pending) pending = requestAnimationFrame(() => { pending = 0; if (set) draw(); });
}

function chosenBy(split) {
  const number = set.splits.indexOf(split);
  return split === ALL ? () => true : row => set.split[row] === number;
}

function draw() {
  const verdict = judge(set, rule), split = find("split").value, chosen = chosenBy(split);
  const alpha = alphaAt(rule, set), beta = set.soft ? rule.beta : null;
  const counted = count(verdict, chosen), mode = find("colour").value;
  clearTimeout(addressTimer);
  addressTimer = setTimeout(toAddress, 200);  // browsers allow a page few changes of its address
  showKept(counted);
  showCounts(verdict);
  showTable7(counted, split);
  showLegend(mode);
  scatter.draw(rule, alpha, beta, verdict, chosen, mode === "verdict" ? null : set[mode], set.scales[mode]);
  const area = set.height * set.width, most = scatter.highest;
  drawHistogram(find("target-histogram"), set.target_pixels, value => logPlace(value, area), verdict, chosen,
    alpha, `α = ${alpha === null ? "" : showThreshold(alpha)}`, marksOf.target_pixels(area));
  drawHistogram(find("entropy-histogram"), set.entropy, value => Math.max(value, 0) / most, verdict, chosen,
    beta, `β = ${beta} bits`, marksOf.entropy(most));
  showEdge(edges(set, rule, verdict, chosen, EDGE_IMAGES));
}

function percent(part, whole) {
  return whole ? oneDecimal(100 * part / whole) : "–";
}

function showKept({before, after}) {
  find("kept").replaceChildren(`${after.toLocaleString("en")} of ${before.toLocaleString("en")} stay: ${percent(after, before)} %`);
}

function row(cells, names = []) {
  const line = document.createElement("tr");
  cells.forEach((cell, i) => {
    const made = cell instanceof Node ? cell : make(i ? "td" : "th", cell);
    if (names[i]) made.dataset.count = names[i];
    line.append(made);
  });
  return line;
}

function fill(table, head, lines) {
  const top = make("thead"), body = make("tbody");
  top.append(row(head.map(text => make("th", text, {scope: "col"}))));
  body.append(...lines);
  table.replaceChildren(top, body);
}

function showCounts(verdict) {
  const groups = [["all", ALL], ...set.splits.map(name => [`split ${name}`, name])];
  fill(find("counts"), ["", ...Object.values(COUNTS)], groups.map(([title, split]) => {
    const counted = count(verdict, chosenBy(split));
    const line = row([title, ...Object.keys(COUNTS).map(name => counted[name].toLocaleString("en"))],
      [undefined, ...Object.keys(COUNTS)]);
    line.dataset.group = title;
    return line;
  }));
}

function noted(text, notes, properties) {
  const cell = make("td", text, properties);
  notes.forEach(note => cell.append(make("span", note, {className: "note"})));
  return cell;
}

function showTable7(counted, split) {
  const printed = set.paper, number = value => value.toLocaleString("en");
  const name = noted(set.label, [`pseudo-labels ${set.name}`, split === ALL ? "all splits" : `split ${split}`], {className: "words"});
  const theirs = printed ? noted(`${number(printed.before)} → ${number(printed.after)}`,
    [printed.dataset, `${percent(printed.after, printed.before)} % kept`]) : make("td", "–");
  fill(find("table-7"), ["Transferal dataset", "Rule", "Before", "After", "Kept %", "N < α alone", "E > β alone", "Both",
    "The paper’s table 7"], [row([name, make("td", describeRule(rule), {className: "words"}), String(counted.before),
    String(counted.after), percent(counted.after, counted.before), String(counted.below_alpha_alone),
    String(counted.above_beta_alone), String(counted.below_alpha_and_above_beta), theirs])]);
}

function swatch(kind, text) {
  const made = make("span");
  made.append(make("i", "", {className: `swatch ${kind}`}), text);
  return made;
}

function showLegend(mode) {
  const region = swatch("region", "excluded by the rule"), scale = set.scales[mode];
  if (mode === "verdict") {
    find("legend").replaceChildren(swatch("kept", "kept"), swatch("excluded", "excluded"), region);
    return;
  }
  const ramp = make("canvas", "", {width: 144, height: 12}), end = value => Number(value.toPrecision(3));
  drawRamp(ramp);
  find("legend").replaceChildren(`${COLOURS[mode]}: ≤ ${end(scale.low)}`, ramp, `≥ ${end(scale.high)}`, region);
}

// Images, on request alone.

function numbersOf(i) {
  return `N = ${set.target_pixels[i]}, E = ${set.entropy[i].toFixed(3)} bits`;
}

function loadImage(i, part) {
  return new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = () => reject(new Error("cannot be shown"));
    image.src = `api/pseudo-image?${new URLSearchParams({set: set.place, row: i, part})}`;
  });
}

function card(i, kind, withImage) {
  const figure = make("figure"), caption = make("figcaption");
  if (kind) caption.append(make("b", kind, {className: kind}));
  caption.append(...numbersOf(i).split(", ").map(words => make("span", words)));
  figure.append(caption);
  if (withImage) {
    const canvas = make("canvas", "", {width: set.width, height: set.height});
    figure.prepend(canvas);
    Promise.all([loadImage(i, "image"), loadImage(i, "soft")])
      .then(([image, mask]) => { drawOverlay(canvas, image, mask); canvas.dataset.drawn = "true"; })
      .catch(error => caption.append(make("span", `The image ${error.message}.`, {className: "note"})));
  }
  return figure;
}

function showEdge(found) {
  find("show-images").textContent = images ? "Hide the images" : "Show these images";
  find("image-legend").hidden = !images;
  clearTimeout(imageTimer);
  const fillIn = () => find("edge").replaceChildren(...found.flatMap(({name, kept, excluded}) => {
    const grid = make("div", undefined, {className: "edge"});
    grid.append(...excluded.map(i => card(i, "excluded", images)).reverse(), ...kept.map(i => card(i, "kept", images)));
    const words = name === "α" ? "Nearest to α, fewest pixels first" : "Nearest to β, most entropy first";
    return [make("h3", words), kept.length + excluded.length ? grid : make("p", "No image’s fate hangs on it.", {className: "soft"})];
  }));
  if (images) imageTimer = setTimeout(fillIn, 250); else fillIn();
}

function point(event) {
  const i = scatter.set ? scatter.nearest(event.offsetX, event.offsetY) : -1;
  if (i < 0) return -1;
  const also = Object.keys(MEASURES).filter(name => !Number.isNaN(set[name][i]))
    .map(name => `${MEASURES[name]} ${Number(set[name][i].toPrecision(3))}`);
  find("point").textContent = [numbersOf(i), ...also].join(", ") + (told.images ? ". Click to see it." : ".");
  return i;
}

function showPointed(event) {
  const i = point(event);
  if (i >= 0 && told.images) find("pointed").replaceChildren(card(i, judge(set, rule).kept[i] ? "kept" : "excluded", true));
}

// Sets.

async function open(place) {
  const known = told.sets.find(each => each.place === place);
  complain(known.problem ? `${place}: ${known.problem}` : "");
  find("main").hidden = true;
  set = null;
  clearTimeout(addressTimer);
  if (known.problem) return;
  try {
    const answer = await fetched(`api/pseudo-statistics?${new URLSearchParams({set: place})}`);
    show({...known, ...unpacked(await answer.arrayBuffer()), referencePixels: told.reference_pixels});
  } catch (error) {
    complain(`${place}: ${error.message}`);
  }
}

function show(opened) {
  const wanted = fromAddress();
  set = {...opened, scales: Object.fromEntries(Object.keys(MEASURES).map(name => [name, scaleOf(opened[name])]))};
  rule = rule ?? wanted.rule;
  const modes = Object.keys(COLOURS).filter(name => name === "verdict" || set.scales[name]);
  options(find("split"), [[ALL, "all"], ...set.splits.map(name => [name, name])], wanted.split);
  options(find("colour"), modes.map(name => [name, COLOURS[name]]), wanted.colour);
  find("remarks").replaceChildren(...set.remarks.map(text => make("li", text)));
  find("remarks").hidden = !set.remarks.length;
  find("pointed").replaceChildren();
  find("main").hidden = false;
  let most = 1;
  for (const value of set.entropy) if (value > most) most = value;
  scatter.show(set, Math.min(8, Math.ceil(most * 2.1) / 2));
  showRule();
  redraw();
}

function options(select, pairs, wanted) {
  select.replaceChildren(...pairs.map(([value, text]) => make("option", text, {value})));
  select.value = pairs.some(([value]) => value === wanted) ? wanted : pairs[0][0];
}

async function load() {
  try {
    told = await (await fetched("api/pseudo-sets")).json();
  } catch (error) {
    complain(`The sets of pseudo-labels cannot be listed: ${error.message}`);
    return;
  }
  const wanted = fromAddress();
  find("show-images").hidden = !told.images;
  find("image-words").textContent = told.images ? "" : "No image is shown: start nakt watch with --images true to see them here.";
  if (!told.sets.length) {
    complain("There are no pseudo-labels below the watched folders. nakt teach writes them.");
    return;
  }
  rule = wanted.rule;
  options(find("set"), told.sets.map(each => [each.place, each.place]), wanted.place);
  await open(find("set").value);
}

listen();
load();
