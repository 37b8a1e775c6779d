// <fb-line>: curves over time or steps, with intervals as bands, thresholds as lines and events as marks.
//
// {"x": "time" | "step", "unit": "auc", "zero": false, "log": false,
//  "series": [{"name": "late@2", "arm": 0, "xs": [seconds or steps], "ys": [number | null], "low": […], "high": […], "dash": true}],
//  "lines": [{"at": 0.66, "label": "at least 0.66"}],
//  "events": [{"at": seconds or step, "label": "late@2 promoted", "reason": "auc 0.712 …", "tone": "ok", "href": "/…"}]}
// A chart with `resample` asks again for the stretch that is zoomed to (`from`, `to`), so that it shows what was left out.
// `xName` is what the tip calls a place of "step". `xs` may stand beside `series` where all share it. `arm` is the colour: 0 is the champion's. Drag zooms, a double click
// shows everything again.
import { FbChart, colour, element, legend, loadPlot, tipLine } from "./fb-chart.js";
import { minute, number } from "./fb-format.js";

const FONT_PX = 11;
const LEGEND_MOST = 24; // series; of more the tip names those that are near
const TIP_MOST = 12;
const FAMILY = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif';
const TIMES = [
  [31536000, "{YYYY}", null, null, null, null, null, null, 1],
  [2419200, "{MMM}", "\n{YYYY}", null, null, null, null, null, 1],
  [86400, "{D} {MMM}", "\n{YYYY}", null, null, null, null, null, 1],
  [60, "{HH}:{mm}", "\n{D} {MMM} {YYYY}", null, "\n{D} {MMM}", null, null, null, 1],
  [1, "{HH}:{mm}:{ss}", "\n{D} {MMM} {YYYY}", null, "\n{D} {MMM}", null, null, null, 1],
  [0.001, ":{ss}.{fff}", "\n{D} {MMM} {YYYY}", null, "\n{D} {MMM}", null, "\n{HH}:{mm}", null, 1],
];

export class FbLine extends FbChart {
  #zoom = null;

