// The admin page: asks the native API what the server does, and shows it.

import { curve, spans, stacked } from "/admin/chart.js";

const $ = (id) => document.getElementById(id);
const KEY = "askonce-key";
const THEME = "askonce-theme";

// ---- words and numbers ----

const integer = new Intl.NumberFormat("en-US");
const compact = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });
const count = (n) => (Math.abs(n) < 100_000 ? integer.format(Math.round(n)) : compact.format(n));
const few = (n) => (n === 0 || n >= 10 ? count(n) : String(Number(n.toPrecision(2))));
const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;
const clock = (at) => new Date(at).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });

function percent(share, digits = 1) {
  return share == null ? "–" : `${(share * 100).toFixed(digits)} %`;
}

// As many digits as a small share needs.
function rate(share) {
  return share == null ? "–" : `${Number((share * 100).toPrecision(2))} %`;
}

function seconds(value) {
  if (value == null) return "–";
  const [unit, factor] = value < 1e-3 ? ["µs", 1e6] : value < 1 ? ["ms", 1e3] : ["s", 1];
  const scaled = value * factor;
  return `${scaled >= 100 ? Math.round(scaled) : Number(scaled.toPrecision(2))} ${unit}`;
}

function span(total) {
  if (total == null) return "no end";
  for (const [unit, size] of [["d", 86_400], ["h", 3_600], ["min", 60]]) {
    const units = total / size;
    if (units >= 0.995) return `${units < 9.5 ? Number(units.toFixed(1)) : Math.round(units)} ${unit}`;
  }
  return `${Math.floor(total)} s`;
}

function bytes(value) {
  if (value == null) return "–";
  const units = ["B", "KB", "MB", "GB", "TB"];
  const power = value > 0 ? Math.min(Math.floor(Math.log10(value) / 3), 4) : 0;
  return `${Number((value / 1000 ** power).toPrecision(3))} ${units[power]}`;
}

function usd(value) {
  const amount = Number(value ?? 0);
  const size = Math.abs(amount);
  const small = size > 0 && size < 0.1;
  const digits = size >= 1000 ? 0 : 2;
  const text = small
    ? size.toLocaleString("en-US", { maximumSignificantDigits: 2, minimumFractionDigits: 2 })
    : size.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  return `${amount < 0 ? "−" : ""}$${text}`;
}

const signed = (value, format) => `${value > 0 ? "+" : value < 0 ? "−" : "±"}${format(Math.abs(value))}`;

const REASONS = {
  not_found: "nothing similar stored",
  below_threshold: "not similar enough",
  below_cutoff: "not sure enough for the budget",
  below_floor: "not sure enough",
  exact_only: "matches exactly only",
  similarity_off: "similarity is off",
  reported_wrong: "reported wrong before",
  breaker_open: "breaker open",
  too_old: "too old for the caller",
  bypassed: "the caller asked for a fresh answer",
  volatile: "the answer changes with time",
  not_embeddable: "no text to compare",
  tier_unavailable: "a backend failed",
  gone: "entry gone",
};
const reason = (name) => {
  const words = REASONS[name] ?? String(name ?? "–").replaceAll("_", " ");
  return words.startsWith("guard ") ? `differs in ${words.slice(6)}` : words;
};

// ---- elements ----

function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value != null && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

const pill = (text, tone) => h("span", { class: "pill", "data-tone": tone }, text);

// What is shown stays as it is, focus and selection with it, until it changes.
const shown = new WeakMap();
function show(parent, state, build) {
  const signature = JSON.stringify(state);
  if (shown.get(parent) === signature) return;
  shown.set(parent, signature);
  parent.replaceChildren(...[build()].flat().filter((child) => child != null));
}

