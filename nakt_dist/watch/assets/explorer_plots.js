// The scatter, the histograms and the images with their masks.

const RAMP = ["#3d6fd6", "#8a5fc9", "#c8538f", "#e0664f", "#e09a2b"];
const LEVELS = 40, ZERO = 0.5, BINS = 40;
const MARGIN = {left: 46, right: 14, top: 16, bottom: 40};

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function channels(hex) {
  return [1, 3, 5].map(place => parseInt(hex.slice(place, place + 2), 16));
}

function rampAt(share) {
  const place = share * (RAMP.length - 1), low = Math.min(Math.floor(place), RAMP.length - 2);
  const from = channels(RAMP[low]), to = channels(RAMP[low + 1]), part = place - low;
  return `rgb(${from.map((value, i) => Math.round(value + (to[i] - value) * part)).join(",")})`;
}

/** Places N on a logarithmic axis from 0 to 1; images without a target stand at its left end. */
export function logPlace(pixels, area) {
  return Math.min(1, Math.log(Math.max(pixels, ZERO) / ZERO) / Math.log(area / ZERO));
}

/** Returns the values between which 96 % of a column lie, for a scale of colours. */
export function scaleOf(values) {
  const sorted = Float64Array.from(values).filter(value => !Number.isNaN(value)).sort();
  if (!sorted.length) return null;
  const at = share => sorted[Math.round(share * (sorted.length - 1))];
  const low = at(0.02), high = at(0.98);
  return high > low ? {low, high} : sorted[sorted.length - 1] > sorted[0]
    ? {low: sorted[0], high: sorted[sorted.length - 1]} : null;
}

/** Draws a bar of the ramp for a legend. */
export function drawRamp(canvas) {
  const context = canvas.getContext("2d");
  for (let x = 0; x < canvas.width; x++) {
    context.fillStyle = rampAt(x / (canvas.width - 1));
    context.fillRect(x, 0, 1, canvas.height);
  }
}

function ticks(highest, number) {
  const rough = highest / number, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(each => each * power).find(each => each >= rough);
  return Array.from({length: Math.floor(highest / step + 1e-9) + 1}, (_, i) => Number((i * step).toPrecision(6)));
}

function pixelTicks(area) {
  const powers = [];
  for (let power = 1; power <= area; power *= 10) powers.push(power);
  return [0, ...powers];
}

