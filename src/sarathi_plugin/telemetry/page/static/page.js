"use strict";
// Asks for the document more than once a second and shows it. What is not live is said so, and greyed.

const PERIOD_MS = 850, STALE_MS = 3000, ANSWER_MS = 5000, STALL_S = 0.4;
const CONFIG = { displayModeBar: false, responsive: true };
const $ = (id) => document.getElementById(id);
const view = { doc: null, at: 0, wall: "", paused: false, problem: "", open: "", server: null };

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const element = (tag, text, attributes = {}) => {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
};
const narrow = () => window.innerWidth < 640;
const seconds = (s) => (s < 10 ? s.toFixed(1) : Math.round(s).toString()) + " s";
const milliseconds = (ms) =>
  ms === null ? "–" : ms >= 9950 ? seconds(ms / 1000) : ms >= 1000 ? (ms / 1000).toFixed(2) + " s" : ms.toFixed(ms < 10 ? 1 : 0) + " ms";
const count = (n) => n.toLocaleString("en");
const share = (x, digits = 3) => (x === null ? "–" : x.toFixed(digits));
const percent = (x) => (x === null ? "–" : (100 * x).toFixed(x < 0.1 ? 1 : 0) + " %");
const last = (list) => list[list.length - 1];
const plural = (n, one) => `${count(n)} ${one}${n === 1 ? "" : "s"}`;

function colorOf(name) {
  const at = view.doc.targets.findIndex((t) => t.name === name);
  return css(`--c${Math.max(0, at) % 6}`);
}

// -- asking ------------------------------------------------------------------------------------------------------

async function ask() {
  const query = new URLSearchParams();
  for (const [name, id] of [["slo_class", "slo-class"], ["engine", "engine"], ["window_s", "window"]])
    if ($(id).value) query.set(name, $(id).value);
  const answer = await fetch(`sarathi/api?${query}`, { cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS) });
  if (answer.status === 401) { location.reload(); throw new Error("Signed out."); }
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error || `The server answers ${answer.status}.`);
  if (body.version !== 1) { location.reload(); throw new Error("The server speaks another version: reload this page."); }
  return body;
}

async function refresh() {
  try {
    const doc = await ask();
    if (view.paused) return;
    Object.assign(view, { doc, at: performance.now(), wall: new Date().toLocaleTimeString(), problem: "" });
    show();
  } catch (error) {
    const lost = error instanceof TypeError || error.name === "TimeoutError" || error instanceof SyntaxError;
    view.problem = lost ? "The server does not answer." : error.message;
    say();
  }
}

async function loop() {
  const began = performance.now();
  if (!view.paused && !document.hidden) await refresh();
  setTimeout(loop, Math.max(100, PERIOD_MS - (performance.now() - began)));
}

// -- what holds now ----------------------------------------------------------------------------------------------

function say() {
  const { doc, paused, problem } = view;
  const old = doc && !paused && (problem || performance.now() - view.at > STALE_MS);
  const told = [];
  let pill = "connecting", kind = "starting";
  if (doc) {
    const stalled = doc.classes.filter((c) => c.overdue.oldest_stream_s > STALL_S);
    const worst = Math.max(0, ...stalled.map((c) => c.overdue.oldest_stream_s));
    const names = { live: "live", partial: "partly live", starting: "starting", gone: "engine gone", stock: "no data" };
    [pill, kind] = [names[doc.state], doc.state === "stock" ? "starting" : doc.state];
    if (stalled.length && doc.state !== "gone") [pill, kind] = [`stall, ${seconds(worst)}`, "stall"];
    if (doc.message) told.push([doc.message, doc.state === "gone"]);
    for (const engine of doc.engines)
      if (engine.policy_enabled === false) told.push([`Engine ${engine.index}: the policy failed and is switched off; stock decisions run.`, true]);
  }
  if (paused) { pill = "paused"; kind = "paused"; told.unshift([`Paused at ${view.wall}: the figures are from then.`, false]); }
  else if (old) {
    pill = "not live"; kind = "gone";
    told.unshift([`${problem || "No new figures."} What is shown is from ${view.wall} and is not live. Trying again.`, true]);
  } else if (!doc && problem) told.unshift([`${problem} Trying again.`, true]);
  document.body.classList.toggle("old", Boolean(old));
  const state = $("state");
  if (state.textContent !== pill) state.textContent = pill;
  state.className = `pill ${kind}`;
  const text = told.map((t) => t[0]).join("\n");
  if ($("notice").dataset.text !== text) {
    $("notice").dataset.text = text;
    $("notice").replaceChildren(...told.map(([line, bad]) => element("p", line, bad ? { class: "bad" } : {})));
  }
}