// Rows by key: those that stay are kept, and of them only cells that changed are made anew. A cell is
// [text, build, class]; without `build` it is its text.
function rows(body, items, keyOf, cellsOf, none) {
  const old = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  const made = items.map((item) => {
    const key = String(keyOf(item));
    const row = old.get(key) ?? h("tr", { "data-key": key });
    cellsOf(item).forEach(([text, build, style], i) => {
      const cell = row.cells[i] ?? row.appendChild(h("td", { class: style }));
      show(cell, text, () => build?.() ?? text);
    });
    return row;
  });
  if (made.length === 0) {
    const columns = body.parentElement.tHead.rows[0].cells.length;
    made.push(h("tr", { "data-key": "" }, h("td", { colspan: columns, class: "empty" }, none)));
  }
  const same = made.length === body.rows.length && made.every((row, i) => row === body.rows[i]);
  if (same) return;
  const focused = document.activeElement;
  body.replaceChildren(...made);
  if (body.contains(focused)) focused.focus({ preventScroll: true });
}

function facts(list, pairs) {
  show(list, pairs, () => pairs.filter(Boolean).flatMap(([name, value, more, tone]) => [
    h("dt", {}, name),
    h("dd", {}, h("span", { class: tone }, value), more ? h("small", {}, more) : null),
  ]));
}

function bars(parent, pairs, none) {
  show(parent, pairs, () => {
    if (pairs.length === 0) return h("p", { class: "empty" }, none);
    const most = Math.max(...pairs.map(([, value]) => value));
    const list = h("div", { class: "bars" });
    for (const [name, value] of pairs) {
      const bar = h("i");
      bar.style.width = `${(value / most) * 100}%`;
      list.append(h("span", {}, name), h("span", {}, bar), h("span", { class: "num" }, count(value)));
    }
    return list;
  });
}

function announce(text) {
  $("live").textContent = text;
}

// ---- the API ----

class Refused extends Error {
  constructor(status, problem) {
    super(problem?.detail ?? `the server answered ${status}`);
    this.status = status;
  }
}

async function api(path, body) {
  const headers = { accept: "application/json" };
  const key = sessionStorage.getItem(KEY);
  if (key) headers.authorization = `Bearer ${key}`;
  const request = { headers, cache: "no-store", credentials: "omit" };
  if (body !== undefined) Object.assign(request, { method: "POST", body: JSON.stringify(body) });
  const response = await fetch(path.startsWith("/") ? path : `/cache/v1/${path}`, request);
  const told = await response.json().catch(() => null);
  if (!response.ok) throw new Refused(response.status, told);
  return told;
}

// ---- key figures, traffic, latency ----

const state = { minutes: 60, outcome: "", entry: null, sweep: null, replay: null, family: "calibrated", config: null };
const sum = (counts) => Object.values(counts).reduce((all, n) => all + n, 0);

function figures(stats, series, savings) {
  const hits = sum(series.total.hits);
  const lookups = hits + sum(series.total.misses);
  const minutes = Math.min(state.minutes, Math.max(stats.uptime_seconds / 60, 1));
  const audited = Object.values(stats.learning.categories).find((category) => category.false_hits);
  const wrong = audited && (audited.false_hits_corrected ?? audited.false_hits);
  const held = stats.tiers.reduce((all, tier) => all + tier.bytes, 0) + stats.index_bytes + stats.profile_bytes;
  const failed = series.total.upstream.error ?? 0;
  const tokens = tokensOf(savings.totals.saved) - tokensOf(savings.totals.withdrawn);
  const tiles = [
    ["Hit ratio", lookups ? (hits / lookups * 100).toFixed(1) : "–", lookups ? "%" : "", `${count(hits)} of ${plural(lookups, "lookup")}`],
    ["Lookups", few(lookups / minutes), "per min", `${few(sum(series.total.upstream) / minutes)} upstream calls per min`],
    ["Net savings", usd(savings.net_usd), "", `${plural(tokens, "token")} not used, since start`],
    ["Wrong hits", wrong ? rate(wrong.rate) : "–", "", wrong ? `95 %: ${rate(wrong.lower)} to ${rate(wrong.upper)}, ${plural(wrong.effective_audits, "audit")}` : "no hit was audited yet"],
    ["Entries", count(stats.entries), "", `${bytes(held)} held, ${count(stats.searchable)} searchable`],
    ["Upstream failures", count(failed), "", `of ${plural(sum(series.total.upstream), "call")}`],
  ];
  show($("figures"), tiles, () => tiles.map(([name, value, unit, more]) => h("div", {},
    h("dt", {}, name),
    h("dd", { class: "value" }, value, unit ? h("small", {}, unit) : null),
    h("dd", { class: "more" }, more))));
}