  get address() {
    const src = this.getAttribute("src");
    if (!this.hasAttribute("resample") || !this.#zoom) return src;
    return `${src}${src.includes("?") ? "&" : "?"}${new URLSearchParams({ from: this.#zoom[0], to: this.#zoom[1] })}`;
  }

  isEmpty(data) { return !data.series?.some((one) => one.ys.length); }

  /** What is drawn for a series: its ys as they are. <fb-stack> piles them up instead. */
  prepare(data) { return data; }
  valueText(value) { return number(value); }
  get stepped() { return false; }

  draw(stage, given, width) {
    let plot = null;
    let gone = false;
    stage.style.minHeight = `${this.plotHeight}px`;
    loadPlot().then((uPlot) => {
      if (!gone) plot = this.#plot(uPlot, stage, this.prepare(given), given, width);
    });
    return () => {
      gone = true;
      plot?.destroy();
    };
  }

  #plot(uPlot, stage, data, given, width) {
    const probe = (name, alpha) => colour(this, name, alpha);
    const isTime = (data.x ?? "time") === "time";
    const font = `${FONT_PX}px ${FAMILY}`;
    const columns = data.series.map((one) => [one.xs ?? data.xs, one.ys, one.low ?? null, one.high ?? null]);
    const tables = columns.map(([xs, ...ys]) => [xs, ...ys.filter(Boolean)]);
    const shared = data.series.every((one) => !one.xs);
    const table = shared ? [data.xs, ...tables.flatMap((one) => one.slice(1))] : uPlot.join(tables);
    const paths = this.stepped ? uPlot.paths.stepped({ align: 1 }) : undefined;
    const series = [{}];
    const bands = [];
    const shown = []; // series number of each curve
    data.series.forEach((one) => {
      const hue = `--arm-${one.arm ?? 7}`;
      shown.push(series.length);
      series.push({
        label: one.name, stroke: probe(one.edge ?? hue), width: 1.75, dash: one.dash ? [5, 4] : undefined, paths,
        points: { show: one.ys.length < 40 && !this.stepped, size: 4, fill: probe("--surface"), width: 1.25 },
        spanGaps: !shared,
      });
      if (one.low && one.high) {
        series.push({ label: "low", width: 0, points: { show: false }, paths, spanGaps: !shared });
        series.push({ label: "high", width: 0, points: { show: false }, paths, spanGaps: !shared });
        bands.push({ series: [series.length - 1, series.length - 2], fill: probe(hue, 0.16) });
      }
    });
    for (const [upper, lower, arm] of data.piles ?? []) {
      const fill = probe(`--arm-${arm}`, 0.55);
      if (lower === null) series[shown[upper]].fill = fill;
      else bands.push({ series: [shown[upper], shown[lower]], fill });
    }

    const measure = element("canvas").getContext("2d");
    measure.font = font;
    const isDirect = width >= 520 && data.series.length <= 7;
    const longest = Math.max(...data.series.map((one) => measure.measureText(one.name).width));
    const right = isDirect ? Math.min(longest + 14, 150) : 12;
    const marks = data.events ?? [];
    const axis = { stroke: probe("--muted"), font, ticks: { show: false }, grid: { stroke: probe("--grid"), width: 1 } };
    if (!isDirect && given.series.length <= LEGEND_MOST) stage.append(legend(given.series));
    const plot = new uPlot({
      width, height: this.plotHeight, padding: [marks.length ? 20 : 10, right, 0, 0], legend: { show: false },
      scales: { x: { time: isTime, ...(this.#zoom && { auto: false, min: this.#zoom[0], max: this.#zoom[1] }) }, y: { range: this.#range(data), distr: data.log ? 3 : 1 } },
      axes: [
        { ...axis, grid: { show: false }, values: isTime ? TIMES : (_, at) => at.map((v) => number(v)), size: isTime ? 36 : 24, gap: 6, space: 70 },
        { ...axis, values: (_, at) => (data.log ? at.map((v) => (v === null ? "" : number(v))) : this.axisTexts(at)), size: 46, gap: 6, space: 34 },
      ],
      series, bands,
      cursor: { y: false, points: { size: 7 }, drag: { x: true, y: false, setScale: true } },
      hooks: {
        draw: [(u) => this.#marks(u, data, marks, probe, font, isDirect, shown)],
        setCursor: [(u) => this.#point(u, given, marks, shown, isTime)],
        setScale: [(u, key) => this.#keep(u, key)],
      },
    }, table, stage);
    plot.over.addEventListener("pointerleave", () => this.tip(null));
    plot.over.addEventListener("dblclick", () => {
      if (!this.hasAttribute("resample") || !this.#zoom) return;
      this.#zoom = null;
      this.refetch();
    });
    return plot;
  }

  /** Words for the ticks of y (null where none fits), all with as many decimals as their step needs. */
  axisTexts(at) {
    const known = at.filter((value) => value !== null);
    const step = known.length > 1 ? known[1] - known[0] : 1;
    const decimals = step < 1 ? Math.min(Math.ceil(-Math.log10(step) - 1e-9) + (isRound(step) ? 0 : 1), 12) : 0;
    return at.map((value) => (value === null ? "" : axisText(value, step, decimals)));
  }

  #keep(u, key) {
    if (key !== "x" || !u.data[0].length) return;
    const { min, max } = u.scales.x;
    const xs = u.data[0];
    if (this.hasAttribute("resample")) {
      const isAsBefore = this.#zoom ? min === this.#zoom[0] && max === this.#zoom[1] : min <= xs[0] && max >= xs.at(-1);
      if (isAsBefore || (this.#zoom && min <= xs[0] && max >= xs.at(-1))) return; // drawn anew, or all of what is there
      this.#zoom = [min, max];
      this.refetch();
      return;
    }
    this.#zoom = min > xs[0] || max < xs.at(-1) ? [min, max] : null;
  }

  #range(data) {
    if (data.range) return data.range;
    return (u, low, high) => {
      if (low === null) return [0, 1];
      const levels = (data.lines ?? []).map((line) => line.at);
      const least = Math.min(low, ...levels, ...(data.zero ? [0] : []));
      const most = Math.max(high, ...levels);
      if (data.log) return [least, most];
      const margin = (most - least || Math.abs(most) || 1) * 0.06;
      return [data.zero && least === 0 ? 0 : least - margin, most + margin];
    };
  }

  /** Thresholds, events and the names at the curves' ends. */
  #marks(u, data, marks, probe, font, isDirect, shown) {
    const { ctx } = u;
    const ratio = devicePixelRatio;
    const { left, top, width, height } = u.bbox;
    ctx.save();
    ctx.font = font.replace(`${FONT_PX}px`, `${FONT_PX * ratio}px`);
    ctx.lineWidth = ratio;
    for (const line of data.lines ?? []) {
      const y = u.valToPos(line.at, "y", true);
      if (y < top || y > top + height) continue;
      stroke(ctx, probe("--bad"), [4 * ratio, 4 * ratio], left, y, left + width, y);
      ctx.fillStyle = probe("--bad");
      ctx.textAlign = "left";
      ctx.textBaseline = "bottom";
      ctx.fillText(line.label ?? number(line.at), left + 4 * ratio, y - 2 * ratio);
    }
    for (const mark of marks) {
      const x = u.valToPos(mark.at, "x", true);
      if (x < left || x > left + width) continue;
      const hue = probe(`--${mark.tone ?? "muted"}`);
      stroke(ctx, hue, [2 * ratio, 3 * ratio], x, top - 6 * ratio, x, top + height);
      ctx.fillStyle = hue;
      ctx.beginPath();
      ctx.arc(x, top - 8 * ratio, 3.5 * ratio, 0, 2 * Math.PI);
      ctx.fill();
    }
    if (isDirect) this.#names(u, ctx, data, probe, ratio, shown);
    ctx.restore();
  }

  #names(u, ctx, data, probe, ratio, shown) {
    const ends = data.series.map((one, position) => ({ name: one.name, arm: one.arm ?? 7, y: this.nameHeight(u, data, position, shown) }));
    const edge = u.bbox.left + u.bbox.width;
    ends.forEach((end, position) => {
      const column = u.data[shown[position]];
      const last = column.findLastIndex((value) => value !== null && value !== undefined);
      const x = last < 0 ? edge : u.valToPos(u.data[0][last], "x", true);
      // A curve that stops early has its name there, unless another curve runs through it; the others share the margin.
      const until = x + ctx.measureText(end.name).width + 12 * ratio;
      end.isEarly = until < edge && !shown.some((other) => other !== shown[position] && this.#passes(u, other, x, until, end.y, ratio));
      end.x = end.isEarly ? x + 6 * ratio : edge + 8 * ratio;
    });
    const inMargin = ends.filter((end) => end.y !== null && !end.isEarly).sort((a, b) => a.y - b.y);
    const gap = 13 * ratio;
    inMargin.forEach((end, at) => { if (at) end.y = Math.max(end.y, inMargin[at - 1].y + gap); });
    const over = inMargin.length ? Math.max(inMargin.at(-1).y - (u.bbox.top + u.bbox.height), 0) : 0;
    for (const end of inMargin) end.y -= over;
    ctx.textAlign = "left";
    ctx.textBaseline = "middle";
    for (const end of ends.filter((one) => one.y !== null)) {
      ctx.fillStyle = probe(`--arm-${end.arm}`);
      ctx.fillText(end.name, end.x, end.y);
    }
  }

  /** Whether a series comes near height y anywhere between two places. */
  #passes(u, number, from, until, y, ratio) {
    return u.data[number].some((value, at) => {
      const x = u.valToPos(u.data[0][at], "x", true);
      return x >= from && x <= until && value !== null && value !== undefined && Math.abs(u.valToPos(value, "y", true) - y) < 9 * ratio;
    });
  }

  /** Canvas height of a series' name: where its last value is; null while it has none. */
  nameHeight(u, data, position, shown) {
    const last = u.data[shown[position]].findLast((value) => value !== null && value !== undefined);
    return last === undefined ? null : u.valToPos(last, "y", true);
  }

  #point(u, given, marks, shown, isTime) {
    const { idx, left, top } = u.cursor;
    if (idx === null || idx === undefined || left < 0) {
      this.tip(null);
      return;
    }
    const near = marks.filter((mark) => Math.abs(u.valToPos(mark.at, "x") - left) < 7);
    const at = u.data[0][idx];
    const lines = [element("div", { className: "fb-tip-head", textContent: isTime ? minute(at) : `${given.xName ?? "step"} ${number(at)}` })];
    for (const mark of near) {
      lines.push(element("div", { className: `fb-tip-event tone-${mark.tone ?? "off"}`, textContent: mark.label }));
      if (mark.reason) lines.push(element("div", { className: "fb-tip-why", textContent: mark.reason }));
    }
    const there = given.series.map((one) => ({ one, position: one.xs ? one.xs.indexOf(at) : idx }))
      .filter(({ one, position }) => position >= 0 && one.ys[position] !== null && one.ys[position] !== undefined);
    const level = u.posToVal(top, "y");
    const named = there.length <= TIP_MOST ? there : there
      .sort((a, b) => Math.abs(a.one.ys[a.position] - level) - Math.abs(b.one.ys[b.position] - level)).slice(0, TIP_MOST)
      .sort((a, b) => b.one.ys[b.position] - a.one.ys[a.position]);
    named.forEach(({ one, position }) => {
      const value = one.ys[position];
      const range = one.low ? ` [${this.valueText(one.low[position])}, ${this.valueText(one.high[position])}]` : "";
      lines.push(tipLine(one.name, this.valueText(value) + range, one.arm ?? 7));
    });
    if (named.length < there.length) lines.push(element("div", { className: "fb-tip-why", textContent: `nearest ${named.length} of ${there.length}` }));
    const offset = u.over.getBoundingClientRect();
    const host = this.getBoundingClientRect();
    this.tip(lines, left + offset.left - host.left, top + offset.top - host.top);
  }

  tableOf(data) {
    const isTime = (data.x ?? "time") === "time";
    const rows = new Map();
    data.series.forEach((one, position) => (one.xs ?? data.xs).forEach((x, at) => {
      if (!rows.has(x)) rows.set(x, data.series.map(() => null));
      const range = one.low && one.low[at] !== null ? ` [${this.valueText(one.low[at])}, ${this.valueText(one.high[at])}]` : "";
      rows.get(x)[position] = one.ys[at] === null ? null : this.valueText(one.ys[at]) + range;
    }));
    const columns = [{ label: isTime ? "time" : data.xName ?? "step" }, ...data.series.map((one) => ({ label: one.name, number: true }))];
    const lines = [...rows].sort(([a], [b]) => a - b).map(([x, cells]) => [isTime ? minute(x) : number(x), ...cells]);
    if (data.events?.length) {
      columns.push({ label: "event" });
      const starts = [...rows.keys()].sort((a, b) => a - b);
      for (const event of data.events) {
        const at = Math.max(starts.findLastIndex((x) => x <= event.at), 0);
        const said = event.reason ? `${event.label}: ${event.reason}` : event.label;
        lines[at].said = lines[at].said ? `${lines[at].said}; ${said}` : said;
      }
      for (const line of lines) line.push(line.said ?? "");
    }
    return { columns, rows: lines };
  }
}

/** Whether a step is 1, 2 or 5 times a power of ten; 2.5 needs one decimal more. */
function isRound(step) {
  return Math.abs(step / 10 ** Math.floor(Math.log10(step) + 1e-9) - 2.5) > 1e-6;
}

function axisText(value, step, decimals) {
  if (step < 1e-4) return number(value);
  return value.toLocaleString("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals }).replace("-", "−");
}

function stroke(ctx, hue, dash, fromX, fromY, toX, toY) {
  ctx.strokeStyle = hue;
  ctx.setLineDash(dash);
  ctx.beginPath();
  ctx.moveTo(fromX, fromY);
  ctx.lineTo(toX, toY);
  ctx.stroke();
  ctx.setLineDash([]);
}

if (!customElements.get("fb-line")) customElements.define("fb-line", FbLine);