function show() {
  const { doc } = view;
  if (view.server !== null && view.server !== doc.server) closeRequest();
  view.server = doc.server;
  choices($("slo-class"), doc.targets.map((t) => t.name));
  choices($("engine"), doc.engines.map((e) => String(e.index)));
  $("engine-label").hidden = doc.engines.length < 2;
  $("what").textContent = [doc.model, doc.policy].filter(Boolean).join(" · ");
  $("foot").textContent = `sarathi-plugin ${doc.plugin_version}, vLLM ${doc.vllm_version}. Everything here: sarathi/api as JSON, /metrics for Prometheus.`;
  const reporting = doc.engines.some((e) => e.state === "live");
  $("main").hidden = !reporting;
  say();
  if (!reporting) { closeRequest(); return; }
  showClasses(doc);
  showEngines(doc);
  showRequests(doc);
  for (const draw of [drawTimeline, drawFluidity, drawCarried, drawStepTime, drawQueue]) draw(doc);
  drawDistribution(doc, "tbt", "time between tokens");
  drawDistribution(doc, "ttft", "time to first token");
  showOpenRequest();
}

function choices(select, names) {
  if (select.dataset.names === names.join("\n")) return;
  select.dataset.names = names.join("\n");
  const chosen = select.value;
  select.replaceChildren(element("option", "all", { value: "" }), ...names.map((n) => element("option", n, { value: n })));
  select.value = names.includes(chosen) ? chosen : "";
}

function facts(list, pairs) {
  list.replaceChildren(...pairs.flatMap(([name, value, bad]) => [element("dt", name), element("dd", value, bad ? { class: "bad" } : {})]));
}

function showClasses(doc) {
  const cards = doc.classes.map((c) => {
    const target = doc.targets.find((t) => t.name === c.name);
    const card = element("article", undefined, { "data-class": c.name });
    card.style.setProperty("--own", colorOf(c.name));
    const head = element("h2", c.name);
    head.append(element("small", `D_d ${milliseconds(target.tbt_ms)}, TTFT slack ${milliseconds(target.ttft_slack_ms)}`));
    const now = element("p", undefined, { class: "now" });
    const falling = c.overdue.uncounted_misses > 0 && c.fluidity.last_10_s_with_overdue < 0.9;
    now.append(element("b", share(c.fluidity.last_10_s), falling ? { class: "bad" } : {}), element("span", c.fluidity.last_10_s === null ? "no deadline in the last 10 s" : "fluidity-index, last 10 s"));
    const list = element("dl");
    facts(list, [
      ["fluidity", `1 min ${share(c.fluidity.last_60_s)} · 5 min ${share(c.fluidity.last_300_s)} · start ${share(c.fluidity.since_start)}`],
      ["requests", `${count(c.requests)} now · ${count(c.finished)} done, ${count(c.fluid)} fluid`],
      ["tokens", `${c.tokens_per_s.toFixed(1)} per s`],
      ["failed", `${count(c.aborted)} aborted, ${plural(c.errors, "error")}`],
    ]);
    card.append(head, now, overdueLine(c), list);
    return card;
  });
  $("classes").replaceChildren(...cards);
}