function traffic(series, stats) {
  const tiers = stats.tiers.map((tier) => tier.name).filter((name) => name in series.total.hits);
  const parts = [
    ...tiers.map((name, i) => ({ label: `exact, ${name}`, style: ["s1", "s2", "s5"][i % 3], of: (row) => row.hits[name] ?? 0 })),
    { label: "by similarity", style: "s3", of: (row) => row.hits.semantic ?? 0 },
    { label: "missed", style: "s4", of: (row) => sum(row.misses) },
  ];
  const step = series.step_seconds * 1000;
  const wanted = Math.ceil((state.minutes * 60_000) / step);
  const newest = series.rows.at(-1)?.at ?? Date.now();
  const empty = { hits: {}, misses: {} };
  const bars = Array.from({ length: wanted }, (_, i) => {
    const back = wanted - 1 - i;
    const row = series.rows[series.rows.length - 1 - back] ?? empty;
    const values = parts.map((part) => part.of(row));
    const told = parts.map((part, n) => `${part.label} ${count(values[n])}`).join(", ");
    const name = clock(newest - back * step);
    return { name, parts: values, title: `${name}: ${told}` };
  });
  const lookups = sum(series.total.hits) + sum(series.total.misses);
  const totals = parts.map((part) => [part.label, part.style, part.of(series.total)]);
  const width = widthOf("traffic");
  show($("traffic"), [bars, width], () => stacked({
    bars,
    width,
    classes: parts.map((part) => part.style),
    format: few,
    label: `Lookups over time: ${totals.map(([name, , n]) => `${name} ${count(n)}`).join(", ")}`,
  }));
  $("traffic-note").textContent = series.step_seconds === 60 ? "per minute" : `per ${span(series.step_seconds)}`;
  show($("traffic-legend"), totals, () => totals.map(([name, style, n]) => h("li", {},
    h("i", { class: `swatch ${style}` }), `${name} `, h("b", {}, count(n)), " ",
    h("span", {}, lookups ? percent(n / lookups) : ""))));
}

const ANSWERS = { exact: "Exact hit", semantic: "Hit by similarity", miss: "Miss, answered upstream", bypass: "Past the cache" };

// Charts are drawn at the size at which they are seen, so that their words are as large as others.
const widthOf = (id) => Math.max($(id).clientWidth, 240);

function latency(series) {
  const whole = Object.entries(ANSWERS).filter(([name]) => series.total.answers[name]);
  const list = whole.length
    ? whole.map(([name, label]) => ({ name: label, ...series.total.answers[name] }))
    : Object.entries(series.total.stages).map(([name, stage]) => ({ name: `Stage: ${name}`, ...stage }));
  const width = widthOf("latency");
  show($("latency"), [list, width], () => list.length
    ? spans({ rows: list, width, format: seconds, label: list.map((row) => `${row.name}: median ${seconds(row.p50)}, 99 % within ${seconds(row.p99)}`).join("; ") })
    : h("p", { class: "empty" }, "No answer in this time"));
}

// ---- savings ----

const tokensOf = (tally) => (tally?.usage ? Object.values(tally.usage) : [tally?.input_tokens, tally?.output_tokens])
  .reduce((all, n) => all + (Number(n) || 0), 0);

