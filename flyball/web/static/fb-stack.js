// <fb-stack>: how traffic was split over time: the data of <fb-line> with shares (0 to 1) as ys, piled up to the whole.
//
// {"xs": [seconds], "series": [{"name": "late@1", "arm": 0, "ys": [1, 0.95, …]}], "events": […]}
// A share holds until the next instant, so the edges are steps.
import { FbLine } from "./fb-line.js";
import { percent } from "./fb-format.js";

class FbStack extends FbLine {
  get stepped() { return true; }
  valueText(value) { return percent(value); }
  axisTexts(at) { return at.map((value) => (value === null ? "" : `${Math.round(value * 100)} %`)); }

  prepare(data) {
    const total = data.xs.map(() => 0);
    const series = data.series.map((one) => {
      one.ys.forEach((share, at) => { total[at] += share ?? 0; });
      return { ...one, ys: [...total], edge: "--surface" };
    });
    const piles = series.map((one, at) => [at, at ? at - 1 : null, one.arm ?? 7]);
    return { ...data, series, piles, range: [0, 1] };
  }

  /** The middle of what the series holds at the end; nowhere when it holds nothing. */
  nameHeight(u, data, position, shown) {
    const upper = u.data[shown[position]].at(-1);
    const lower = position ? u.data[shown[position - 1]].at(-1) : 0;
    return upper - lower < 0.005 ? null : u.valToPos((upper + lower) / 2, "y", true);
  }
}

customElements.define("fb-stack", FbStack);