function overdueLine({ overdue: o, fluidity }) {
  const parts = [];
  if (o.streams) parts.push(`${plural(o.streams, "stream")} overdue, worst ${seconds(o.oldest_stream_s)}`);
  if (o.prompts) parts.push(`${plural(o.prompts, "first token")} overdue, worst ${seconds(o.oldest_prompt_s)}`);
  if (o.uncounted_misses) parts.push(`${o.uncounted_misses === 1 ? "1 miss" : count(o.uncounted_misses) + " misses"} not yet counted: ${share(fluidity.last_10_s_with_overdue)} with them`);
  return element("p", parts.join(" · ") || "Nothing overdue.", { class: parts.length ? "overdue bad" : "overdue" });
}

const stepNow = (step) =>
  step === null ? "idle" : `${plural(step.decodes, "decode")} + ${count(step.prefill_tokens)} prompt tokens: ${milliseconds(step.running_ms)} so far` +
    (step.predicted_ms === null ? "" : `, ${milliseconds(step.predicted_ms)} predicted`);

function showEngines(doc) {
  const one = doc.engines.length === 1;
  $("engines").hidden = one;
  $("engine-now").hidden = !one;
  const e = doc.engines[0], errors = doc.errors;
  if (one)
    facts($("engine-now"), [
      ["step now", stepNow(e.step)],
      ["running, waiting", `${e.running}, ${e.waiting}`],
      ["KV memory used", percent(e.kv_used)],
      ["longest stall", `${seconds(e.longest_stall_last_minute_s)} (ended in the last minute)`],
    ]);
  else
    $("engines").tBodies[0].replaceChildren(...doc.engines.map((e) => {
      const row = element("tr");
      const live = e.state === "live";
      const cells = [e.index, live ? "live" : e.message, live ? stepNow(e.step) : "–", e.running ?? "–", e.waiting ?? "–", percent(e.kv_used)];
      row.append(...cells.map((c, i) => element(i ? "td" : "th", c)));
      return row;
    }));
  facts($("errors"), [
    ["relegations", count(errors.relegations)],
    ["preemptions", count(errors.preemptions)],
    ["policy fallbacks, plugin errors", `${count(errors.policy_fallbacks)}, ${count(errors.plugin_errors)}`, errors.policy_fallbacks + errors.plugin_errors > 0],
    ["unknown class, not measured", `${count(errors.unknown_slo_class)}, ${count(errors.untracked_requests)}`, errors.unknown_slo_class + errors.untracked_requests > 0],
  ]);
}

// -- requests ----------------------------------------------------------------------------------------------------

const label = (r) => "#" + (view.doc.engines.length > 1 ? r.key : r.key.split(":")[1]);

function showRequests(doc) {
  // Rows are kept where they are, so that whoever is on a button stays there.
  const body = $("requests").tBodies[0];
  const rows = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  const wanted = new Set(doc.requests.map((r) => r.key));
  for (const [key, row] of rows) if (!wanted.has(key)) row.remove();
  let before = body.firstElementChild;
  for (const r of doc.requests) {
    let row = rows.get(r.key);
    if (!row) {
      row = element("tr", undefined, { "data-key": r.key });
      const button = element("button", label(r), { type: "button", "aria-label": `Open request ${label(r)}` });
      button.addEventListener("click", () => openRequest(r.key));
      const head = element("td");
      head.append(button);
      row.append(head, ...Array.from({ length: 8 }, (_, i) => element("td", "", i > 1 ? { class: "n" } : {})));
      body.insertBefore(row, before);
    } else if (row === before) before = before.nextElementSibling;
    else body.insertBefore(row, before);
    const cells = [r.slo_class, r.state, count(r.prompt_tokens), count(r.tokens), milliseconds(r.ttft_ms), count(r.met), count(r.missed), r.overdue_ms ? milliseconds(r.overdue_ms) : "–"];
    cells.forEach((text, i) => { if (row.cells[i + 1].textContent !== text) row.cells[i + 1].textContent = text; });
    row.cells[8].classList.toggle("bad", r.overdue_ms > 0);
  }
  $("no-requests").hidden = doc.requests.length > 0;
  $("requests").hidden = doc.requests.length === 0;
}

