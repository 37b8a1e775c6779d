// <fb-hist>: the reference and the live distribution of one feature as two outlines, the statistic written beside them.
// Without "live" it is the one distribution of a column, and needs no names.
//
// {"unit": "min", "edges": [n+1 numbers, or seconds with "x": "time"] or "categories": [n names],
//  "reference": [n counts], "live": [n counts] | null, "reference_name": "flights@11", "live_name": "last 1,800 requests",
//  "statistic": {"name": "W1", "value": 0.41, "threshold": 0.05, "verdict": "drifting", "tone": "warn"}}
// Counts become shares, so that windows of different size compare; each count may be a float.
import { FbChart, element, svg, ticks, tipLine } from "./fb-chart.js";
import { minute, number, percent, plain } from "./fb-format.js";

const FOOT_PX = 20;
const DAY_S = 86400;
const DAY = new Intl.DateTimeFormat(undefined, { year: "numeric", month: "short", day: "numeric", timeZone: "UTC" });

class FbHist extends FbChart {
  isEmpty(data) { return !sum(data.reference) && !sum(data.live); }
  get plotHeight() { return Number(this.getAttribute("height")) || 150; }

  draw(stage, data, width) {
    const height = this.plotHeight;
    const floor = height - FOOT_PX;
    const edges = data.edges ?? data.categories.map((_, at) => at).concat(data.categories.length);
    const [first, last] = [edges[0], edges.at(-1)];
    const x = (value) => 4 + ((value - first) / (last - first || 1)) * (width - 8);
    const parts = sides(data).filter((name) => sum(data[name]));
    const heights = Object.fromEntries(parts.map((name) => [name, densities(data[name], data.edges ? edges : null)]));
    const most = Math.max(...parts.flatMap((name) => heights[name]));
    const y = (value) => floor - (value / most) * (floor - 6);

    stage.append(...this.#words(data));
    const picture = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, class: "fb-hist" });
    picture.append(svg("line", { x1: 4, x2: width - 4, y1: floor + 0.5, y2: floor + 0.5, class: "axis" }));
    for (const name of parts) {
      const outline = heights[name].map((value, at) => `V${y(value).toFixed(1)}H${x(edges[at + 1]).toFixed(1)}`).join("");
      picture.append(svg("path", { d: `M${x(first)} ${floor}${outline}V${floor}`, class: name }));
    }
    picture.append(...(data.edges ? this.#numbers(data, x, first, last, width, height) : this.#names(data, x, width, height)));
    const bar = svg("rect", { y: 4, height: floor - 4, class: "hover", visibility: "hidden" });
    picture.prepend(bar);
    picture.addEventListener("pointermove", (event) => this.#point(event, picture, data, edges, x, bar));
    picture.addEventListener("pointerleave", () => { this.tip(null); bar.setAttribute("visibility", "hidden"); });
    stage.append(picture);
  }

  /** Whose outlines these are, and how far apart. */
  #words(data) {
    const head = element("div", { className: "fb-hist-head" });
    const names = element("div", { className: "fb-legend" });
    for (const name of data.live === undefined ? [] : sides(data)) {
      const item = element("span");
      item.append(element("i", { className: `outline ${name}` }), data[`${name}_name`] ?? name);
      if (!sum(data[name])) item.append(" (no rows)");
      names.append(item);
    }
    head.append(names);
    if (data.statistic) {
      const { name, value, threshold, verdict, tone } = data.statistic;
      const text = element("div", { className: "fb-statistic" });
      const isKnown = value !== null && threshold !== null && threshold !== undefined;
      const sign = isKnown ? ` ${value > threshold ? ">" : "≤"} ${plain(threshold)}` : "";
      text.append(element("span", { textContent: name }), element("b", { textContent: number(value) }), sign);
      if (verdict) text.append(element("span", { className: `state tone-${tone ?? "unknown"}`, textContent: verdict }));
      head.append(text);
    }
    return head.textContent ? [head] : [];
  }

  #numbers(data, x, first, last, width, height) {
    const isTime = data.x === "time";
    return (isTime ? days(first, last, width / 100) : ticks(first, last, width / 70)).map((at) => {
      const where = x(at);
      const anchor = where < 16 ? "start" : where > width - 16 ? "end" : "middle";
      return svg("text", { x: where, y: height - 5, "text-anchor": anchor }, isTime ? pointText(at, last - first) : number(at));
    });
  }

