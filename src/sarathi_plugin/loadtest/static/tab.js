"use strict";
// The tab "Fluidity" of Locust's web UI. Locust draws the tab's name, this draws what is in it: a second's look each.

(() => {
  const BASE = new URL(document.currentScript.src).pathname.replace(/tab\.js$/, "");
  const PERIOD_MS = 1000;
  const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"];
  const CHARTS = [
    { title: "Fluidity-index and shares of the requests that ended", range: [0, 1.02],
      lines: { fluidity_index: "fluidity-index", fluidity_share: "fluid requests", slo_share: "within SLO" } },
    { title: "Time between tokens, milliseconds", scale: 1000, lines: { tbt_p50_s: "P50", tbt_p99_s: "P99" } },
    { title: "Time to first token, seconds", scale: 1, lines: { ttft_p50_s: "P50", ttft_p99_s: "P99" } },
    { title: "Stalls and failures, a second", lines: { stalls: "stalls that ended", overdue: "requests overdue", failed: "failed requests" }, bars: true },
  ];
  const panel = document.createElement("section");
  panel.id = "sarathi-tab";
  panel.innerHTML = `<style>
    #sarathi-tab { font: 14px/1.45 Roboto, system-ui, sans-serif; padding-bottom: 24px; }
    #sarathi-tab .cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(230px, 1fr)); gap: 12px; margin: 12px 0; }
    #sarathi-tab .card { border: 1px solid rgba(128,128,128,.35); border-radius: 6px; padding: 8px 12px; }
    #sarathi-tab .card b { display: block; font-size: 22px; font-weight: 500; }
    #sarathi-tab table { border-collapse: collapse; width: 100%; font-size: 13px; }
    #sarathi-tab td, #sarathi-tab th { padding: 5px 10px; border-bottom: 1px solid rgba(128,128,128,.25); text-align: right; font-weight: 400; }
    #sarathi-tab th { opacity: .75; } #sarathi-tab td:first-child, #sarathi-tab th:first-child { text-align: left; }
    #sarathi-tab .charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: 12px; margin-top: 16px; }
    #sarathi-tab .charts > div { min-width: 0; overflow: hidden; }
    #sarathi-tab .problem { color: #d55e00; }
  </style><p class="problem" role="alert"></p><p class="how"></p><div class="cards"></div>
  <div style="overflow-x:auto"><table><thead></thead><tbody></tbody></table></div><div class="charts"></div>`;
  const $ = (selector) => panel.querySelector(selector);
  const text = (tag, value) => Object.assign(document.createElement(tag), { textContent: value });
  const row = (tag, values) => { const made = document.createElement("tr"); made.append(...values.map((v) => text(tag, v))); return made; };

  $(".charts").append(...CHARTS.map(() => document.createElement("div")));

  const chosen = () => new URLSearchParams(location.search).get("tab") === "fluidity";

  // Locust's page is drawn again and again: the panel is put back behind its tabs where it is not there.
  function place() {
    const tabs = document.querySelector('[role="tablist"]')?.closest(".MuiContainer-root");
    const visible = chosen() && Boolean(tabs);
    if (visible && tabs.lastElementChild !== panel) tabs.append(panel);
    panel.hidden = !visible;
    return visible;
  }

  function loadLibrary() {
    if (loadLibrary.begun) return;
    loadLibrary.begun = true;
    const script = document.createElement("script");
    script.src = `${BASE}plotly.min.js`;
    script.onerror = () => { $(".charts").textContent = "For charts: pip install plotly, beside Locust."; };
    document.head.append(script);
  }

  function cards(total) {
    const made = total.map(([name, value]) => {
      const card = document.createElement("div");
      card.className = "card";
      card.append(text("span", name), text("b", value));
      return card;
    });
    $(".cards").replaceChildren(...made);
  }

  function chart(spec, number, course) {
    const holder = $(".charts").children[number];
    const colour = getComputedStyle(document.body).color;
    const grid = "rgba(128,128,128,.25)";
    const data = Object.entries(spec.lines).map(([key, name], i) => ({
      name, x: course.at_s, y: (course[key] || []).map((v) => (v === null ? null : v * (spec.scale || 1))),
      type: spec.bars ? "bar" : "scatter", mode: "lines+markers", connectgaps: false,
      line: { color: COLOURS[i], width: 1.8 }, marker: { color: COLOURS[i], size: 4 },
    }));
    Plotly.react(holder, data, {
      title: { text: spec.title, font: { size: 14 }, x: 0.02 }, height: 285, margin: { l: 48, r: 12, t: 34, b: 72 },
      paper_bgcolor: "transparent", plot_bgcolor: "transparent", font: { color: colour, size: 12 },
      xaxis: { title: { text: "seconds after the start", standoff: 4 }, rangemode: "tozero", gridcolor: grid }, barmode: "group",
      yaxis: { range: spec.range, rangemode: "tozero", gridcolor: grid }, showlegend: true,
      legend: { orientation: "h", x: 0, y: -0.3 },
    }, { displayModeBar: false, responsive: true });
  }

  async function show() {
    if (!place() || document.hidden) return;
    loadLibrary();
    const answer = await fetch(`${BASE}live`, { cache: "no-store", signal: AbortSignal.timeout(5000) });
    if (!answer.ok) throw new Error(`Locust answers ${answer.status}.`);
    const doc = await answer.json();
    const { state } = doc;
    const of = state.requests ? ` of ${state.requests}` : "";
    $(".problem").textContent = doc.problem;
    $(".how").textContent = `${state.sent}${of} requests sent, ${state.ended} ended, ${state.workers} ${state.workers === 1 ? "worker" : "workers"}` +
      (state.running ? "." : "; nothing is running.") +
      doc.faults.map(([kind, count]) => ` ${count} ${kind}.`).join("");
    cards(doc.total);
    $("thead").replaceChildren(row("th", doc.titles));
    $("tbody").replaceChildren(...doc.rows.map((r) => row("td", r)));
    if (window.Plotly && doc.course.at_s) CHARTS.forEach((spec, i) => chart(spec, i, doc.course));
  }

  async function loop() {
    const began = performance.now();
    try { await show(); } catch (error) { $(".problem").textContent = error.message; }
    setTimeout(loop, Math.max(50, PERIOD_MS - (performance.now() - began)));
  }
  setInterval(place, 200);  // so that a click on a tab is answered at once
  loop();
})();
