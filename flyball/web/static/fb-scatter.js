// <fb-scatter>: runs as points of two values, coloured by a third.
//
// {"runs": [{"name", "href"}], "x": axis, "y": axis, "colour"?: axis}; axis: see fb-axis.js.
import { FbChart, element, svg, tipLine } from "./fb-chart.js";
import { cut, places, scaleOf, shade, tableOfAxes, textOf } from "./fb-axis.js";

const LEFT = 64;
const BOTTOM = 40;

class FbScatter extends FbChart {
  isEmpty(data) { return !data.x || !data.y || !data.runs.some((_, at) => data.x.values[at] !== null && data.y.values[at] !== null); }

  draw(stage, data, width) {
    const height = this.plotHeight;
    const x = scaleOf(data.x, LEFT, width - 14, 0.04);
    const y = scaleOf(data.y, height - BOTTOM, 12, 0.04);
    const picture = svg("svg", { width, height, class: "fb-values" });
    for (const at of places(data.y, height / 50)) {
      picture.append(svg("line", { x1: LEFT, x2: width - 14, y1: y(at), y2: y(at), class: "grid" }));
      picture.append(svg("text", { x: LEFT - 6, y: y(at) + 3, "text-anchor": "end" }, cut(textOf(data.y, at), 10)));
    }
    for (const at of places(data.x, width / 90)) {
      picture.append(svg("text", { x: x(at), y: height - 24, "text-anchor": "middle" }, cut(textOf(data.x, at), 14)));
    }
    picture.append(svg("line", { x1: LEFT, x2: width - 14, y1: height - BOTTOM, y2: height - BOTTOM, class: "axis" }));
    picture.append(svg("text", { x: width - 14, y: height - 8, "text-anchor": "end", class: "name" }, data.x.label));
    const share = data.colour && scaleOf(data.colour, 0, 1);
    const axes = [data.x, data.y, ...(data.colour ? [data.colour] : [])];
    data.runs.forEach((run, at) => {
      const [across, up] = [data.x.values[at], data.y.values[at]];
      if (across === null || up === null) return;
      const point = svg("circle", { cx: x(across), cy: y(up), r: 5, class: "point" });
      point.style.fill = share ? shade(data.colour.values[at] === null ? null : share(data.colour.values[at])) : `var(--arm-${at % 8})`;
      const link = svg("a", { href: run.href, "aria-label": run.name }, point);
      link.addEventListener("pointerenter", (event) => {
        const host = this.getBoundingClientRect();
        const said = axes.map((axis) => tipLine(cut(axis.label, 40), textOf(axis, axis.values[at])));
        this.tip([element("div", { className: "fb-tip-head", textContent: run.name }), ...said], event.clientX - host.left, event.clientY - host.top);
      });
      link.addEventListener("pointerleave", () => this.tip(null));
      picture.append(link);
    });
    stage.append(picture);
  }

  tableOf(data) { return tableOfAxes(data.runs, [data.x, data.y, ...(data.colour ? [data.colour] : [])]); }
}

customElements.define("fb-scatter", FbScatter);
