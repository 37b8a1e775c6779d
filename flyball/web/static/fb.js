// The page's entry: frame, times, keys, live updates and hover cards at once; a chart's script when a page has its element.
import "./fb-frame.js";
import "./fb-time.js";
import "./fb-keys.js";
import "./fb-live.js";
import "./fb-card.js";

const ELEMENTS = ["fb-line", "fb-stack", "fb-hist", "fb-graph", "fb-filter", "fb-columns", "fb-parallel", "fb-scatter", "fb-box"];

function define(root) {
  for (const name of ELEMENTS) {
    if (!customElements.get(name) && root.querySelector?.(name)) import(`./${name}.js`);
  }
}

define(document);
document.addEventListener("htmx:after:swap", () => define(document));