function savings(report) {
  const priced = report.by_day.some((day) => Number(day.net_usd) !== 0);
  const known = new Map(report.by_day.map((day) => [day.day, day]));
  const days = Array.from({ length: 14 }, (_, i) => {
    const date = new Date(report.generated_at - (13 - i) * 86_400_000);
    const day = known.get(date.toISOString().slice(0, 10));
    const value = !day ? 0 : priced ? Number(day.net_usd) : tokensOf(day.saved) - tokensOf(day.withdrawn);
    const name = date.toLocaleDateString("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });
    return { name, parts: [value], title: `${name}: ${priced ? usd(value) : plural(value, "token")}` };
  });
  const width = widthOf("savings");
  $("savings-note").textContent = priced ? "US dollars, last 14 days" : "tokens, last 14 days";
  show($("savings"), [days, width], () => days.some((day) => day.parts[0] !== 0)
    ? stacked({ bars: days, classes: ["s1"], format: priced ? usd : few, width, height: 290, label: `Savings per day: ${days.map((day) => day.title).join("; ")}` })
    : h("p", { class: "empty" }, "Nothing was saved yet"));
}

// ---- policy, budget, what if ----

const PROMISES = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1];
const THRESHOLDS = [0.8, 0.84, 0.87, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99];

function policy(told, stats) {
  const settings = told.settings ?? {};
  const promise = settings.wrong_per_request;
  const audit = told.audit ?? {};
  facts($("policy"), [
    ["Policy", told.policy ?? "none", told.status ? `${told.status.origin}, since ${clock(told.status.since)}` : "similarity is off"],
    promise != null && ["Budget", `${rate(promise)} of requests`, `answered wrongly at most, at ${percent(settings.confidence, 0)} confidence`],
    settings.wrong_per_hit != null && ["Per hit", rate(settings.wrong_per_hit), "wrong at most"],
    settings.threshold != null && ["Threshold", String(settings.threshold), "least cosine similarity"],
    settings.wrong_answer_cost && ["A wrong answer", String(settings.wrong_answer_cost), "the typical saving of a hit"],
    ["Audits", audit.enabled ? `${count(audit.calls_per_day)} calls a day` : "off", audit.enabled ? `and ${usd(audit.usd_per_day)} at most` : "semantic.learning.audit"],
  ]);
  const list = Object.entries(stats.learning.categories);
  show($("wrong"), list, () => {
    if (list.length === 0) return h("p", { class: "note" }, "Nothing was labelled yet. With audits on, some hits are answered upstream, too, and compared.");
    const body = h("tbody");
    for (const [name, category] of list) {
      const wrong = category.false_hits_corrected ?? category.false_hits;
      const labels = Object.values(category.labels).reduce((all, [right, bad]) => all + right + bad, 0);
      body.append(h("tr", {},
        h("td", {}, name || "default"),
        h("td", { class: "num" }, wrong ? rate(wrong.rate) : "–"),
        h("td", { class: "num" }, wrong ? `${rate(wrong.lower)} to ${rate(wrong.upper)}` : "–"),
        h("td", { class: "num" }, count(labels)),
        h("td", {}, category.tripped ? pill("exact only", "bad") : pill("serving", "good"))));
    }
    const head = ["Kind", "Wrong hits", "95 % interval", "Labels", "Breaker"].map((name, i) => h("th", { scope: "col", class: i > 0 && i < 4 ? "num" : null }, name));
    return h("table", {}, h("thead", {}, h("tr", {}, ...head)), body);
  });
}

function family() {
  return state.family === "calibrated"
    ? { steps: PROMISES, of: (settings) => settings.type === "calibrated" && settings.wrong_per_request, show: rate, label: "Wrong answers per request, at most" }
    : { steps: THRESHOLDS, of: (settings) => settings.type === "threshold" && settings.threshold, show: (n) => n.toFixed(2), label: "Least cosine similarity that is served" };
}

