// What all charts share: where the data comes from, when to draw again, the tip under the pointer, the table behind.
//
//   <fb-line label="AUC of deployment/late"><script type="application/json">{…}</script></fb-line>
//   <fb-line label="…" src="/api/…" height="260"></fb-line>      fetched, and again on `fb:changed`
//
// A subclass gives `draw(stage, data, width)`, which may return a function that takes the drawing away, and
// `tableOf(data)`, which returns {columns: [{label, number}], rows: [[…]]}. Attributes: `label` (what a screen reader
// says and the table is called), `height` in pixels, `src`.

export const TABLE_LIMIT = 1000; // rows that the table shows; the rest is in the data's own address

export class FbChart extends HTMLElement {
  #stage = null;
  #foot = null;
  #tip = null;
  #text = null;
  #data = null;
  #width = 0;
  #undraw = null;
  #seen = null;
  #sizes = null;
  #redraw = () => this.#paint();
  #refetch = () => this.refetch();

  connectedCallback() {
    this.#stage ??= element("div", { className: "fb-stage", role: "img" });
    this.#stage.ariaLabel = this.getAttribute("label") ?? "chart";
    this.#tip ??= element("div", { className: "fb-tip", hidden: true });
    this.#foot ??= this.#table();
    this.#attach();
    // A morph of the page around takes away what the script has added and may change the data: put back, look again.
    this.#seen = new MutationObserver(() => this.#attach());
    this.#seen.observe(this, { childList: true });
    const script = this.querySelector(":scope > script");
    if (script) this.#seen.observe(script, { childList: true, characterData: true, subtree: true });
    this.#sizes = new ResizeObserver(([entry]) => {
      const width = Math.floor(entry.contentRect.width);
      if (width && width !== this.#width) {
        this.#width = width;
        this.#paint();
      }
    });
    this.#sizes.observe(this);
    document.addEventListener("fb:theme", this.#redraw);
    if (this.hasAttribute("src")) {
      document.body.addEventListener("fb:changed", this.#refetch);
      this.#fetch();
    }
  }

  disconnectedCallback() {
    this.#seen?.disconnect();
    this.#sizes?.disconnect();
    document.removeEventListener("fb:theme", this.#redraw);
    document.body.removeEventListener("fb:changed", this.#refetch);
    this.#undraw?.();
    this.#undraw = null;
    this.#width = 0;
  }

  /** Where the data is; a subclass may ask for a part of it. */
  get address() { return this.getAttribute("src"); }
  refetch() { this.#fetch(); }

  get data() { return this.#data; }
  get plotHeight() { return Number(this.getAttribute("height")) || 220; }

  /** Show `content` (nodes) beside the point (x, y) of the stage; with nothing, hide. */
  tip(content, x = 0, y = 0) {
    this.#tip.hidden = !content;
    if (!content) return;
    this.#tip.replaceChildren(...content);
    const width = this.#tip.offsetWidth;
    const left = x + 14 + width > this.#width ? x - width - 14 : x + 14;
    this.#tip.style.left = `${Math.max(0, Math.min(left, this.#width - width))}px`;
    this.#tip.style.top = `${Math.max(0, y - 8)}px`;
  }

  #attach() {
    for (const part of [this.#stage, this.#tip, this.#foot]) if (part.parentNode !== this) this.append(part);
    const text = this.querySelector(":scope > script[type='application/json']")?.textContent ?? null;
    if (text === null || text === this.#text) return;
    this.#text = text;
    try {
      this.#take(JSON.parse(text));
    } catch (error) {
      this.#say(`The data of this chart cannot be read: ${error.message}`);
    }
  }

  async #fetch() {
    if (document.hidden && this.#data) return;
    try {
      const answer = await fetch(this.address, { headers: { Accept: "application/json" } });
      if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
      const text = await answer.text();
      if (text === this.#text) return;
      this.#text = text;
      this.#take(JSON.parse(text));
    } catch (error) {
      if (!this.#data) this.#say(`The data of this chart did not come: ${error.message}.`);
    }
  }

  #take(data) {
    this.#data = data;
    this.#paint();
    this.#foot.hidden = this.isEmpty(data);
    if (this.#foot.open) this.#fill();
  }

  /** Whether there is nothing to draw; subclasses know. */
  isEmpty() { return false; }

  #paint() {
    if (!this.#data || !this.#width) return;
    this.#undraw?.();
    this.#undraw = null;
    this.tip(null);
    if (this.isEmpty(this.#data)) {
      this.#say(this.#data.empty ?? "No data yet.");
      return;
    }
    this.#stage.replaceChildren();
    this.#undraw = this.draw(this.#stage, this.#data, this.#width) ?? null;
  }

  #say(text) {
    this.#stage.replaceChildren(element("p", { className: "fb-said", textContent: text }));
  }

  #table() {
    const details = element("details", { className: "fb-table", hidden: true });
    details.append(element("summary", { textContent: "Table" }));
    details.addEventListener("toggle", () => details.open && this.#fill());
    return details;
  }

  #fill() {
    const { columns, rows } = this.tableOf(this.#data);
    const table = element("table", { className: "plain" });
    const left_out = rows.length - TABLE_LIMIT;
    const caption = this.getAttribute("label") + (left_out > 0 ? `: the first ${TABLE_LIMIT} of ${rows.length} rows` : "");
    table.append(element("caption", { textContent: caption }));
    const head = table.createTHead().insertRow();
    for (const column of columns) {
      head.append(element("th", { scope: "col", textContent: column.label, className: column.number ? "num" : "" }));
    }
    const body = table.createTBody();
    for (const row of rows.slice(0, TABLE_LIMIT)) {
      const line = body.insertRow();
      row.forEach((cell, position) => {
        const box = line.insertCell();
        box.append(cell ?? "–");
        if (columns[position].number) box.className = "num";
      });
    }
    const scroll = element("div", { className: "scroll", tabIndex: 0 });
    scroll.append(table);
    this.#foot.replaceChildren(this.#foot.firstElementChild, scroll);
  }
}

/** A new element with properties. */
export function element(name, properties = {}) {
  return Object.assign(document.createElement(name), properties);
}

/** A new SVG element with attributes. */
export function svg(name, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

/** The colour that a custom property has here and now, as a canvas understands it. */
export function colour(host, name, alpha = 1) {
  const probe = host.appendChild(element("i", { hidden: true }));
  probe.style.color = alpha === 1 ? `var(${name})` : `color-mix(in srgb, var(${name}) ${alpha * 100}%, transparent)`;
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

/** The line of a tip: a swatch in the arm's colour, a name, a value. */
export function tipLine(name, value, arm = null) {
  const line = element("div", { className: "fb-tip-line" });
  if (arm !== null) line.append(element("i", { className: `swatch arm-${arm}` }));
  line.append(element("span", { textContent: name }), element("b", { textContent: value }));
  return line;
}

/** A legend: swatch and name for each series. */
export function legend(series) {
  const list = element("div", { className: "fb-legend" });
  for (const one of series) {
    const item = element("span");
    item.append(element("i", { className: `swatch arm-${one.arm ?? 7}` }), one.name);
    list.append(item);
  }
  return list;
}

/** Round numbers that divide [low, high] into about `wanted` steps. */
export function ticks(low, high, wanted) {
  const rough = (high - low) / Math.max(wanted, 1) || 1;
  const size = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * size).find((candidate) => candidate >= rough);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-9; at += step) found.push(Number(at.toPrecision(12)));
  return found;
}

let loading = null;
/** uPlot, loaded once; it is a classic script that leaves a global. */
export function loadPlot() {
  loading ??= new Promise((resolve, reject) => {
    const script = element("script", { src: new URL("./vendor/uplot.iife.min.js", import.meta.url).href });
    script.onload = () => resolve(globalThis.uPlot);
    script.onerror = () => reject(new Error("uPlot did not load"));
    document.head.append(script);
  });
  return loading;
}