/** The cloud of images: entropy over target pixels, with what a rule excludes shaded. */
export class Scatter {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
  }

  /** Takes a set; `highest` is the largest entropy shown. */
  show(set, highest) {
    this.set = set;
    this.highest = highest;
    this.area = set.height * set.width;
    this.resize();
  }

  resize() {
    const {canvas, set} = this, scale = window.devicePixelRatio || 1;
    if (!set) return;
    this.width = canvas.clientWidth;
    this.height = canvas.clientHeight;
    canvas.width = Math.round(this.width * scale);
    canvas.height = Math.round(this.height * scale);
    this.context.setTransform(scale, 0, 0, scale, 0, 0);
    this.x = new Float32Array(set.rows).map((_, i) => this.across(set.target_pixels[i]));
    this.y = new Float32Array(set.rows).map((_, i) => this.down(set.entropy[i]));
  }

  across(pixels) {
    return MARGIN.left + logPlace(pixels, this.area) * (this.width - MARGIN.left - MARGIN.right);
  }

  down(entropy) {
    const room = this.height - MARGIN.top - MARGIN.bottom;
    return MARGIN.top + (1 - Math.min(entropy / this.highest, 1)) * room;
  }

  /** Draws everything: `column` and `scale` colour the images, or the verdict where null. */
  draw(rule, alpha, beta, verdict, chosen, column, scale) {
    this.context.clearRect(0, 0, this.width, this.height);
    this.chosen = chosen;
    this.shade(rule, alpha, beta);
    this.axes();
    this.points(verdict, chosen, column, scale);
    this.thresholds(alpha, beta);
  }

  shade(rule, alpha, beta) {
    const {context} = this, right = this.width - MARGIN.right, bottom = this.height - MARGIN.bottom;
    const x = alpha === null ? null : this.across(alpha), y = beta === null ? null : this.down(beta);
    context.fillStyle = colour("shade");
    const both = rule.combine === "both" && x !== null && y !== null;
    if (both) context.fillRect(MARGIN.left, MARGIN.top, x - MARGIN.left, y - MARGIN.top);
    if (both) return;
    if (x !== null) context.fillRect(MARGIN.left, MARGIN.top, x - MARGIN.left, bottom - MARGIN.top);
    const from = x ?? MARGIN.left;  // so that no part is shaded twice
    if (y !== null) context.fillRect(from, MARGIN.top, right - from, y - MARGIN.top);
  }

  axes() {
    const {context} = this, right = this.width - MARGIN.right, bottom = this.height - MARGIN.bottom;
    context.font = "11px system-ui, sans-serif";
    context.strokeStyle = colour("line");
    context.fillStyle = colour("soft");
    context.lineWidth = 1;
    const line = (x0, y0, x1, y1) => {
      context.beginPath(); context.moveTo(x0, y0); context.lineTo(x1, y1); context.stroke();
    };
    context.textAlign = "center";
    for (const pixels of pixelTicks(this.area)) {
      const x = Math.round(this.across(pixels)) + 0.5;
      line(x, MARGIN.top, x, bottom);
      context.fillText(pixels.toLocaleString("en"), x, bottom + 15);
    }
    context.fillText(`target pixels N (of ${this.area.toLocaleString("en")})`,
      (MARGIN.left + right) / 2, bottom + 33);
    context.textAlign = "right";
    for (const entropy of ticks(this.highest, 6)) {
      const y = Math.round(this.down(entropy)) + 0.5;
      line(MARGIN.left, y, right, y);
      context.fillText(String(entropy), MARGIN.left - 7, y + 4);
    }
    context.save();
    context.translate(12, (MARGIN.top + bottom) / 2);
    context.rotate(-Math.PI / 2);
    context.textAlign = "center";
    context.fillText("entropy E (bits)", 0, 0);
    context.restore();
  }

  points(verdict, chosen, column, scale) {
    const {context, set} = this, size = set.rows > 4000 ? 2 : set.rows > 800 ? 3 : 5;
    const paints = column ? Array.from({length: LEVELS}, (_, i) => rampAt(i / (LEVELS - 1)))
      : [colour("excluded"), colour("kept")];
    const buckets = paints.map(() => []);
    for (let i = 0; i < set.rows; i++) {
      if (!chosen(i) || Number.isNaN(this.x[i] + this.y[i])) continue;
      if (!column) { buckets[verdict.kept[i] ? 1 : 0].push(i); continue; }
      const share = (column[i] - scale.low) / (scale.high - scale.low);
      if (Number.isNaN(share)) continue;
      buckets[Math.round(Math.min(Math.max(share, 0), 1) * (LEVELS - 1))].push(i);
    }
    context.globalAlpha = 0.75;
    buckets.forEach((rows, level) => {
      context.fillStyle = paints[level];
      for (const i of rows) context.fillRect(this.x[i] - size / 2, this.y[i] - size / 2, size, size);
    });
    context.globalAlpha = 1;
  }

  thresholds(alpha, beta) {
    const {context} = this, right = this.width - MARGIN.right, bottom = this.height - MARGIN.bottom;
    context.strokeStyle = context.fillStyle = colour("excluded");
    context.lineWidth = 1.6;
    context.setLineDash([5, 4]);
    context.font = "600 13px system-ui, sans-serif";
    const name = (text, x, y) => {  // readable before a cloud of images
      context.setLineDash([]);
      context.strokeStyle = colour("paper");
      context.lineWidth = 4;
      context.strokeText(text, x, y);
      context.fillText(text, x, y);
      context.strokeStyle = colour("excluded");
      context.lineWidth = 1.6;
      context.setLineDash([5, 4]);
    };
    const line = (x0, y0, x1, y1) => {
      context.beginPath(); context.moveTo(x0, y0); context.lineTo(x1, y1); context.stroke();
    };
    if (alpha !== null) {
      const x = this.across(alpha);
      line(x, MARGIN.top, x, bottom);
      context.textAlign = x > right - 30 ? "right" : "left";
      name("α", x + (x > right - 30 ? -4 : 4), bottom - 6);
    }
    if (beta !== null && beta <= this.highest) {
      const y = this.down(beta);
      line(MARGIN.left, y, right, y);
      context.textAlign = "right";
      name("β", right - 4, y < MARGIN.top + 16 ? y + 14 : y - 5);
    }
    context.setLineDash([]);
  }

  /** Returns the row drawn nearest to a place of the canvas, within 12 pixels; -1 for none. */
  nearest(x, y) {
    let best = 144, found = -1;
    for (let i = 0; i < this.set.rows; i++) {
      const distance = (this.x[i] - x) ** 2 + (this.y[i] - y) ** 2;
      if (distance < best && this.chosen(i)) { best = distance; found = i; }
    }
    return found;
  }
}