function openRequest(key) {
  view.open = key;
  showOpenRequest();
  $("request").showModal();
  Plotly.Plots.resize($("gaps"));
}

function closeRequest() {
  view.open = "";
  if ($("request").open) $("request").close();
}

function showOpenRequest() {
  if (!view.open) return;
  const r = view.doc.requests.find((r) => r.key === view.open);
  if (!r) {
    $("gaps-sum").textContent = "It is no longer among the latest requests: these are its last figures.";
    return;
  }
  const target = view.doc.targets.find((t) => t.name === r.slo_class);
  $("request-title").textContent = `Request ${label(r)}: ${r.id}`;
  const total = r.met + r.missed;
  facts($("request-facts"), [
    ["class", r.slo_class], ["state", r.state], ["arrived", `${milliseconds(r.arrived_ago_ms)} ago`],
    ["prompt", `${count(r.prompt_tokens)} tokens`], ["output", `${count(r.tokens)} of at most ${count(r.max_tokens)}`],
    ["first token", milliseconds(r.ttft_ms)], ["allowed for it", milliseconds(r.arrived_ago_ms - r.first_due_ago_ms)],
    ["fluidity", total ? share(r.met / total) : "–"], ["met, missed", `${count(r.met)}, ${count(r.missed)}`],
    ["overdue", r.overdue_ms ? milliseconds(r.overdue_ms) : "no", r.overdue_ms > 0],
  ]);
  const times = [...r.on_time_ago_ms.map((t) => [t, false]), ...r.late_ago_ms.map((t) => [t, true])].sort((a, b) => b[0] - a[0]);
  const gaps = times.slice(1).map(([t, late], i) => [times[i][0] - t, late]);
  $("gaps-sum").textContent = gaps.length
    ? `Gaps between its last ${plural(times.length, "token")}; longest ${milliseconds(Math.max(...gaps.map((g) => g[0])))}, red where a deadline was missed.`
    : "No two tokens yet.";
  const from = r.tokens - gaps.length;
  draw("gaps", [{
    type: "bar", x: gaps.map((_, i) => from + i + 1), y: gaps.map((g) => g[0]), marker: { color: gaps.map((g) => css(g[1] ? "--miss" : "--tick")) },
    hovertemplate: "token %{x}: %{y} ms<extra></extra>",
  }], {
    bargap: 0.15, xaxis: axis("token"), yaxis: axis("gap, ms", { rangemode: "tozero" }),
    shapes: [rule("y", target.tbt_ms, css("--quiet"))], annotations: [{ xref: "paper", x: 1, y: target.tbt_ms, text: "D_d", showarrow: false, yanchor: "bottom", xanchor: "right" }],
  });
}

// -- charts ------------------------------------------------------------------------------------------------------

const axis = (title, more = {}) => ({
  title: { text: title, standoff: 6, font: { size: 12 } }, gridcolor: css("--grid"), linecolor: css("--line"), zeroline: false, automargin: true, fixedrange: true, ...more,
});
const rule = (along, at, color) => ({
  type: "line", layer: "below", line: { color, width: 1.5, dash: "dot" },
  ...(along === "y" ? { xref: "paper", x0: 0, x1: 1, y0: at, y1: at } : { yref: "paper", y0: 0, y1: 1, x0: at, x1: at }),
});

function draw(id, traces, layout, nothing = "") {
  // An empty chart says so, on axes with nothing to misread.
  if (nothing) {
    for (const key of Object.keys(layout).filter((k) => /^[xy]axis/.test(k))) Object.assign(layout[key], { showticklabels: false, ticks: "", type: "linear", range: [0, 1], dtick: 0.25 });
    layout = { ...layout, shapes: [], annotations: [{ xref: "paper", yref: "paper", x: 0.5, y: 0.5, text: nothing, showarrow: false, font: { color: css("--quiet") } }] };
  }
  Plotly.react($(id), traces, {
    margin: { l: 54, r: 12, t: 8, b: 40 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "system-ui, sans-serif", size: 12, color: css("--ink") }, showlegend: traces.length > 1,
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", bgcolor: "rgba(0,0,0,0)" }, uirevision: "kept",
    hoverlabel: { bgcolor: css("--card"), font: { color: css("--ink") } }, ...layout,
  }, CONFIG);
}