async function replay() {
  const policies = [
    ...PROMISES.map((promise) => ({ type: "calibrated", wrong_per_request: promise })),
    ...THRESHOLDS.map((threshold) => ({ type: "threshold", threshold })),
  ];
  state.replay = await api("replay", { policies });
  whatIf();
}

// Puts the slider where the configured policy stands.
function place() {
  const { steps, show: words, label } = family();
  const own = family().of(state.config?.settings ?? {}) || (state.family === "calibrated" ? 0.01 : 0.95);
  const near = steps.reduce((best, step, i) => (Math.abs(step - own) < Math.abs(steps[best] - own) ? i : best), 0);
  const slider = $("slider");
  slider.max = String(steps.length - 1);
  slider.value = String(near);
  slider.setAttribute("aria-valuetext", words(steps[near]));
  $("slider-label").textContent = label;
}

function whatIf() {
  const { steps, of, show: words } = family();
  const at = Number($("slider").value);
  $("slider").setAttribute("aria-valuetext", words(steps[at]));
  $("slider-value").textContent = words(steps[at]);
  const told = state.replay;
  if (!told) return;
  const now = told.replays.find((one) => one.policy === "in force") ?? told.replays[0];
  const tried = steps.map((step) => told.replays.find((one) => one.settings && of(one.settings) === step));
  const points = tried.map((one, i) => ({ name: words(steps[i]), y: one?.problem || !told.decisions ? null : one?.hit_rate }));
  const width = widthOf("curve");
  show($("curve"), [points, at, width], () => points.some((point) => point.y != null)
    ? curve({ points, chosen: at, width, format: (share) => percent(share, 0), label: `Share of decisions served by similarity at each setting: ${points.map((point) => `${point.name} ${percent(point.y)}`).join(", ")}` })
    : h("p", { class: "empty" }, "No decision to replay yet: they come with lookups that have a candidate"));
  const one = tried[at];
  const basis = told.decisions
    ? `${plural(told.decisions, "decision")} since ${clock(told.from)} replayed, ${count(told.labelled)} labelled. What would have been stored is not replayed.`
    : "";
  $("whatif-note").textContent = one?.problem ? `Not possible: ${one.problem}` : basis;
  if (!one || one.problem || !told.decisions) return facts($("outcome"), []);
  const more = one.hits - now.hits;
  const dollars = one.saved_usd - now.saved_usd;
  facts($("outcome"), [
    ["Served by similarity", `${count(one.hits)} of ${count(one.requests)}`, `${percent(one.hit_rate)}, ${signed(more, count)} against now`, more > 0 ? "up" : more < 0 ? "down" : ""],
    ["Expected wrong", one.expected_wrong == null ? "not known" : few(one.expected_wrong), one.expected_wrong == null ? "this policy has no probabilities" : `${rate(one.expected_wrong / one.requests)} of requests`],
    ["Known by labels", `${count(one.known_right)} right, ${count(one.known_wrong)} wrong`, `${count(one.unknown)} not labelled`],
    ["Saved", usd(one.saved_usd), `${signed(dollars, usd)} against now`],
  ]);
}

// ---- entries ----

async function entries() {
  const query = { limit: 50 };
  for (const [field, input] of [["words", "words"], ["tag", "tag"], ["model", "model"]]) {
    const value = $(input).value.trim();
    if (value) query[field] = value;
  }
  const list = await api("entries/search", query);
  $("entries-note").textContent = list.truncated ? `the newest ${count(list.entries.length)}, there are more` : plural(list.entries.length, "entry", "entries");
  rows($("entries"), list.entries, (entry) => entry.entry, (entry) => [
    [entry.excerpt ?? "not text", null, "text"],
    [entry.model],
    [entry.scope],
    [entry.tags.join(" "), () => h("span", {}, ...entry.tags.map((tag) => h("span", { class: "tagged" }, tag)))],
    [span(entry.age_seconds), null, "num"],
    [span(entry.ttl_seconds), null, "num"],
    [entry.entry, () => h("div", { class: "actions" },
      h("button", { type: "button", class: "small", "aria-label": `Open entry ${entry.entry}`, onclick: () => open(entry.entry) }, "Open"),
      h("button", { type: "button", class: "small risky", "aria-label": `Invalidate entry ${entry.entry}`, onclick: () => sweepOne(entry.entry) }, "Invalidate…"))],
  ], Object.keys(query).length > 1 ? "No entry matches" : "Nothing is stored yet");
}