  #names(data, x, width, height) {
    const room = (width - 8) / data.categories.length;
    const every = Math.ceil(32 / room);
    return data.categories.flatMap((name, at) => {
      if (at % every) return [];
      const fits = Math.max(Math.floor((room * every) / 6.5), 2);
      const text = name.length > fits ? `${name.slice(0, fits - 1)}…` : name;
      return [svg("text", { x: x(at + 0.5), y: height - 5, "text-anchor": "middle" }, text)];
    });
  }

  #point(event, picture, data, edges, x, bar) {
    const box = picture.getBoundingClientRect();
    const at = edges.findLastIndex((edge) => x(edge) <= event.clientX - box.left);
    if (at < 0 || at >= edges.length - 1) return;
    bar.setAttribute("x", x(edges[at]));
    bar.setAttribute("width", x(edges[at + 1]) - x(edges[at]));
    bar.setAttribute("visibility", "visible");
    const lines = [element("div", { className: "fb-tip-head", textContent: binName(data, edges, at) })];
    for (const name of sides(data)) {
      if (sum(data[name])) lines.push(tipLine(data[`${name}_name`] ?? (data.live === undefined ? "share" : name), percent(data[name][at] / sum(data[name]))));
    }
    const host = this.getBoundingClientRect();
    this.tip(lines, event.clientX - host.left, event.clientY - host.top);
  }

  tableOf(data) {
    const edges = data.edges ?? data.categories;
    const bins = data.edges ? edges.length - 1 : edges.length;
    const columns = [{ label: data.unit ? `bin (${data.unit})` : "bin" }];
    for (const name of sides(data)) columns.push({ label: data[`${name}_name`] ?? (data.live === undefined ? "rows" : name), number: true }, { label: "share", number: true });
    const rows = Array.from({ length: bins }, (_, at) => [
      binName(data, edges, at),
      ...sides(data).flatMap((name) => (sum(data[name]) ? [number(data[name][at]), percent(data[name][at] / sum(data[name]))] : [null, null])),
    ]);
    return { columns, rows };
  }
}

const sides = (data) => (data.live === undefined ? ["reference"] : ["reference", "live"]);
const sum = (counts) => (counts ?? []).reduce((total, count) => total + count, 0);

/** Shares, divided by the bin's width where bins have one, so that areas compare. */
function densities(counts, edges) {
  const total = sum(counts);
  return counts.map((count, at) => count / total / (edges ? edges[at + 1] - edges[at] || 1 : 1));
}

function binName(data, edges, at) {
  if (!data.edges) return data.categories[at];
  if (data.x === "time") {
    const span = edges.at(-1) - edges[0];
    return `${pointText(edges[at], span)} to ${pointText(edges[at + 1], span)}`;
  }
  return `${number(edges[at])} to ${number(edges[at + 1])}${data.unit ? ` ${data.unit}` : ""}`;
}

/** Instants from first to last, as many as wanted, apart by the same span. */
function days(first, last, wanted) {
  const count = Math.max(Math.floor(wanted), 2);
  return Array.from({ length: count }, (_, at) => first + ((last - first) * at) / (count - 1));
}

/** A day, or a minute where all that is shown lies within a few days. */
const pointText = (seconds, span) => (span > 4 * DAY_S ? DAY.format(new Date(seconds * 1000)) : minute(seconds));

customElements.define("fb-hist", FbHist);