const agoAxis = (range, more = {}) => axis("seconds before now", { range: [-range, 0], ...more });

function drawFluidity(doc) {
  const { ago_s, fluidity } = doc.history;
  const known = Object.entries(fluidity).map(([name, values]) => [name, values.filter((v) => v !== null)]).filter(([, v]) => v.length);
  const traces = Object.entries(fluidity).map(([name, values]) => ({
    name, x: ago_s.map((s) => -s), y: values, mode: "lines", line: { color: colorOf(name), width: 2 }, hovertemplate: `${name} %{y:.3f}, %{x} s<extra></extra>`,
  }));
  draw("fluidity", traces, { xaxis: agoAxis(300), yaxis: axis("fluidity-index over 10 s", { range: [0, 1.03] }), shapes: [rule("y", 0.9, css("--quiet"))] }, known.length ? "" : "no deadline yet");
  $("fluidity-sum").textContent = known.length ? known.map(([name, v]) => `${name}: lowest ${share(Math.min(...v))}`).join(" · ") + ". Dotted: 0.9." : "No deadline in the last 5 minutes.";
}

function stepsX(doc) {
  const x = doc.steps.ago_ms.map((ms) => -ms / 1000);
  return [x, x.length ? Math.max(5, -x[0] * 1.02) : 5];
}

function drawCarried(doc) {
  const [x, range] = stepsX(doc);
  const s = doc.steps, positive = (list) => list.map((n) => (n > 0 ? n : null));
  draw("carried", [
    { name: "budget", x, y: s.budget, mode: "lines", line: { color: css("--quiet"), dash: "dot", shape: "hv", width: 1.5 } },
    { name: "prefill", x, y: positive(s.prefill_tokens), mode: "markers", marker: { color: css("--prefill"), size: 6, symbol: "square" } },
    { name: "decode", x, y: positive(s.decode_tokens), mode: "markers", marker: { color: css("--c0"), size: 4 } },
  ], { xaxis: agoAxis(range), yaxis: axis("tokens per step", { type: "log", dtick: 1 }) }, x.length ? "" : "no step yet");
  const sum = (list) => list.reduce((a, b) => a + b, 0);
  $("carried-sum").textContent = (x.length
    ? `Last ${plural(x.length, "step")}: ${plural(sum(s.decode_tokens), "decode token")}, ${plural(sum(s.prefill_tokens), "prompt token")}; budget ${count(last(s.budget))} now`
    : "No step yet") + (doc.engines.length > 1 ? ` (engine ${s.engine}).` : ".");
}

function drawStepTime(doc) {
  const [x, range] = stepsX(doc);
  const s = doc.steps;
  draw("steptime", [
    { name: "predicted", x, y: s.predicted_ms, mode: "markers", marker: { color: css("--c2"), size: 7, symbol: "line-ew-open", line: { width: 1.5 } } },
    { name: "real", x, y: s.duration_ms, mode: "markers", marker: { color: css("--c1"), size: 4 } },
  ], { xaxis: agoAxis(range), yaxis: axis("step time, ms", { type: "log", dtick: "D2" }) }, x.length ? "" : "no step yet");
  const errors = s.predicted_ms.map((p, i) => (p === null || !s.duration_ms[i] ? null : Math.abs(p - s.duration_ms[i]) / s.duration_ms[i])).filter((e) => e !== null).sort((a, b) => a - b);
  $("steptime-sum").textContent = errors.length
    ? `Real P50 ${milliseconds([...s.duration_ms].sort((a, b) => a - b)[s.duration_ms.length >> 1])}; median error of the prediction ${percent(errors[errors.length >> 1])}.`
    : "No step yet.";
}

