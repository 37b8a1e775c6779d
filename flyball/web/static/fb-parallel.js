// <fb-parallel>: runs as lines across axes, coloured by one of them; a drag along an axis keeps those that pass there.
//
// {"runs": [{"name", "href"}], "axes": [axis], "colour": number of an axis}; axis: see fb-axis.js.
import { FbChart, element, svg, tipLine } from "./fb-chart.js";
import { cut, places, scaleOf, shade, tableOfAxes, textOf } from "./fb-axis.js";

const TOP = 44;
const LEAST = 96; // pixels between two axes; a narrow page scrolls

class FbParallel extends FbChart {
  #kept = new Map(); // number of the axis → [low, high] in pixels

  isEmpty(data) { return !data.axes?.length || !data.runs.length; }

  draw(stage, data, given) {
    const height = this.plotHeight;
    const side = Math.min(70, given / 8);
    const width = Math.max(given, data.axes.length * LEAST);
    const x = (at) => side + ((width - 2 * side) * at) / Math.max(data.axes.length - 1, 1);
    const ys = data.axes.map((axis) => scaleOf(axis, height - 20, TOP, 0.02));
    const picture = svg("svg", { width, height, class: "fb-values" });
    const axis = data.axes[data.colour];
    const share = scaleOf(axis, 0, 1);
    const lines = data.runs.map((run, number) => {
      let path = "";
      let isDown = false;
      data.axes.forEach((one, at) => {
        const value = one.values[number];
        if (value === null) { isDown = false; return; }
        path += `${isDown ? "L" : "M"}${x(at).toFixed(1)} ${ys[at](value).toFixed(1)}`;
        isDown = true;
      });
      const line = svg("path", { d: path, class: "line" });
      line.style.stroke = shade(axis.values[number] === null ? null : share(axis.values[number]));
      return line;
    });
    const hits = lines.map((line, number) => {
      const hit = svg("path", { d: line.getAttribute("d"), class: "hit" });
      hit.addEventListener("pointermove", (event) => this.#point(event, data, number, lines));
      hit.addEventListener("pointerleave", () => { this.tip(null); lines[number].classList.remove("near"); });
      hit.addEventListener("click", () => { location.href = data.runs[number].href; });
      return hit;
    });
    picture.append(...lines, ...hits);
    const keep = () => {
      lines.forEach((line, number) => {
        const isIn = [...this.#kept].every(([at, [low, high]]) => {
          const value = data.axes[at].values[number];
          return value !== null && ys[at](value) >= low && ys[at](value) <= high;
        });
        line.classList.toggle("out", !isIn);
        hits[number].classList.toggle("out", !isIn);
      });
    };
    data.axes.forEach((one, at) => {
      const group = svg("g", {}, svg("line", { x1: x(at), x2: x(at), y1: TOP, y2: height - 20, class: "axis" }));
      const anchor = at === 0 && side < 60 ? "start" : "middle";
      const place = anchor === "start" ? 2 : x(at);
      group.append(svg("text", { x: place, y: at % 2 ? 28 : 14, "text-anchor": anchor, class: "name" }, svg("title", {}, one.label), cut(one.label.replace(/^(metrics|params|tags)\./, ""), 22)));
      for (const value of places(one, one.words ? 14 : 6)) {
        group.append(svg("text", { x: x(at) + 5, y: ys[at](value) + 3 }, cut(textOf(one, value), 14)));
      }
      const box = svg("rect", { x: x(at) - 7, width: 14, y: 0, height: 0, class: "kept" });
      const area = svg("rect", { x: x(at) - 9, width: 18, y: TOP - 6, height: height - TOP - 8, class: "brush" });
      const show = () => {
        const range = this.#kept.get(at);
        box.setAttribute("y", range ? range[0] : 0);
        box.setAttribute("height", range ? range[1] - range[0] : 0);
        keep();
      };
      area.addEventListener("pointerdown", (event) => {
        const from = event.clientY - picture.getBoundingClientRect().top;
        area.setPointerCapture(event.pointerId);
        const move = (moved) => {
          const to = moved.clientY - picture.getBoundingClientRect().top;
          this.#kept.set(at, [Math.min(from, to), Math.max(from, to)]);
          show();
        };
        const end = () => {
          area.removeEventListener("pointermove", move);
          const range = this.#kept.get(at);
          if (range && range[1] - range[0] < 3) this.#kept.delete(at);
          show();
        };
        area.addEventListener("pointermove", move);
        area.addEventListener("pointerup", end, { once: true });
        area.addEventListener("pointercancel", end, { once: true });
      });
      area.addEventListener("dblclick", () => { this.#kept.delete(at); show(); });
      group.append(box, area);
      picture.append(group);
      show();
    });
    const scroll = element("div", { className: "scroll" });
    scroll.append(picture);
    stage.append(scroll);
  }

  #point(event, data, number, lines) {
    lines[number].classList.add("near");
    const host = this.getBoundingClientRect();
    const said = data.axes.map((one) => tipLine(cut(one.label, 40), textOf(one, one.values[number])));
    this.tip([element("div", { className: "fb-tip-head", textContent: data.runs[number].name }), ...said], event.clientX - host.left, event.clientY - host.top);
  }

  tableOf(data) { return tableOfAxes(data.runs, data.axes); }
}

customElements.define("fb-parallel", FbParallel);
