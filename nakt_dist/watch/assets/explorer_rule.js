// The rule of transfer/exclusion.py, to the last digit: a test compares it with nakt inspect.

/** Returns α in pixels for a set's masks; null where the rule has none. */
export function alphaAt(rule, set) {
  if (rule.alpha === null || !rule.scale_alpha) return rule.alpha;
  return rule.alpha * set.height * set.width / set.referencePixels;
}

/** Says of each row whether N < α, whether E > β, and whether the image stays. */
export function judge(set, rule) {
  const rows = set.rows, few = new Uint8Array(rows), high = new Uint8Array(rows);
  const kept = new Uint8Array(rows).fill(1), pixels = set.target_pixels, entropy = set.entropy;
  const alpha = alphaAt(rule, set), beta = set.soft ? rule.beta : null;
  if (alpha !== null) for (let i = 0; i < rows; i++) few[i] = pixels[i] < alpha;
  if (beta !== null) for (let i = 0; i < rows; i++) high[i] = entropy[i] > beta;
  // A half that does not apply has no say: the other decides alone, however they are combined.
  const both = rule.combine === "both" && alpha !== null && beta !== null;
  for (let i = 0; i < rows; i++) kept[i] = !(both ? few[i] & high[i] : few[i] | high[i]);
  return {few, high, kept};
}

/** Counts the chosen rows as records/pseudo_sets.py does. */
export function count(verdict, chosen) {
  const found = {before: 0, after: 0, excluded: 0, below_alpha_alone: 0, above_beta_alone: 0,
    below_alpha_and_above_beta: 0};
  const {few, high, kept} = verdict;
  for (let i = 0; i < kept.length; i++) {
    if (!chosen(i)) continue;
    found.before++;
    found[kept[i] ? "after" : "excluded"]++;
    if (few[i] && high[i]) found.below_alpha_and_above_beta++;
    else if (few[i]) found.below_alpha_alone++;
    else if (high[i]) found.above_beta_alone++;
  }
  return found;
}

/**
 * Returns the rows nearest to each threshold, among those whose fate it alone decides.
 * Of each threshold: its name, and the nearest rows that it keeps and that it excludes.
 */
export function edges(set, rule, verdict, chosen, number) {
  const asksBoth = rule.combine === "both", found = [];
  const alpha = alphaAt(rule, set), beta = set.soft ? rule.beta : null;
  const nearest = (name, values, threshold, past, other, otherApplies) => {
    const kept = [], excluded = [];
    for (let i = 0; i < set.rows; i++) {
      if (!chosen(i) || Number.isNaN(values[i])) continue;
      if (otherApplies && Boolean(other[i]) !== asksBoth) continue;
      (past[i] ? excluded : kept).push(i);
    }
    const byDistance = (a, b) => Math.abs(values[a] - threshold) - Math.abs(values[b] - threshold);
    found.push({name, kept: kept.sort(byDistance).slice(0, number),
      excluded: excluded.sort(byDistance).slice(0, number)});
  };
  if (alpha !== null) nearest("α", set.target_pixels, alpha, verdict.few, verdict.high, beta !== null);
  if (beta !== null) nearest("β", set.entropy, beta, verdict.high, verdict.few, alpha !== null);
  return found;
}

/** Returns the smallest β, in hundredths of a bit, that keeps a share of all images, or null. */
export function smallestBeta(set, rule, share) {
  const wanted = Math.ceil(share * set.rows);
  const enough = hundredths => count(judge(set, {...rule, beta: hundredths / 100}), () => true)
    .after >= wanted;
  let low = 0, high = 801;  // no mask of 256 grey levels has more than 8 bits
  while (low < high) {
    const middle = (low + high) >> 1;
    if (enough(middle)) high = middle; else low = middle + 1;
  }
  return low <= 800 ? low / 100 : null;
}

/** Writes a number without an exponent, which YAML would take for a text. */
function plain(value) {
  if (value === null) return "null";
  const text = String(value);
  return /e/.test(text) ? value.toFixed(value < 1 ? 12 : 0) : text;
}

/** Returns the rule as a line of a file of settings. */
export function asYaml(rule) {
  return `exclusion: {alpha: ${plain(rule.alpha)}, beta: ${plain(rule.beta)}, `
    + `combine: ${rule.combine}, scale_alpha: ${rule.scale_alpha}}`;
}

/** Returns the rule as words of a command line. */
export function asWords(rule) {
  return `--exclusion.alpha ${plain(rule.alpha)} --exclusion.beta ${plain(rule.beta)} `
    + `--exclusion.combine ${rule.combine} --exclusion.scale_alpha ${rule.scale_alpha}`;
}

/** Returns a number with one decimal as Python writes it: a tie goes to the even digit. */
export function oneDecimal(value) {
  return (value % 1 === 0.25 ? value - 0.05 : value).toFixed(1);
}

/** Returns a threshold with at most one decimal, as report/roles.py shows it. */
export function showThreshold(value) {
  return oneDecimal(value).replace(/\.0$/, "");
}

/** Says in a few words which images a rule excludes, as report/roles.py does. */
export function describeRule(rule) {
  const parts = [];
  if (rule.alpha !== null) {
    parts.push(`N < ${showThreshold(rule.alpha)}${rule.scale_alpha ? " at 384 × 384" : ""}`);
  }
  if (rule.beta !== null) parts.push(`E > ${Number(rule.beta.toPrecision(6))} bits`);
  return parts.join(rule.combine === "either" ? " or " : " and ") || "no exclusion";
}