function readable(answer) {
  if (typeof answer === "string") return answer;
  const content = answer?.choices?.[0]?.message?.content;
  return typeof content === "string" && answer.choices.length === 1 ? content : JSON.stringify(answer, null, 2);
}

async function open(id) {
  const body = $("entry-body");
  state.entry = id;
  $("entry-title").textContent = `Entry ${id}`;
  shown.delete(body);
  let found = null;
  try {
    found = await api(`entries/${encodeURIComponent(id)}`);
    const list = h("dl", { class: "facts" });
    body.replaceChildren(
      list,
      h("h3", {}, "Prompt"), h("pre", { tabindex: "0" }, found.text ?? "matches exactly only; its text is not kept"),
      h("h3", {}, "Answer"), h("pre", { tabindex: "0" }, readable(found.answer)),
    );
    const usage = found.usage ?? {};
    facts(list, [
      ["Key", found.key],
      ["Age", span(found.age_seconds), `lives on: ${span(found.ttl_seconds)}`],
      ["Tokens", `${count(usage.input_tokens ?? 0)} in, ${count(usage.output_tokens ?? 0)} out`, found.cost_usd == null ? "no price" : usd(found.cost_usd)],
      ["Upstream took", seconds(found.latency_seconds)],
      ["Tags", found.tags.join(", ") || "none"],
    ]);
  } catch (error) {
    body.replaceChildren(h("p", { class: "problem" }, error.message));
  }
  $("entry-invalidate").hidden = !found;
  if (!$("entry").open) $("entry").showModal();
}

// ---- invalidation: counted first, then confirmed ----

function sweepDialog(title, single) {
  $("sweep-title").textContent = title;
  $("sweep-form").hidden = single;
  $("sweep-told").textContent = "";
  $("sweep-problem").textContent = "";
  $("sweep-confirm").disabled = true;
  $("sweep-confirm").textContent = "Invalidate";
  state.sweep = null;
  $("sweep").showModal();
}

async function sweepOne(id) {
  sweepDialog(`Invalidate entry ${id}`, true);
  await countSweep({ entry: id });
}

async function countSweep(selector) {
  $("sweep-problem").textContent = "";
  $("sweep-told").textContent = "Counting…";
  $("sweep-confirm").disabled = true;
  try {
    const told = await api("invalidate", { ...selector, dry_run: true });
    const would = told.would_remove ?? 0;
    const troubles = (told.troubles ?? []).map((trouble) => `${trouble.tier}: ${trouble.problem}`).join("; ");
    $("sweep-told").textContent = would === 0 ? "No entry is meant." : `${plural(would, "entry", "entries")} would be removed. This cannot be undone.`;
    $("sweep-problem").textContent = troubles;
    $("sweep-confirm").textContent = would === 0 ? "Invalidate" : `Invalidate ${plural(would, "entry", "entries")}`;
    $("sweep-confirm").disabled = would === 0;
    state.sweep = selector;
    if (would > 0) $("sweep-confirm").focus();
  } catch (error) {
    $("sweep-told").textContent = "";
    $("sweep-problem").textContent = error.message;
  }
}

async function confirmSweep() {
  $("sweep-confirm").disabled = true;
  try {
    const told = await api("invalidate", { ...state.sweep, dry_run: false });
    $("sweep").close();
    if ($("entry").open) $("entry").close();
    announce(`${plural(told.removed ?? 0, "entry", "entries")} invalidated`);
    await Promise.all([entries(), refresh()]);
    if (document.activeElement === document.body) $("words").focus();
  } catch (error) {
    $("sweep-problem").textContent = error.message;
  }
}