function drawDistribution(doc, kind, name) {
  const known = doc.classes.filter((c) => c[kind].count);
  const edges = doc.edges_ms, log = Math.log10;
  let low = Infinity, high = 0;
  const traces = known.map((c) => {
    let sum = 0;
    const shares = edges.map((_, i) => (100 * (sum += c[kind].counts[i])) / c[kind].count);
    low = Math.min(low, edges[Math.max(0, shares.findIndex((s) => s > 0.05) - 1)]);
    const full = shares.findIndex((s) => s > 99.95);
    high = Math.max(high, edges[full < 0 ? edges.length - 1 : full]);
    return { name: c.name, x: edges, y: shares, mode: "lines", line: { color: colorOf(c.name), width: 2 }, hovertemplate: `${c.name}: %{y:.1f} % within %{x} ms<extra></extra>` };
  });
  const marks = kind === "tbt" ? doc.targets.filter((t) => known.some((c) => c.name === t.name)) : [];
  for (const t of marks) { low = Math.min(low, t.tbt_ms); high = Math.max(high, t.tbt_ms); }
  if (!known.length) [low, high] = [10, 1000];
  draw(kind, traces, {
    xaxis: axis(`${name}, ms`, { type: "log", range: [log(low) - 0.05, log(high) + 0.1], dtick: log(high / low) > 1.2 ? 1 : "D2" }),
    yaxis: axis(`share of ${kind === "tbt" ? "tokens" : "requests"}, %`, { range: [0, 103] }), showlegend: true,
    shapes: marks.map((t) => rule("x", t.tbt_ms, colorOf(t.name))),
  }, known.length ? "" : "nothing in this window");
  const over = { 10: "10 s", 60: "minute", 300: "5 minutes" }[doc.window_s];
  $(`${kind}-sum`).textContent = known.length
    ? known.map((c) => `${c.name}: P50 ${milliseconds(c[kind].p50_ms)}, P99 ${milliseconds(c[kind].p99_ms)}`).join(" · ") + (marks.length ? ". Dotted: D_d." : ".")
    : `None in the last ${over}.`;
}

function drawQueue(doc) {
  const h = doc.history, x = h.ago_s.map((s) => -s), line = (color) => ({ color: css(color), shape: "hv", width: 2 });
  draw("queue", [
    { name: "running", x, y: h.running, mode: "lines", line: line("--c0") },
    { name: "waiting", x, y: h.waiting, mode: "lines", line: line("--prefill") },
    { name: "KV used", x, y: h.kv_used.map((v) => (v === null ? null : 100 * v)), mode: "lines", line: line("--c2"), yaxis: "y2" },
  ], {
    xaxis: agoAxis(300, { anchor: "y2" }), yaxis: axis("requests", { domain: [0.5, 1], rangemode: "tozero" }),
    yaxis2: axis("KV used, %", { domain: [0, 0.38], range: [0, 103], dtick: 50 }),
  }, h.running.some((v) => v !== null) ? "" : "no step yet");
  const live = doc.engines.filter((e) => e.state === "live"), sum = (key) => live.reduce((a, e) => a + e[key], 0);
  const used = h.kv_used.filter((v) => v !== null);
  $("queue-sum").textContent = `${sum("running")} running, ${sum("waiting")} waiting at the last step; ${percent(used.length ? last(used) : 0)} of the KV memory used.`;
}