function element(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

/**
 * Draws all images and those that stay, in bins, with a threshold.
 * `place` gives a value's place on the axis, from 0 to 1; `marks` are pairs of place and text.
 */
export function drawHistogram(svg, values, place, verdict, chosen, threshold, label, marks) {
  const width = svg.clientWidth || 320, height = svg.clientHeight || 240;
  const before = new Uint32Array(BINS), after = new Uint32Array(BINS);
  for (let i = 0; i < values.length; i++) {
    if (!chosen(i) || Number.isNaN(values[i])) continue;
    const bin = Math.min(BINS - 1, Math.floor(place(values[i]) * BINS));
    before[bin]++;
    after[bin] += verdict.kept[i];
  }
  const most = Math.max(1, ...before), bottom = height - 24, left = 40, right = width - 8;
  const across = share => left + share * (right - left), up = number => bottom - number / most * (bottom - 18);
  const parts = ticks(most, 4).filter(Number.isInteger).flatMap(number => [
    element("line", {class: "axis", x1: left, x2: right, y1: up(number), y2: up(number)}),
    element("text", {x: left - 6, y: up(number) + 4, "text-anchor": "end"}, number.toLocaleString("en")),
  ]);
  const bars = (counts, kind) => counts.forEach((number, bin) => {
    if (!number) return;
    const x = across(bin / BINS), wide = Math.max((right - left) / BINS - 1, 1);
    parts.push(element("rect", {class: kind, x, y: up(number), width: wide, height: bottom - up(number)}));
  });
  bars(before, "before");
  bars(after, "after");
  for (const [share, text] of marks) {
    parts.push(element("text", {x: across(share), y: bottom + 16, "text-anchor": "middle"}, text));
  }
  if (threshold !== null && place(threshold) <= 1) {
    const x = across(place(threshold)), end = x > width * 0.7;
    parts.push(element("line", {class: "threshold", x1: x, x2: x, y1: 6, y2: bottom}));
    parts.push(element("text", {x: x + (end ? -5 : 5), y: 12, "text-anchor": end ? "end" : "start"}, label));
  }
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren(...parts);
}

/** Returns marks for the axis of target pixels, and for that of entropy. */
export const marksOf = {
  target_pixels: area => pixelTicks(area).map(each => [logPlace(each, area), each.toLocaleString("en")]),
  entropy: highest => ticks(highest, 6).map(each => [each / highest, String(each)]),
};

/** Draws an image with its soft mask as a tint and the outline of what is above 0.5. */
export function drawOverlay(canvas, image, mask) {
  const width = canvas.width = mask.width, height = canvas.height = mask.height;
  const context = canvas.getContext("2d", {willReadFrequently: true});
  context.drawImage(mask, 0, 0, width, height);
  const soft = context.getImageData(0, 0, width, height).data;
  context.drawImage(image, 0, 0, width, height);
  const shown = context.getImageData(0, 0, width, height), pixels = shown.data;
  const tint = channels(colour("mask")), line = channels(colour("outline"));
  const inside = (x, y) => x >= 0 && y >= 0 && x < width && y < height && soft[4 * (y * width + x)] >= 128;
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
    const at = 4 * (y * width + x), rim = inside(x, y)
      && !(inside(x - 1, y) && inside(x + 1, y) && inside(x, y - 1) && inside(x, y + 1));
    const share = rim ? 1 : 0.55 * soft[at] / 255, ink = rim ? line : tint;
    for (let c = 0; c < 3; c++) pixels[at + c] += (ink[c] - pixels[at + c]) * share;
  }
  context.putImageData(shown, 0, 0);
}