// ---- recent lookups ----

function recent(list) {
  const now = Date.now();
  const similarity = (value) => {
    if (value == null) return ["–"];
    return [value.toFixed(3), () => {
      const bar = h("i");
      bar.style.width = `${Math.max(value, 0) * 100}%`;
      return h("span", {}, h("span", { class: "meter" }, bar), value.toFixed(3));
    }];
  };
  const link = (id) => (id ? [id, () => h("button", { type: "button", class: "link mono", "aria-label": `Open entry ${id}`, onclick: () => open(id) }, id)] : ["–"]);
  const seen = new Map();
  rows($("recent"), list, (lookup) => {
    const key = `${lookup.at} ${lookup.entry ?? ""} ${lookup.reason ?? ""} ${lookup.nearest?.entry ?? ""}`;
    seen.set(key, (seen.get(key) ?? 0) + 1);
    return `${key} ${seen.get(key)}`;
  }, (lookup) => {
    const hit = lookup.outcome === "hit";
    return [
      [`${span(Math.max(now - lookup.at, 0) / 1000)} ago`],
      [lookup.kind ?? "miss", () => (hit ? pill(lookup.kind === "exact" ? "exact hit" : "similar", "good") : pill("miss", "warn"))],
      [hit ? (lookup.tier ?? "by similarity") : reason(lookup.reason)],
      similarity(lookup.similarity ?? lookup.nearest?.similarity),
      link(lookup.entry ?? lookup.nearest?.entry),
      [lookup.model ?? "–"],
      [lookup.scope],
    ];
  }, "No lookup yet");
}

// ---- backends ----

function backends(health, stats) {
  const held = new Map(stats.tiers.map((tier) => [tier.name, tier]));
  const tone = { healthy: "good", degraded: "warn", unhealthy: "bad" };
  const words = health.tiers.every((tier) => tier.status === "healthy") ? "all answer" : "not all are well";
  $("backends-note").textContent = `${words}; requests are answered upstream whatever fails here`;
  rows($("backends"), health.tiers, (tier) => tier.name, (tier) => {
    const its = held.get(tier.name);
    const breakers = tier.breakers ? `read ${tier.breakers.read}, write ${tier.breakers.write}` : "none";
    const error = tier.last_error ? `${tier.last_error.kind} in ${tier.last_error.operation}` : "none";
    return [
      [tier.name],
      [[tier.status, tier.reason ?? ""], () => h("span", {}, pill(tier.status, tone[tier.status]), tier.reason ? ` ${tier.reason}` : "")],
      [its ? count(its.entries) : "–", null, "num"],
      [bytes(its?.bytes), null, "num"],
      [percent(its?.hit_rate), null, "num"],
      [seconds(its?.latency?.p50_seconds), null, "num"],
      [seconds(its?.latency?.p99_seconds), null, "num"],
      [count(its?.counts.errors ?? 0), null, "num"],
      [breakers.replaceAll("_", " ")],
      [error.replaceAll("_", " ")],
    ];
  }, "There is no backend");
}

// ---- keeping up ----

async function refresh() {
  const step = Math.max(Math.round(state.minutes / 60), 1);
  const asked = state.outcome ? `recent?limit=100&outcome=${state.outcome}` : "recent?limit=100";
  const [stats, series, report, health, lookups] = await Promise.all([
    api("stats"), api(`series?minutes=${state.minutes}&step=${step}`), api("savings?days=14"), api("health"), api(asked),
  ]);
  figures(stats, series, report);
  traffic(series, stats);
  latency(series);
  savings(report);
  if (state.config) policy(state.config, stats);
  recent(lookups.lookups);
  const reasons = Object.entries(series.total.misses).sort((a, b) => b[1] - a[1]).slice(0, 10);
  bars($("reasons"), reasons.map(([name, n]) => [reason(name), n]), "No miss in this time");
  backends(health, stats);
  status(health.status, health.status === "ready" ? "good" : "warn");
  $("version").textContent = `version ${health.version}, up ${span(health.uptime_seconds)}`;
}

