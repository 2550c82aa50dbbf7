"use strict";
// The first page: a card per metric, fed by server-sent events; sources and freshness always visible.
// Nothing is shown as live that is not: a lost stream greys its card and says since when.
(() => {
  const $ = (id) => document.getElementById(id);
  const cards = new Map();
  let online = false;
  let lostSince = null;

  const el = (tag, attrs = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attrs)) {
      if (key === "class") node.className = value;
      else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else if (value !== null && value !== undefined) node.setAttribute(key, value);
    }
    node.append(...children.filter((c) => c !== null && c !== undefined));
    return node;
  };
  const svg = (tag, attrs) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attrs)) node.setAttribute(key, value);
    return node;
  };

  // Decimals arrive as text and stay exact: only their digits are grouped.
  const group = (text) => {
    const [, sign, whole, rest] = /^(-?)(\d+)(.*)$/.exec(text) || [];
    return whole === undefined ? text : sign + whole.replace(/\B(?=(\d{3})+$)/g, "\u202f") + rest;
  };
  const isDecimal = (v) => typeof v === "string" && /^-?\d+(\.\d+)?$/.test(v);
  const show = (value, type) => {
    if (value === null || value === undefined) return "–";
    if (typeof value === "number") {
      if (Number.isInteger(value)) return group(String(value));
      const digits = Math.abs(value) >= 100 ? 1 : Math.abs(value) >= 1 ? 2 : 4;
      return group(value.toFixed(digits));
    }
    if (isDecimal(value) && type !== "string") return group(value);
    if (Array.isArray(value)) return value.map((v) => !v || typeof v !== "object" ? show(v) : "value" in v ? `${show(v.value, "string")}: ${v.count}` : `≤${v.le === null ? "∞" : v.le}: ${v.count}`).join("  ");
    return String(value);
  };
  const seconds = (s) => s < 1 ? `${Math.round(s * 1000)} ms` : s < 90 ? `${s.toFixed(s < 10 ? 1 : 0)} s`
    : s < 5400 ? `${Math.round(s / 60)} min` : s < 172800 ? `${Math.round(s / 3600)} h` : `${Math.round(s / 86400)} d`;

  const getJson = async (path) => {
    const response = await fetch(path, { headers: { Accept: "application/json" } });
    const body = await response.json().catch(() => null);
    if (!response.ok && !(body && body.checks)) throw new Error((body && body.detail) || `${path}: HTTP ${response.status}`);
    return body;
  };

  const pill = (node, kind, text) => { node.className = `pill ${kind}`; node.textContent = text; };
  const setOnline = (ok) => {
    if (ok && !online) lostSince = null;
    if (!ok && lostSince === null) lostSince = Date.now();
    online = ok;
    pill($("connection"), ok ? "good" : "bad", ok ? "live" : "disconnected");
    const notice = $("notice");
    notice.hidden = ok;
    if (!ok) notice.textContent = `No connection to the server since ${new Date(lostSince).toLocaleTimeString()}. The numbers below are the last ones received; trying again.`;
  };

  // ---- sources and freshness, polled: they must be seen also when no metric changes ----
  const stateKind = { running: "good", finished: "good", failed: "bad" };
  const toGo = (s) => (s.per_second ? ` · ${group(String(s.per_second))}/s` : "") + (s.seconds_left === null ? "" : ` · ${seconds(s.seconds_left)} left`);
  const renderSources = (ready) => {
    const box = $("sources");
    // What catches up beside the contracts that answer (a reload, a backfill) stands below them.
    const behind = ((ready.history || {}).catching_up || []).map((s) => ({ ...s, name: `${s.name} (history)`, behind: true }));
    const list = (ready.sources || []).concat(behind);
    if (!list.length) { box.replaceChildren(el("p", { class: "empty" }, "No sources are configured.")); return; }
    box.replaceChildren(...list.map((s) => {
      const lag = s.published_lag > 0 ? `, ${group(String(s.published_lag))} ${s.behind ? "to read" : "not yet in the numbers"}` : "";
      const node = el("div", { class: "source" },
        el("b", {}, s.name), el("span", { class: `pill ${stateKind[s.state] || "wait"}` }, s.state.replace("_", " ")),
        el("small", {}, `${s.kind} · ${group(String(s.received))} received${lag}${s.caught_up ? "" : toGo(s)}`));
      if ((s.behind || s.state === "catching_up") && s.progress !== null) {
        const bar = el("i");
        bar.style.width = `${Math.round(s.progress * 100)}%`;
        node.append(el("div", { class: "meter", title: `${Math.round(s.progress * 100)} %` }, bar));
      }
      const halted = (s.partitions || []).filter((p) => p.halted).map((p) => `${p.topic}/${p.number}: ${p.halted}`);
      if (s.state === "failed" || halted.length) node.append(el("small", { class: "bad" }, halted.join("; ") || s.message));
      else if (s.state === "connecting" || s.state === "waiting") node.append(el("small", {}, s.message));
      if (s.gap) node.append(el("small", { class: "bad" }, `${group(String(s.gap))} records were gone before they could be read`));
      return node;
    }));
  };
  const poll = async () => {
    try {
      const ready = await getJson("/readyz?verbose");
      setOnline(true);
      renderSources(ready);
      const engine = ready.engine;
      const fresh = $("fresh");
      if (engine) {
        const kind = engine.fresh_ms > 10000 ? "bad" : engine.fresh_ms > 2000 ? "wait" : "good";
        pill(fresh, kind, `fresh ${seconds(engine.fresh_ms / 1000)}`);
        $("footer").textContent = `tick ${engine.tick} · contracts ${String(engine.contracts).slice(0, 12)} · generation ${engine.generation}`;
      } else pill(fresh, "wait", "engine is starting");
      if (ready.reload && ready.reload.error) {
        $("notice").hidden = false;
        $("notice").textContent = `The changed contracts were refused; the ones before them stay. ${ready.reload.error}`;
      }
      if (engine && engine.generation !== generation) { generation = engine.generation; await load(); }
    } catch (error) {
      setOnline(false);
      for (const card of cards.values()) card.node.classList.add("stale");
    }
  };
  let generation = null;

  // ---- one card per metric ----
  class Card {
    constructor(metric) {
      this.metric = metric;
      this.window = metric.window;
      this.by = metric.dimensions.length ? metric.dimensions[0].name : null;
      this.points = [];
      this.build();
      this.sparkline();
    }
    build() {
      const m = this.metric;
      this.value = el("div", { class: "value" }, "–");
      this.level = el("span", { class: "level" });
      this.windowLabel = el("span", { class: "window" }, this.window || "");
      this.spark = svg("svg", { class: "spark", viewBox: "0 0 300 46", preserveAspectRatio: "none", "aria-hidden": "true" });
      this.stateText = el("span", {}, "connecting");
      this.newest = el("span", {}, "");
      this.detail = el("div", { class: "detail", hidden: "" });
      this.button = el("button", { "aria-expanded": "false", onclick: () => this.toggle() },
        el("div", { class: "row" }, el("h3", { title: m.name }, m.title), this.windowLabel), this.value, this.level, this.spark);
      this.node = el("article", { class: "card", id: `metric-${m.name}` }, this.button,
        el("div", { class: "foot" }, this.newest, this.stateText), this.detail);
    }
    close() { this.node.remove(); }
    state(text, kind) {
      this.stateText.textContent = text;
      this.stateText.className = kind;
      if (text === "live") this.node.classList.remove("stale");
    }
    take(answer) {
      const type = (this.metric.measures.find((m) => !m.hidden) || {}).type;
      const text = show(answer.value, type);
      if (text !== this.shown) {
        this.shown = text;
        this.value.replaceChildren(text, el("span", { class: "unit" }, answer.value === null ? "nothing to say" : answer.unit));
        this.value.classList.remove("flash");
        void this.value.offsetWidth; // restarts the animation
        this.value.classList.add("flash");
      }
      this.level.textContent = answer.level ? `level: ${answer.level}` : "";
      this.last = answer;
      this.live = Number(answer.value);
      this.newestAt = answer.meta.newest_event ? Date.parse(answer.meta.newest_event.received) : null;
      this.age();
      this.draw();
      if (!this.detail.hidden) this.table();
    }
    age() {
      this.newest.textContent = this.newestAt === null || this.newestAt === undefined ? "no event yet"
        : `newest event ${seconds(Math.max(0, (Date.now() - this.newestAt) / 1000))} ago`;
    }
    async sparkline() {
      try {
        const window = this.window ? `?window=${encodeURIComponent(this.window)}` : "";
        const series = await getJson(`/v1/metrics/${encodeURIComponent(this.metric.name)}/series${window}`);
        this.points = series.points.map((p) => p.value === null || isNaN(Number(p.value)) ? null : Number(p.value));
        this.draw();
      } catch (error) { this.points = []; this.draw(); }
    }
    draw() {
      const points = this.points.slice();
      if (this.last && this.last.value !== null && !isNaN(this.live)) points.push(this.live);
      const numbers = points.filter((p) => p !== null);
      if (numbers.length < 2) { this.spark.replaceChildren(); return; }
      const low = Math.min(...numbers, 0), high = Math.max(...numbers);
      const span = high - low || 1, step = 300 / (points.length - 1);
      let line = "", area = "", open = false, lastX = 0;
      points.forEach((p, i) => {
        if (p === null) { if (open) area += `L${lastX} 46Z`; open = false; return; }
        const x = (i * step).toFixed(1), y = (43 - 40 * (p - low) / span).toFixed(1);
        line += `${open ? "L" : "M"}${x} ${y}`;
        area += open ? `L${x} ${y}` : `M${x} 46L${x} ${y}`;
        open = true; lastX = x;
      });
      if (open) area += `L${lastX} 46Z`;
      this.spark.replaceChildren(svg("path", { class: "area", d: area }), svg("path", { d: line }));
    }
    toggle() {
      this.detail.hidden = !this.detail.hidden;
      this.button.setAttribute("aria-expanded", String(!this.detail.hidden));
      if (!this.detail.hidden) this.table();
    }
    picks(names, chosen, pick) {
      return el("div", { class: "picks" }, ...names.map((name) =>
        el("button", { type: "button", "aria-pressed": String(name === chosen), onclick: () => pick(name) }, name)));
    }
    async table() {
      // At most one request at a time, at most one a second: the table follows, the number streams.
      if (this.loading) { this.again = true; return; }
      this.loading = true;
      try {
        const query = new URLSearchParams();
        if (this.window) query.set("window", this.window);
        if (this.by) query.set("by", this.by);
        query.set("limit", "100");
        const answer = await getJson(`/v1/metrics/${encodeURIComponent(this.metric.name)}?${query}`);
        this.renderTable(answer);
      } catch (error) {
        this.detail.replaceChildren(el("p", { class: "bad" }, error.message));
      }
      setTimeout(() => { this.loading = false; if (this.again && !this.detail.hidden) { this.again = false; this.table(); } }, 1000);
    }
    renderTable(answer) {
      const m = this.metric;
      const dims = answer.meta.dimensions;
      const measures = Object.keys(answer.meta.units);
      const head = el("tr", {}, ...dims.map((d) => el("th", {}, d)),
        ...measures.map((n) => el("th", { class: "number" }, n, answer.meta.units[n] ? ` (${answer.meta.units[n]})` : "")));
      const types = Object.fromEntries(m.measures.map((x) => [x.name, x.type]));
      const rows = answer.rows.map((row) => el("tr", {},
        ...dims.map((d) => el("td", { class: row[d] === null ? "null" : "" }, row[d] === null ? "(none)" : String(row[d]))),
        ...measures.map((n) => el("td", { class: "number" }, show(row[n], types[n])))));
      const range = answer.window_end ? `${answer.window_start} to ${answer.window_end}` : "";
      this.detail.replaceChildren(
        ...[m.description ? el("p", {}, m.description) : null,
          this.picks(m.windows.map((w) => w.name), this.window, (w) => {
            this.window = w; this.windowLabel.textContent = w; this.node.classList.add("stale"); connect(); this.sparkline(); this.table();
          }),
          m.dimensions.length ? this.picks(m.dimensions.map((d) => d.name), this.by, (d) => { this.by = d; this.table(); }) : null,
          el("div", { class: "scroll" }, el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows))),
          answer.rows.length ? null : el("p", {}, "No events in this window."),
          answer.has_more ? el("p", {}, `The first 100 of ${answer.total_count} rows.`) : null,
          el("p", {}, range, range ? " · " : "", answer.complete ? "complete" : "still changing", " · contract ", answer.contract.version,
            " · ", el("a", { href: `/v1/lineage/metric/${encodeURIComponent(m.name)}` }, "lineage"))].filter(Boolean));
    }
  }

  // ---- one stream for all cards (browsers allow few connections per host) ----
  let stream = null, timer = null;
  const every = (f) => { for (const card of cards.values()) f(card); };
  const connect = () => {
    clearTimeout(timer);
    if (stream) stream.close();
    if (!cards.size) return;
    const query = new URLSearchParams();
    every((card) => query.append("metric", card.window ? `${card.metric.name}:${card.window}` : card.metric.name));
    const mine = stream = new EventSource(`/v1/stream/metrics?${query}`);
    const retry = () => { mine.close(); clearTimeout(timer); timer = setTimeout(connect, 2000); };
    const take = (event) => {
      const answer = JSON.parse(event.data);
      const card = cards.get(answer.metric_name);
      if (!card || (card.window && card.window !== answer.window)) return;
      card.state("live", "");
      card.take(answer);
    };
    mine.addEventListener("snapshot", take);
    mine.addEventListener("change", take);
    mine.addEventListener("open", () => every((card) => card.state("live", "")));
    mine.addEventListener("drain", () => { every((card) => card.state("the server is shutting down", "wait")); retry(); });
    mine.addEventListener("error", (event) => {
      // With data it is an event of the server (a metric is gone); without, the connection broke.
      const text = event.data ? JSON.parse(event.data).detail : "disconnected, trying again";
      every((card) => { card.node.classList.add("stale"); card.state(text, "bad"); });
      if (event.data || mine.readyState === EventSource.CLOSED) retry();
    });
  };
  const load = async () => {
    const answer = await getJson("/v1/metrics");
    const box = $("metrics");
    const names = new Set(answer.metrics.map((m) => m.name));
    for (const [name, card] of cards) if (!names.has(name)) { card.close(); cards.delete(name); }
    if (!answer.metrics.length) { connect(); box.replaceChildren(el("p", { class: "empty" }, "No metric contracts are loaded. Add one to the contracts folder.")); return; }
    if (!cards.size) box.replaceChildren();
    for (const metric of answer.metrics) {
      const before = cards.get(metric.name);
      if (before && before.metric.contract.hash === metric.contract.hash) continue;
      if (before) before.close();
      const card = new Card(metric);
      cards.set(metric.name, card);
      box.append(card.node);
    }
    connect();
  };

  setInterval(() => { for (const card of cards.values()) card.age(); }, 1000);
  setInterval(poll, 2000);
  setInterval(() => { for (const card of cards.values()) card.sparkline(); }, 30000);
  poll().then(() => { if (!cards.size) load().catch((e) => { $("metrics").replaceChildren(el("p", { class: "empty" }, e.message)); }); });
})();
