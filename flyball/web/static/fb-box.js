// <fb-box>: a value's spread in groups of runs: the middle half as a box, its median, whiskers, every run as a point.
//
// {"label": "metrics.loss", "groups": [{"name", "values": [{"value", "name", "href"}]}]}
import { FbChart, element, svg, tipLine } from "./fb-chart.js";
import { number } from "./fb-format.js";
import { cut, places, reach, scale } from "./fb-axis.js";

const LEFT = 64;
const BOTTOM = 28;
const LEAST = 44; // pixels a group has; a narrow page scrolls

class FbBox extends FbChart {
  isEmpty(data) { return !data.groups?.length; }

  draw(stage, data, given) {
    const height = this.plotHeight;
    const width = Math.max(given, LEFT + 14 + data.groups.length * LEAST);
    const all = data.groups.flatMap((group) => group.values.map((one) => one.value));
    const y = scale(reach(all), height - BOTTOM, 12, 0.04);
    const picture = svg("svg", { width, height, class: "fb-values" });
    for (const at of places({ values: all }, height / 50)) {
      picture.append(svg("line", { x1: LEFT, x2: width - 14, y1: y(at), y2: y(at), class: "grid" }));
      picture.append(svg("text", { x: LEFT - 6, y: y(at) + 3, "text-anchor": "end" }, number(at)));
    }
    const room = (width - LEFT - 14) / data.groups.length;
    data.groups.forEach((group, at) => {
      const middle = LEFT + room * (at + 0.5);
      const half = Math.min(room * 0.3, 34);
      const five = summary(group.values.map((one) => one.value));
      const arm = `arm-${at % 8}`;
      picture.append(
        svg("line", { x1: middle, x2: middle, y1: y(five.low), y2: y(five.high), class: `whisker-line ${arm}` }),
        svg("rect", { x: middle - half, width: 2 * half, y: y(five.upper), height: Math.max(y(five.lower) - y(five.upper), 1), class: `box ${arm}` }),
        svg("line", { x1: middle - half, x2: middle + half, y1: y(five.median), y2: y(five.median), class: `median ${arm}` }),
        svg("text", { x: middle, y: height - 8, "text-anchor": "middle" }, svg("title", {}, group.name), cut(group.name, Math.max(Math.floor(room / 7), 3))),
      );
      group.values.forEach((one, place) => {
        const off = group.values.length === 1 ? 0 : ((place % 7) / 6 - 0.5) * half; // spread, the same each time
        const link = svg("a", { href: one.href, "aria-label": one.name }, svg("circle", { cx: middle + off, cy: y(one.value), r: 3, class: `point ${arm}` }));
        link.addEventListener("pointerenter", (event) => this.#say(event, group, one, five));
        link.addEventListener("pointerleave", () => this.tip(null));
        picture.append(link);
      });
    });
    const scroll = element("div", { className: "scroll" });
    scroll.append(picture);
    stage.append(scroll);
  }

  #say(event, group, one, five) {
    const host = this.getBoundingClientRect();
    this.tip([
      element("div", { className: "fb-tip-head", textContent: one.name }), tipLine(this.data.label, number(one.value)),
      tipLine(`median of ${group.name}`, number(five.median)), tipLine("runs", number(group.values.length)),
    ], event.clientX - host.left, event.clientY - host.top);
  }

  tableOf(data) {
    const columns = [{ label: "group" }, ...["runs", "least", "lower quarter", "median", "upper quarter", "most"].map((label) => ({ label, number: true }))];
    const rows = data.groups.map((group) => {
      const values = group.values.map((one) => one.value);
      const five = summary(values);
      return [group.name, number(values.length), ...[Math.min(...values), five.lower, five.median, five.upper, Math.max(...values)].map((value) => number(value))];
    });
    return { columns, rows };
  }
}

/** Quartiles by linear interpolation, and the last values within 1.5 boxes of the box. */
function summary(given) {
  const values = [...given].sort((a, b) => a - b);
  const at = (share) => {
    const place = (values.length - 1) * share;
    const below = Math.floor(place);
    return values[below] + ((values[below + 1] ?? values[below]) - values[below]) * (place - below);
  };
  const [lower, median, upper] = [at(0.25), at(0.5), at(0.75)];
  const reachOf = 1.5 * (upper - lower);
  return {
    lower, median, upper,
    low: values.find((value) => value >= lower - reachOf), high: values.findLast((value) => value <= upper + reachOf),
  };
}

customElements.define("fb-box", FbBox);