function status(text, tone) {
  if ($("status").textContent === text) return;
  $("status").textContent = text;
  $("status").dataset.tone = tone;
}

let timer = 0;
let turn = 0;

async function keepUp() {
  clearTimeout(timer);
  if (!document.hidden) {
    try {
      const due = [refresh()];
      if (turn % 3 === 0) due.push(entries());
      if (turn % 8 === 0) due.push(api("policy").then((told) => { state.config = told; }), replay());
      turn += 1;
      await Promise.all(due);
    } catch (error) {
      if (error.status === 401 || error.status === 403) return ask(error.message);
      status(error instanceof Refused ? "refused" : "unreachable", "bad");
    }
  }
  timer = setTimeout(keepUp, 2_000);
}

function ask(problem) {
  clearTimeout(timer);
  sessionStorage.removeItem(KEY);
  $("board").hidden = true;
  $("leave").hidden = true;
  $("range").hidden = true;
  $("login").hidden = false;
  $("login-problem").textContent = problem ?? "";
  status("signed out", "quiet");
  $("version").textContent = "";
  $("key").value = "";
  $("key").focus();
}

async function enter() {
  // Only an admin may see the policy.
  state.config = await api("policy");
  place();
  $("login").hidden = true;
  $("board").hidden = false;
  $("leave").hidden = !sessionStorage.getItem(KEY);
  $("range").hidden = false;
  turn = 0;
  await keepUp();
}

function theme(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  $("theme").value = name;
}

function listen() {
  $("theme").addEventListener("change", (event) => {
    localStorage.setItem(THEME, event.target.value);
    theme(event.target.value);
  });
  $("range").addEventListener("change", (event) => {
    state.minutes = Number(event.target.value);
    keepUp();
  });
  $("outcomes").addEventListener("change", (event) => {
    state.outcome = event.target.value;
    keepUp();
  });
  $("family").addEventListener("change", (event) => {
    state.family = event.target.value;
    place();
    whatIf();
  });
  $("slider").addEventListener("input", whatIf);
  $("search").addEventListener("submit", (event) => {
    event.preventDefault();
    entries().then(() => announce($("entries-note").textContent), (error) => announce(error.message));
  });
  $("login-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    sessionStorage.setItem(KEY, $("key").value.trim());
    try {
      await enter();
      $("main").focus();
    } catch (error) {
      ask(error.message);
    }
  });
  $("leave").addEventListener("click", () => ask());
  $("entry-invalidate").addEventListener("click", () => sweepOne(state.entry));
  $("many").addEventListener("click", () => sweepDialog("Invalidate many entries", false));
  $("sweep-by").addEventListener("change", (event) => {
    $("sweep-value").disabled = event.target.value === "all";
  });
  $("sweep-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const by = $("sweep-by").value;
    countSweep({ [by]: by === "all" ? true : $("sweep-value").value.trim() });
  });
  // What was counted is what is confirmed.
  $("sweep-form").addEventListener("input", () => {
    $("sweep-confirm").disabled = true;
    $("sweep-told").textContent = "";
  });
  $("sweep-confirm").addEventListener("click", confirmSweep);
  for (const button of document.querySelectorAll("dialog .close")) {
    button.addEventListener("click", () => button.closest("dialog").close());
  }
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && !$("board").hidden) keepUp();
  });
}

listen();
theme(localStorage.getItem(THEME) ?? "auto");
place();
const needsKey = document.querySelector("meta[name=askonce-auth]").content === "key";
if (needsKey && !sessionStorage.getItem(KEY)) ask();
else enter().catch((error) => ask(error.message));
