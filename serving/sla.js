"use strict";
const SLA = "/v1/sla", POLL_MS = 2000, PATIENCE_MS = 5000, HISTORY_MINUTES = 60, RELOAD_MS = 300_000, LEAST_SHOWN_MS = 300_000;
const PARITY = ["canary", "stream_versus_batch", "tiles_versus_events"];
const $ = (id) => document.getElementById(id);
let trouble = "", last = null, lastAt = 0, unanswered = 0, history = null, historyAt = 0;

// ---- words

// Text goes in as text only: nothing that a server says is ever read as HTML.
function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null) node.setAttribute(name, value);
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}
// What has not changed stays: text that is being selected, and a link that is being clicked.
function put(node, ...children) {
  const fresh = node.cloneNode(false);
  fresh.append(...children.flat().filter(Boolean));
  if (!fresh.isEqualNode(node)) node.replaceChildren(...fresh.childNodes);
}
const svg = (tag, attributes) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
};
const known = (value) => value !== null && value !== undefined;
const round = (value) => (value >= 100 ? Math.round(value).toLocaleString("en") : String(+value.toPrecision(value < 1 ? 2 : 3)));
function time(ms) {
  if (ms < 1000) return [ms < 0.01 ? "0" : round(ms), "ms"];
  for (const [unit, size, next] of [["s", 1000, 120], ["min", 60_000, 120], ["h", 3_600_000, 48]])
    if (ms < size * next) return [round(ms / size), unit];
  return [round(ms / 86_400_000), "d"];
}
// Never rounded up to all: 99.97 % are not 100 %.
const share = (value) => [value > 0.99 && value < 1 ? (Math.floor(1e5 * value) / 1e3).toString() : round(100 * value), "%"];
const bytes = (value) => (value >= 2 ** 30 ? [round(value / 2 ** 30), "GiB"] : [round(value / 2 ** 20), "MiB"]);
const said = ([value, unit]) => `${value} ${unit}`;
const timeSaid = (ms) => said(time(ms));
const aged = (ms) => {
  const [value, unit] = time(Math.max(ms, 1000));
  return `${unit === "s" || value >= 3 ? Math.round(value) : (+value).toFixed(1)} ${unit}`;
};
const since = (at) => aged(Date.now() - at / 1000), ago = (ms) => (ms < 1000 ? "just now" : `${aged(ms)} ago`);
const agoAt = (at) => ago(Date.now() - at / 1000);
const count = (number, one, many = one + "s") => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
const clock = (at) => new Date(at / 1000).toLocaleTimeString();
// A state is a shape and a word; its colour only repeats them.
const SHAPES = { good: "●", warn: "▲", bad: "■", soft: "○" };
const state = (kind, ...words) => el("span", { class: kind }, el("span", { class: "shape", "aria-hidden": "true" }, SHAPES[kind]), ...words);
const figure = (parts, kind = "") => el("span", { class: "value " + kind }, ...(parts ? [parts[0], el("i", {}, parts[1])] : ["–"]));
const small = (...words) => (words.flat().join("") ? el("small", {}, ...words) : null);
function link(url, ...words) {
  const safe = typeof url === "string" && (/^https?:\/\//.test(url) || /^\/(?!\/)/.test(url));
  return safe ? el("a", { href: url }, ...words) : null;
}
const short = (entity) => entity.replace(/^rtml:\{/, "").replace(/\}$/, "").split("|").map(decodeURIComponent).join(" ");

// ---- what is known of a target

const split = (target) => [target.slice(0, target.indexOf(":")), target.slice(target.indexOf(":") + 1)];
const objectives = (target) => last.report.objectives.filter((one) => one.target === target);
const objective = (target, name) => objectives(target).find((one) => one.name === name);
const shownOf = (one, value) => (one.unit === "ms" ? time(value) : share(value));
function servicesOf(view) {
  return Object.keys(last.services).filter((name) => last.services[name].includes(view) && last.report.services[name]);
}
// The asset checks of a target, by what their assets are of.
function checksOf(target) {
  const [kind, name] = split(target), sources = last.report.views[name]?.source;
  const rooms = { source: ["raw", "events", "stream", "late"], view: ["tiles", "features", "published"],
    service: ["served", "serving", "training"] }[kind];
  return Object.entries(last.checks).map(([full, check]) => {
    const at = full.lastIndexOf(":"), asset = full.slice(0, at), [room, ...of] = asset.split("/");
    return { ...check, full, asset, room, of: of.join("/"), name: full.slice(at + 1), sources };
  }).filter((check) => rooms.includes(check.room) && (check.of === name || check.of.startsWith(name + "/")));
}
const isParity = (check) => PARITY.includes(check.name);
const series = (target, name) => history?.series[target]?.[name];
function pointOf(report) {
  const point = { platform: { alerts: report.alerts.length } };
  const worst = (flow, name) => Math.max(...flow.partitions.map((one) => one[name]).filter(known));
  for (const [name, one] of Object.entries(report.sources)) if (one.flows.tiles) {
    const tiles = one.flows.tiles;
    point["source:" + name] = { lag_ms: worst(tiles, "lag_ms"), heartbeat_ms: worst(tiles, "heartbeat_ms"),
      freshness_ms: tiles.freshness_p99_ms, events_per_second: tiles.events_per_second };
  }
  for (const [name, one] of Object.entries(report.views)) point["view:" + name] = { age_ms: one.age_ms };
  for (const [name, one] of Object.entries(report.services)) point["service:" + name] = {
    p99_ms: one.latency ? one.latency.p99 : one.probe_ms, requests_per_second: one.requests_per_second, age_ms: one.age_ms };
  return point;
}
// A look since the history was loaded is put behind it, the worst of those that share a point.
function extend(report) {
  if (!history) return;
  const step = history.step_ms * 1000, all = Object.values(history.series).flatMap((figures) => Object.values(figures));
  while (history.at.length && history.at.at(-1) + step <= report.at) {
    history.at.push(history.at.at(-1) + step);
    history.at.shift();
    for (const values of all) values.push(null), values.shift();
  }
  for (const [target, figures] of Object.entries(pointOf(report))) for (const [name, value] of Object.entries(figures)) {
    if (!known(value) || !Number.isFinite(value)) continue;
    const values = ((history.series[target] ??= {})[name] ??= history.at.map(() => null));
    values[values.length - 1] = Math.max(value, values.at(-1) ?? value);
  }
}

// ---- cells

// Lines begin with the first look, so that those of a young platform can be read; all of them at the same one.
function begin() {
  const first = Math.min(...Object.values(history.series).flatMap((figures) => Object.values(figures)).map((values) => values.findIndex(known)).filter((slot) => slot >= 0));
  return Math.max(0, Math.min(first, history.at.length - Math.ceil(LEAST_SHOWN_MS / history.step_ms)));
}
const span = () => aged((history.at.length - begin()) * history.step_ms).replace("60 min", "hour");
function spark(target, name, bound) {
  const values = series(target, name)?.slice(history.begin);
  if (!values || values.filter(known).length < 2) return null;
  const seen = values.filter(known), top = Math.max(...seen, 1e-9);
  // The bound is drawn where it does not flatten the line.
  const near = known(bound) && bound <= 4 * top, high = Math.max(top, near ? bound : 0) * 1.05;
  let path = "", gap = 99;
  values.forEach((value, slot) => {
    if (!known(value)) return void gap++;
    path += `${gap > 6 ? "M" : "L"}${((100 * slot) / (values.length - 1)).toFixed(2)} ${(20 - (20 * value) / high).toFixed(2)}`;
    gap = 0;
  });
  const node = svg("svg", { class: "spark", viewBox: "0 0 100 20", preserveAspectRatio: "none", "aria-hidden": "true" });
  if (near) node.append(svg("line", { x1: 0, x2: 100, y1: 20 - (20 * bound) / high, y2: 20 - (20 * bound) / high }));
  node.append(svg("path", { d: path }));
  return node;
}
// One figure: its value, its bound where there is one, marked where that is broken, and its last hour.
function bounded(parts, target, name, line, more) {
  const one = objective(target, name), broken = one?.good === false;
  const bound = one ? `${broken ? "over its bound, " : ""}≤ ${said(shownOf(one, one.bound))}` : "";
  return { broken, figure: true, children: [
    broken ? state("bad", figure(parts)) : figure(parts), small(broken ? el("b", { class: "bad" }, bound) : bound),
    more ? small(more) : null, line ? spark(target, line, one?.bound) : null] };
}
const left = (target) => {
  const counted = objectives(target).filter((one) => known(one.left));
  if (!counted.length) return { children: [el("span", { class: "soft" }, "none promised")] };
  const worst = counted.reduce((a, b) => (a.left <= b.left ? a : b)), burn = Math.max(0, ...Object.values(worst.burn));
  const kind = worst.left <= 0 ? "bad" : worst.left < 0.25 ? "warn" : "";
  const parts = share(Math.max(0, worst.left));
  return { figure: true, broken: worst.left <= 0, children: [kind ? state(kind, figure(parts)) : figure(parts),
    small(`${worst.left < 0 ? "overspent: " : ""}${worst.name}${burn >= 1 ? `, burning ×${round(burn)}` : ""}`)] };
};
function outcome(found, nothing) {
  if (!found.length) return { children: [state("soft", el("span", {}, nothing))] };
  const failed = found.filter((one) => !one.passed), critical = failed.some((one) => one.severity === "critical");
  const kind = critical ? "bad" : failed.length ? "warn" : "good";
  const oldest = Math.min(...found.map((one) => one.at));
  const words = failed.length ? found.length === 1 ? "1 check failed" : `${failed.length} of ${found.length} checks failed` : `${count(found.length, "check")} passed`;
  return { broken: critical, children: [state(kind, words),
    failed.length ? small(failed.map((one) => one.name).join(", ")) : small(`oldest ${agoAt(oldest)}`)] };
}
const quality = (target) => outcome(checksOf(target).filter((one) => !isParity(one)), "not checked yet");
function parity(targets) {
  return outcome(targets.flatMap(checksOf).filter(isParity), "not compared yet");
}
const STATES = { flowing: ["good", "flowing"], quiet: ["good", "quiet"], replaying: ["warn", "replaying"], stalled: ["bad", "stalled"],
  unwritten: ["soft", "never written to"], unseen: ["soft", "not seen"] };

const worstOf = (flow, name) => {
  const values = (flow?.partitions ?? []).map((one) => one[name]).filter(known);
  return values.length ? Math.max(...values) : null;
};
const orNone = (value, shown) => (known(value) ? shown(value) : null);

function sourceRow(name, source) {
  const target = "source:" + name, tiles = source.flows.tiles ?? { partitions: [], minute: {}, counts: {} }, minute = tiles.minute;
  const [kind, word] = STATES[source.state] ?? ["soft", source.state];
  const waiting = worstOf(tiles, "lag_entries"), beat = worstOf(tiles, "heartbeat_ms"), missing = worstOf(tiles, "missing_ms");
  const bad = ["late", "duplicates", "refused"].map((each) => [each, minute[each] ?? 0, objective(target, each)]);
  return { name, sub: [state(kind, word), small(source.words)], cells: [
    bounded(orNone(tiles.freshness_p99_ms, time), target, "freshness", "freshness_ms",
      known(tiles.freshness_p50_ms) ? `p99; half within ${timeSaid(tiles.freshness_p50_ms)}` : ""),
    bounded(orNone(worstOf(tiles, "lag_ms"), time), target, "lag", "lag_ms", waiting ? `${count(waiting, "entry", "entries")} waiting` : ""),
    bounded(orNone(missing || beat, time), target, "heartbeat", "heartbeat_ms", missing ? "still missing" : ""),
    { figure: true, children: [figure(orNone(tiles.events_per_second, (value) => [round(value), "/s"])),
      known(source.last_event_age_ms) ? small(`last ${ago(source.last_event_age_ms)}`) : null, spark(target, "events_per_second")] },
    { broken: bad.some(([, , one]) => one?.good === false), children: bad.map(([each, number, one]) =>
      el("div", {}, one?.good === false ? state("bad", `${number} ${each}`) : `${number.toLocaleString("en")} ${each}`,
        one?.good === false ? small(`${said(share(one.value))}, ≤ ${said(share(one.bound))}`) : null)) },
    quality(target), left(target)] };
}
function viewRow(name, view) {
  const target = "view:" + name, served = servicesOf(name), nulls = Object.values(view.nulls);
  const slowest = served.map((one) => ({ one, p99: last.report.services[one].latency?.p99 ?? last.report.services[one].probe_ms }))
    .filter(({ p99 }) => known(p99)).sort((a, b) => b.p99 - a.p99)[0];
  return { name, sub: [view.version ? state(view.state === "ready" ? "good" : "warn", view.state ?? "unknown") : state("soft", "not served yet"),
    small(view.words || `of ${view.source}`)], cells: [
    bounded(orNone(view.age_ms, time), target, "freshness", "age_ms"),
    { figure: true, children: [figure(nulls.length ? share(Math.max(...nulls)) : null), small(nulls.length ? "of its emptiest feature" : "nothing sampled")] },
    slowest ? bounded(time(slowest.p99), "service:" + slowest.one, "p99", null, `of ${slowest.one}`)
      : { figure: true, children: [figure(null), small(served.length ? "nothing asked" : "no service reads it")] },
    quality(target), parity([target, ...served.map((one) => "service:" + one)]), left(target)] };
}
function serviceRow(name, service) {
  const target = "service:" + name, up = objective(target, "availability");
  const p99 = service.latency ? service.latency.p99 : service.probe_ms;
  const lost = { figure: true, broken: up?.good === false, children: [up?.good === false ? state("bad", figure(share(up.value))) : figure(orNone(up?.value, share)),
    small(up ? `${up.good === false ? "under its bound, " : ""}≥ ${said(share(up.bound))}` : ""), small(`of ${count(service.requests ?? 0, "request")}`)] };
  return { name, sub: [service.ready === null ? state("soft", "not seen") : state(service.ready ? "good" : "bad", service.ready ? "ready" : "not ready"),
    small(service.words || (known(service.version) ? `version ${service.version}` : ""))], cells: [
    bounded(orNone(p99, time), target, "p99", "p99_ms", service.latency ? "of the last minute" : "the watch's own request"),
    lost,
    { figure: true, children: [figure(orNone(service.requests_per_second, (value) => [round(value), "/s"])), spark(target, "requests_per_second")] },
    bounded(orNone(service.age_ms, time), target, "freshness", "age_ms"), quality(target), parity([target]), left(target)] };
}
const TABLES = [
  ["source", "Sources", ["freshness", "lag", "heartbeat", "events", "last minute", "quality", "budget left"], sourceRow, "sources"],
  ["view", "Views", ["freshness", "nulls", "p99", "quality", "parity", "budget left"], viewRow, "views"],
  ["service", "Services", ["p99", "availability", "requests", "freshness", "quality", "parity", "budget left"], serviceRow, "services"],
];

// ---- details: all that is known of a target

const rows = (title, head, body, nothing) => el("div", {}, el("h3", {}, title), body.length
  ? el("table", {}, head ? el("tr", {}, head.map((one) => el("th", { scope: "col" }, el("small", {}, one)))) : null,
    body.map((cells) => el("tr", {}, cells.map((cell) => el("td", {}, cell ?? "–")))))
  : el("p", { class: "soft" }, nothing));
function promises(target) {
  return rows("Bounds", ["what", "now", "bound", "", "budget left"], objectives(target).map((one) => [one.name,
    known(one.value) ? said(shownOf(one, one.value)) : one.words || "–",
    `${one.name === "availability" ? "≥" : "≤"} ${said(shownOf(one, one.bound))}`,
    one.good === null ? state("soft", "not judged") : one.good ? state("good", "kept") : state("bad", "broken"),
    known(one.left) ? said(share(one.left)) : one.promised ? "not counted yet" : "a default: none"]), "No bounds.");
}
function checks(target) {
  return rows("Asset checks", ["check", "", "when", "what it said"], checksOf(target).map((one) => [
    link(`${last.dagster}/assets/${one.asset.split("/").map(encodeURIComponent).join("/")}?view=checks&checkDetail=${encodeURIComponent(one.name)}`, `${one.room}: ${one.name}`),
    one.passed ? state("good", "passed") : state(one.severity === "critical" ? "bad" : "warn", `failed, ${one.severity}`),
    agoAt(one.at), el("span", {}, one.words ?? "", one.url ? " " : "", link(one.url, "report"))]), "No asset check ran yet: they are Dagster's.");
}
function facts(target) {
  const [kind, name] = split(target);
  if (kind === "service") return [rows("Views", null, (last.services[name] ?? []).map((view) => [view, last.report.views[view]?.version]), "Not known.")];
  if (kind === "view") return [rows("Nulls of features, of what was served in the last minute", null,
    Object.entries(last.report.views[name].nulls).map(([feature, value]) => [feature, said(share(value))]), "Nothing was served in the last minute.")];
  const source = last.report.sources[name], tiles = source.flows.tiles, hot = tiles?.hot;
  const parts = Object.entries(source.flows).flatMap(([flow, one]) => one.partitions.map((part) => [flow, String(part.partition),
    part.offset, known(part.lag_ms) ? timeSaid(part.lag_ms) : null, orNone(part.lag_entries, String), known(part.heartbeat_ms) ? timeSaid(part.heartbeat_ms) : null]));
  const counted = ["accepted", "late", "duplicates", "refused", "conflicting", "fenced", "damaged"].filter((each) => tiles && (each in tiles.counts || each in tiles.minute))
    .map((each) => [each, (tiles.minute[each] ?? 0).toLocaleString("en"), orNone(tiles.counts[each], (value) => value.toLocaleString("en"))]);
  return [rows("Partitions", ["flow", "partition", "offset", "lag", "waiting", "heartbeat"], parts, "No flow ever ran."),
    rows("Events", ["", "last minute", "since the beginning"], counted, "None."),
    rows("Most frequent entity of the last minute", null, hot ? [[short(hot.entity), `${said(share(hot.share))} of the events`]] : [], "None stands out."),
    ...(Object.keys(tiles?.nulls ?? {}).length ? [rows("Nulls of columns, last minute", null, Object.entries(tiles.nulls).map(([column, value]) => [column, said(share(value))]), "")] : []),
    ...(Object.keys(tiles?.stages ?? {}).length ? [rows("Stages of the tiles flow, a micro-batch", ["stage", "p50", "p99"],
      Object.entries(tiles.stages).map(([stage, one]) => [stage, timeSaid(one.p50), timeSaid(one.p99)]), "")] : [])];
}
const CHARTS = { source: [["Freshness p99 and lag", { freshness_ms: "freshness", lag_ms: "lag (dashed)" }, "ms"], ["Events", { events_per_second: "events" }, "/s"]],
  view: [["Freshness", { age_ms: "freshness" }, "ms"]],
  service: [["p99", { p99_ms: "p99" }, "ms"], ["Requests", { requests_per_second: "requests" }, "/s"]] };
const STROKES = ["--accent", "--warn"], DASHES = [null, [6, 3]];
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
class Chart {
  constructor(target, [title, figures, unit]) {
    Object.assign(this, { target, names: Object.keys(figures) });
    const shown = (value) => (!known(value) ? "–" : unit === "ms" ? timeSaid(value) : `${round(value)} ${unit}`);
    this.box = el("div", { class: "chart", role: "img", "aria-label": title });
    this.title = el("h3", {}, title);
    this.node = el("div", {}, this.title, this.box);
    this.words = title;
    const axis = { stroke: () => colour("--soft"), grid: { stroke: () => colour("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
    this.options = { width: 400, height: 120, cursor: { y: false, drag: { x: false, y: false } }, scales: { y: { range: (_, low, high) => [0, Math.max(high * 1.08, 1e-3)] } },
      axes: [{ ...axis, space: 70, size: 22, values: (_, ticks) => ticks.map((tick) => new Date(tick * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })) },
        { ...axis, size: 62, space: 26, values: (_, ticks) => ticks.map(shown) }],
      series: [{ label: "at", value: (_, at) => (known(at) ? new Date(at * 1000).toLocaleTimeString() : "–") }, ...Object.values(figures).map((label, number) => ({
        label, stroke: () => colour(STROKES[number]), dash: DASHES[number], width: 1.5, spanGaps: true, points: { show: false }, value: (_, value) => shown(value) }))] };
  }
  update() {
    if (!history) return;
    put(this.title, `${this.words}, last ${span()}`);
    const data = [history.at.map((at) => at / 1e6), ...this.names.map((name) => series(this.target, name) ?? history.at.map(() => null))]
      .map((values) => values.slice(history.begin));
    const width = this.node.clientWidth;
    if (!this.plot) this.plot = new uPlot({ ...this.options, width: width || 400 }, data, this.box);
    else this.plot.setData(data);
    if (width && width !== this.plot.width) this.plot.setSize({ width, height: 120 });
  }
}

// ---- tables: rows stay where they are, so that focus, and what is open, do

const entries = new Map();
class Entry {
  constructor(target, columns) {
    this.target = target;
    const id = "details-" + target.replace(/[^\w-]/g, "_");
    this.button = el("button", { class: "name", "aria-expanded": "false", "aria-controls": id }, split(target)[1]);
    this.sub = el("div", {});
    this.cells = columns.map((label) => el("td", { "data-label": label, role: "cell" }));
    this.row = el("tr", { role: "row", "data-target": target }, el("th", { scope: "row", role: "rowheader" }, this.button, this.sub), this.cells);
    this.facts = el("div", { class: "panel" });
    this.plots = el("div", { class: "panel" });
    this.details = el("tr", { class: "details", role: "row", id, hidden: "" }, el("td", { colspan: columns.length + 1, role: "cell" }, this.plots, this.facts));
    this.button.addEventListener("click", () => this.toggle());
  }
  toggle() {
    this.details.hidden = !this.details.hidden;
    this.button.setAttribute("aria-expanded", String(!this.details.hidden));
    if (!this.charts) {
      this.charts = CHARTS[split(this.target)[0]].map((chart) => new Chart(this.target, chart));
      this.plots.append(...this.charts.map((chart) => chart.node));
    }
    this.open();
  }
  open() {
    if (this.details.hidden) return;
    put(this.facts, facts(this.target), promises(this.target), checks(this.target));
    for (const chart of this.charts) chart.update();
  }
  show({ sub, cells }) {
    put(this.sub, sub);
    cells.forEach(({ children, broken, figure }, number) => {
      this.cells[number].className = `${figure ? "figure" : ""}${broken ? " broken" : ""}`;
      put(this.cells[number], children);
    });
    this.open();
  }
}
function tables() {
  const report = last.report, layout = TABLES.map(([kind, , , , room]) => kind + Object.keys(report[room])).join();
  if ($("tables").dataset.layout !== layout) {
    $("tables").dataset.layout = layout;
    $("tables").replaceChildren(...TABLES.map(([kind, title, columns, , room]) => {
      const names = Object.keys(report[room]);
      for (const name of names) if (!entries.has(`${kind}:${name}`)) entries.set(`${kind}:${name}`, new Entry(`${kind}:${name}`, columns));
      const body = names.flatMap((name) => [entries.get(`${kind}:${name}`).row, entries.get(`${kind}:${name}`).details]);
      return el("section", { "aria-labelledby": "h-" + kind }, el("h2", { id: "h-" + kind }, title), names.length
        ? el("table", { class: "list", role: "table", "aria-labelledby": "h-" + kind }, el("thead", { role: "rowgroup" }, el("tr", { role: "row" },
          [kind, ...columns].map((one) => el("th", { scope: "col", role: "columnheader" }, one)))), el("tbody", { role: "rowgroup" }, body))
        : el("p", { class: "soft" }, "None is defined."));
    }));
  }
  for (const [kind, , , row, room] of TABLES) for (const [name, one] of Object.entries(report[room])) entries.get(`${kind}:${name}`).show(row(name, one));
}
function platform() {
  const { redis, server, dagster, lake, disks, processes } = last.report.platform;
  const tile = (title, kind, word, ...more) => el("div", {}, el("small", {}, title), el("div", { class: "value" }, state(kind, word)), small(...more));
  const up = (flag, ...words) => (known(flag) ? [flag ? "good" : "bad", flag ? words[0] : words[1]] : ["soft", words[2]]);
  const used = redis.max_bytes && known(redis.used_bytes) ? redis.used_bytes / redis.max_bytes : null;
  const dead = Object.entries(processes).filter(([, one]) => one.pid === null).map(([name]) => name), running = Object.keys(processes).length;
  const crashes = Object.values(processes).reduce((sum, one) => sum + one.crashes, 0);
  put($("platform"),
    tile("Redis", ...up(redis.up, "up", "does not answer"), redis.words || [known(redis.latency_ms) ? timeSaid(redis.latency_ms) : "",
      known(redis.used_bytes) ? `, ${said(bytes(redis.used_bytes))}` : "", used >= 0.01 ? `, ${said(share(used))} of memory` : "",
      redis.policy && redis.policy !== "noeviction" ? `, policy ${redis.policy}` : ""].join("")),
    tile("Feature server", ...(server.up && server.ready === false ? ["warn", "up, not ready"] : up(server.up, "ready", "does not answer", "none")),
      server.words || (known(server.latency_ms) ? timeSaid(server.latency_ms) : "")),
    tile("Dagster", ...up(dagster.up, "up", "down", "not run, or not asked yet"), dagster.words || dagster.unhealthy.join(", ")),
    tile("Lake", ...up(lake.writable, "writable", "not writable", "not probed yet"), lake.words),
    ...Object.entries(disks).map(([name, disk]) => tile(`Disk of ${name}`, ...(known(disk.free_bytes)
      ? [disk.free_bytes / disk.total_bytes < 0.1 ? "bad" : "good", `${said(bytes(disk.free_bytes))} free`] : ["soft", "not seen"]),
      disk.words || (known(disk.free_bytes) ? `${said(share(disk.free_bytes / disk.total_bytes))} of it` : ""))),
    tile("Processes", ...(running ? dead.length ? ["bad", `${dead.length} of ${running} down`] : ["good", `${running} run`] : ["soft", "none supervised here"]),
      dead.join(", ") || (crashes ? `${count(crashes, "crash", "crashes")} since the start` : "")));
}
function alerts() {
  const open = [...last.report.alerts].sort((a, b) => (a.severity > b.severity) - (a.severity < b.severity) || b.since_at - a.since_at);
  $("alerts").hidden = !open.length;
  put($("alerts"), open.map((one) => {
    const book = one.runbook.split("/").pop().replace(/\.md$/, "");
    return el("article", { class: one.severity, "data-alert": one.alert }, el("div", {}, state(one.severity === "critical" ? "bad" : "warn",
      el("b", {}, `${one.severity}: ${one.alert.replaceAll("_", " ")}`)), small(`${one.target}, for ${since(one.since_at)}`)),
      el("div", { class: "what" }, one.words, one.remedy ? small(one.remedy) : null),
      el("div", { class: "links" }, last.runbooks.includes(book) ? link(`/runbooks/${book}`, "what to do") : el("code", {}, one.runbook), link(one.link, "in Dagster")));
  }));
}

// ---- the look as a whole

function age() {
  return known(last?.age_ms) ? last.age_ms + (performance.now() - lastAt) : null;
}
function notes() {
  const said = [], old = age(), report = last?.report, limit = Math.max(3 * (last?.interval_ms ?? 0), 10_000);
  const stale = known(old) && old > limit;
  if (unanswered) said.push(`This server has not answered for ${aged(performance.now() - unanswered)}${report ? `: what you see is of ${clock(report.at)}` : ""}.`);
  if (trouble && !unanswered) said.push(`This server says: ${trouble}.`);
  if (last && !last.server.redis) said.push(`${last.server.reasons[0]}. ${{ file: "What you see comes from the watch's own file.", memory: "What you see is the last look that this server got."}[last.seen] ?? "This server knows no look of the watch."}`);
  else if (last && !last.server.ready && !unanswered) said.push(`This server is not ready: ${last.server.reasons.join("; ")}.`);
  if (last && !report) said.push("No watch has looked yet. It is part of rtml up; rtml watch runs it alone.");
  else if (stale && !unanswered) said.push(`The watch last looked ${ago(old)}: what you see is of then. It is part of rtml up; rtml watch runs it alone.`);
  if ($("notes").dataset.said !== said.join()) {
    $("notes").dataset.said = said.join();
    $("notes").replaceChildren(...said.map((one) => el("p", {}, el("span", { class: "shape warn", "aria-hidden": "true" }, "▲"), one)));
  }
  document.body.classList.toggle("stale", Boolean(stale || unanswered));
  $("looked").textContent = known(old) ? `the watch looked ${ago(old)}` : "";
  verdict(Boolean(stale || unanswered));
}
function verdict(stale) {
  const report = last?.report, open = report?.alerts.length ?? 0, broken = report?.objectives.filter((one) => one.good === false).length ?? 0;
  const [kind, words] = !last ? ["soft", unanswered ? "no answer" : trouble ? "not shown" : "looking…"] : !report ? ["soft", "not watched"] : open
    ? [report.alerts.some((one) => one.severity === "critical") ? "bad" : "warn", count(open, "open alert")]
    : stale ? ["soft", "not known now"] : broken ? ["warn", count(broken, "bound") + " broken, no alert yet"] : ["good", "all is well"];
  // It is read aloud only when it changes.
  if ($("verdict").textContent !== SHAPES[kind] + words) $("verdict").replaceChildren(state(kind, words));
  document.title = `${SHAPES[kind]} ${words} · rtml`;
}
function show() {
  $("login").hidden = true;
  $("platform").hidden = !last.report;
  $("dagster").hidden = false;
  $("dagster").href = link(last.dagster)?.href ?? "/";
  if (last.report) {
    extend(last.report);
    if (history) history.begin = begin();
    alerts();
    platform();
    tables();
  }
}
async function ask(path) {
  const response = await fetch(path, { signal: AbortSignal.timeout(PATIENCE_MS), cache: "no-store" });
  if (response.ok) return response.json();
  const failure = await response.json();
  if (response.status === 401) $("login").hidden = false;
  if (path === SLA) trouble = failure.error.message;
  return null;
}
async function loadHistory() {
  if (historyAt && performance.now() - historyAt < (history ? RELOAD_MS : 10_000)) return;
  historyAt = performance.now();
  history = (await ask(`/v1/sla/history?minutes=${HISTORY_MINUTES}`)) ?? history;
}
async function refresh() {
  try {
    const answer = await ask(SLA);
    unanswered = 0;
    if (answer) {
      [last, lastAt, trouble] = [answer, performance.now(), ""];
      // Lines are worth less than figures: they are asked for again.
      if (answer.server.redis) await loadHistory().catch((error) => console.info(error));
      show();
    }
  } catch (error) {
    if (!(error instanceof TypeError || error instanceof DOMException)) throw error;
    unanswered ||= performance.now();
  } finally {
    notes();
  }
}
// The server keeps the key in a cookie that no script can read.
async function logIn(event) {
  event.preventDefault();
  const response = await fetch("/login", { method: "POST", headers: { authorization: "Bearer " + $("key").value.trim() } });
  const answer = await response.json();
  $("refused").textContent = answer.error?.message ?? "";
  if (answer.error) return;
  $("key").value = "";
  refresh();
}
async function run() {
  try {
    if (!document.hidden) await refresh();
  } finally {
    setTimeout(run, POLL_MS);
  }
}
$("login").addEventListener("submit", logIn);
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
const redraw = () => { for (const entry of entries.values()) for (const chart of entry.charts ?? []) chart.plot?.redraw(); };
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
addEventListener("resize", () => { for (const entry of entries.values()) if (!entry.details.hidden) for (const chart of entry.charts) chart.update(); });
setInterval(notes, 1000);
run();