function drawTimeline(doc) {
  const range = Number($("span").value);
  const shown = doc.requests.filter((r) => r.ended_ago_ms === null || r.ended_ago_ms < range * 1000).slice(0, narrow() ? 12 : 24);
  const ticks = (pick, height) => {
    const x = [], y = [];
    shown.forEach((r, row) => { for (const t of pick(r)) if (t <= range * 1000) { x.push(-t / 1000, -t / 1000, null); y.push(row - height, row + height, null); } });
    return { x, y, mode: "lines", hoverinfo: "skip" };
  };
  const bars = (pick) => {
    const base = [], x = [], y = [], text = [];
    shown.forEach((r, row) => { for (const [start, end, words] of pick(r)) {
      const from = Math.max(-range, -start / 1000), to = -end / 1000;
      if (to > from) { base.push(from); x.push(to - from); y.push(row); text.push(words); }
    } });
    return { type: "bar", orientation: "h", base, x, y, text, textposition: "none", hovertemplate: "%{text}<extra></extra>" };
  };
  const first = (r) => (r.chunks.length ? r.chunks[0].start_ago_ms : r.ended_ago_ms ?? 0);
  const wait = (r) => (r.arrived_ago_ms > first(r) ? [[r.arrived_ago_ms, first(r), `waited ${milliseconds(r.arrived_ago_ms - first(r))}`]] : []);
  const chunks = (r) => r.chunks.map((c) => [c.start_ago_ms, c.end_ago_ms ?? 0, `${plural(c.tokens, "prompt token")}, ${milliseconds(c.start_ago_ms - (c.end_ago_ms ?? 0))}${c.end_ago_ms === null ? " so far" : ""}`]);
  const overdue = (r) => (r.overdue_ms ? [[r.overdue_ms, 0, `overdue ${milliseconds(r.overdue_ms)}`]] : []);
  draw("timeline", [
    { ...bars(wait), name: "waiting", marker: { color: css("--line") }, width: 0.16 },
    { ...bars(chunks), name: "prefill chunk", marker: { color: css("--prefill"), line: { width: 1, color: css("--card") } }, width: 0.62 },
    { ...bars(overdue), name: "overdue now", marker: { color: css("--miss-soft"), line: { color: css("--miss"), width: 1 } }, width: 0.4 },
    { ...ticks((r) => r.on_time_ago_ms, 0.28), name: "token", line: { color: css("--tick"), width: 1 } },
    { ...ticks((r) => r.late_ago_ms, 0.42), name: "late token", line: { color: css("--miss"), width: 2.5 } },
  ], {
    height: Math.max(190, 96 + 24 * shown.length), barmode: "overlay", xaxis: agoAxis(range),
    margin: { l: narrow() ? 40 : 54, r: 12, t: 8, b: 40 }, showlegend: true,
    yaxis: axis("", {
      range: [Math.max(shown.length, 2) - 0.5, -0.5], tickmode: "array", tickvals: shown.map((_, i) => i),
      ticktext: shown.map((r) => (narrow() ? label(r) : `${label(r)} ${r.slo_class}`)), showgrid: false,
    }),
    annotations: shown.length ? [] : [{ xref: "paper", yref: "paper", x: 0.5, y: 0.5, text: `No request in the last ${range} s.`, showarrow: false }],
  });
  const late = shown.filter((r) => r.overdue_ms).length;
  $("timeline-sum").textContent = shown.length
    ? `${plural(shown.length, "request")}, latest on top; a tick is a token, red where a deadline was missed${late ? `; ${late} overdue now` : ""}.`
    : "";
}

// -- controls ----------------------------------------------------------------------------------------------------

for (const id of ["slo-class", "engine", "window", "span"]) $(id).addEventListener("change", () => (view.paused && id === "span" ? show() : view.paused ? pause(false) : refresh()));
$("controls").addEventListener("submit", (event) => event.preventDefault());

function pause(wanted) {
  view.paused = wanted;
  $("pause").textContent = wanted ? "Resume" : "Pause";
  $("pause").setAttribute("aria-pressed", String(wanted));
  say();
  if (!wanted) refresh();
}
$("pause").addEventListener("click", () => pause(!view.paused));
$("request").addEventListener("close", () => { view.open = ""; });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (view.doc) show(); });
document.addEventListener("visibilitychange", () => { if (!document.hidden && !view.paused) refresh(); });
setInterval(say, 500);
loop();
