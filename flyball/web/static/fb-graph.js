// <fb-graph>: lineage as a picture, left to right, and the same as a list that the keyboard reaches.
//
// {"focus": "model/late@2",
//  "nodes": [{"id": "model/late@2", "label": "late@2", "kind": "model", "tone": "ok", "state": "serving", "href": "/models/late/2"}],
//  "edges": [{"from": "run/41f3", "to": "model/late@2", "label": "made"}]}
// The wheel zooms only with Ctrl (else the page could not be scrolled past), dragging moves, a click opens.
import { FbChart, colour, element } from "./fb-chart.js";

const FAMILY = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif';
const FONT_PX = 11;
const READABLE = 0.72; // of the size at which words are set: 8 px is the least that can be read
const MARKS = { ok: "●", busy: "◐", warn: "▲", bad: "◆", off: "○", unknown: "◌" };
// Cytoscape adds a <style> of its own unless it finds one by this id; the policy forbids it and flyball.css has the rule.
const STYLE_ID = "__________cytoscape_stylesheet";

class FbGraph extends FbChart {
  isEmpty(data) { return !data.nodes?.length; }
  get plotHeight() { return Number(this.getAttribute("height")) || 320; }

  draw(stage, data, width) {
    let graph = null;
    let gone = false;
    const box = element("div", { className: "fb-graph-box" });
    box.style.height = `${this.plotHeight}px`;
    const buttons = this.#buttons(() => graph);
    stage.append(box, buttons);
    libraries().then((cytoscape) => {
      if (!gone) graph = this.#graph(cytoscape, box, data, width);
    });
    return () => {
      gone = true;
      graph?.destroy();
    };
  }

  #graph(cytoscape, box, data, width) {
    const known = new Set(data.nodes.map((node) => node.id));
    const sizes = measurer();
    const nodes = data.nodes.map((node) => ({ data: { ...node, ...sizes(words(node)) }, classes: node.id === data.focus ? "focus" : "" }));
    const edges = data.edges.filter((edge) => known.has(edge.from) && known.has(edge.to));
    const graph = cytoscape({
      container: box,
      elements: [...nodes, ...edges.map((edge) => ({ data: { source: edge.from, target: edge.to, label: edge.label ?? "" } }))],
      style: this.#style(),
      layout: { name: "null" },
      minZoom: 0.1, maxZoom: 2, userZoomingEnabled: false, boxSelectionEnabled: false, autounselectify: true, autoungrabify: true,
    });
    this.#arrange(graph, box, width, data.focus);
    graph.on("tap", "node", (event) => { const { href } = event.target.data(); if (href) location.assign(href); });
    graph.on("mouseover", "node", (event) => { box.style.cursor = event.target.data("href") ? "pointer" : ""; this.#near(graph, event.target); });
    graph.on("mouseout", "node", () => { box.style.cursor = ""; graph.elements().removeClass("far"); });
    box.addEventListener("wheel", (event) => {
      if (!event.ctrlKey) return;
      event.preventDefault();
      const at = box.getBoundingClientRect();
      zoom(graph, event.deltaY < 0 ? 1.15 : 1 / 1.15, { x: event.clientX - at.left, y: event.clientY - at.top });
    }, { passive: false });
    return graph;
  }

  /**
   * Left to right, or downwards where that shows more (a phone); everything at once where it can be read, else what
   * is in question in the middle at a size that can. The box is no higher than what is in it.
   */
  #arrange(graph, box, width, focus) {
    const arranged = (rankDir) => {
      graph.layout({ name: "dagre", rankDir, nodeSep: 12, rankSep: rankDir === "LR" ? 44 : 34, fit: false, animate: false }).run();
      const { w, h } = graph.elements().boundingBox();
      const most = rankDir === "LR" ? this.plotHeight : this.plotHeight * 1.7;
      return { rankDir, h, most, level: Math.min(1, (width - 16) / w, (most - 16) / h) };
    };
    let found = arranged("LR");
    if (found.level < READABLE) {
      const down = arranged("TB");
      found = down.level > found.level ? down : arranged("LR");
    }
    const level = found.level < READABLE && focus ? 0.8 : found.level;
    box.style.height = `${Math.ceil(Math.min(found.most, Math.max(found.h * level + 20, 120)))}px`;
    graph.resize();
    graph.zoom(level);
    graph.center(level > found.level ? graph.getElementById(focus) : undefined);
  }

  #near(graph, node) {
    graph.elements().addClass("far");
    node.predecessors().union(node.successors()).union(node).removeClass("far");
  }

  #style() {
    const hue = (name, alpha) => colour(this, name, alpha);
    return [
      { selector: "node", style: {
        shape: "round-rectangle", label: "data(text)", "text-valign": "center", "text-halign": "center", "text-wrap": "wrap",
        "font-family": FAMILY, "font-size": FONT_PX, "line-height": 1.35, color: hue("--text"), width: "data(width)", height: "data(height)",
        "background-color": hue("--surface"), "border-width": 1, "border-color": hue("--line-strong"), "corner-radius": 6 } },
      ...["ok", "busy", "warn", "bad"].map((tone) => ({ selector: `node[tone = "${tone}"]`, style: { "border-color": hue(`--${tone}`) } })),
      { selector: "node.focus", style: { "border-width": 2, "border-color": hue("--accent"), "background-color": hue("--accent-soft"), "font-weight": 600 } },
      { selector: "edge", style: {
        width: 1.25, "line-color": hue("--line-strong"), "curve-style": "bezier", "target-arrow-shape": "triangle", "target-arrow-color": hue("--line-strong"),
        "arrow-scale": 0.8, label: "data(label)", "font-family": FAMILY, "font-size": 9.5, color: hue("--muted"),
        "text-background-color": hue("--surface"), "text-background-opacity": 1, "text-background-padding": 2 } },
      { selector: ".far", style: { opacity: 0.25 } },
    ];
  }

  #buttons(graph) {
    const bar = element("div", { className: "fb-graph-tools" });
    const add = (label, title, act) => {
      const button = element("button", { type: "button", textContent: label, title, ariaLabel: title });
      button.addEventListener("click", () => graph() && act(graph()));
      bar.append(button);
    };
    add("+", "Zoom in", (g) => zoom(g, 1.25));
    add("−", "Zoom out", (g) => zoom(g, 0.8));
    add("fit", "Show everything", (g) => g.fit(undefined, 12));
    return bar;
  }

  tableOf(data) {
    const byId = new Map(data.nodes.map((node) => [node.id, node]));
    const links = (ids) => {
      const box = element("span");
      ids.forEach(([id, label], at) => {
        if (at) box.append(", ");
        if (label) box.append(`${label} `);
        box.append(link(byId.get(id) ?? { id }));
      });
      return box.childNodes.length ? box : null;
    };
    const columns = [{ label: "what" }, { label: "kind" }, { label: "state" }, { label: "comes from" }, { label: "leads to" }];
    const rows = data.nodes.map((node) => [
      link(node), node.kind ?? null, node.state ?? null,
      links(data.edges.filter((edge) => edge.to === node.id).map((edge) => [edge.from, edge.label])),
      links(data.edges.filter((edge) => edge.from === node.id).map((edge) => [edge.to, ""])),
    ]);
    return { columns, rows };
  }
}

function words(node) {
  const mark = MARKS[node.tone] ?? "";
  const kind = node.kind && !node.label.startsWith(node.kind) ? node.kind : "";
  const second = [kind, node.state && `${mark} ${node.state}`.trim()].filter(Boolean).join("  ");
  return second ? `${node.label}\n${second}` : node.label;
}

/** What gives a text its node: the words, and the width and height that hold them. */
function measurer() {
  const ctx = element("canvas").getContext("2d");
  ctx.font = `600 ${FONT_PX}px ${FAMILY}`;
  return (text) => {
    const lines = text.split("\n");
    const width = Math.max(...lines.map((line) => ctx.measureText(line).width)) + 18;
    return { text, width, height: lines.length * FONT_PX * 1.35 + 12 };
  };
}

function link(node) {
  const text = node.label ?? node.id;
  return node.href ? element("a", { href: node.href, textContent: text, className: "ref" }) : text;
}

function zoom(graph, factor, at = { x: graph.width() / 2, y: graph.height() / 2 }) {
  graph.zoom({ level: graph.zoom() * factor, renderedPosition: at });
}

let loading = null;
function libraries() {
  if (!document.getElementById(STYLE_ID)) document.head.append(element("meta", { id: STYLE_ID }));
  loading ??= Promise.all([import("./vendor/cytoscape.esm.min.js"), import("./vendor/cytoscape-dagre.esm.min.js")]).then(
    ([{ default: cytoscape }, { default: dagre }]) => {
      cytoscape.use(dagre);
      return cytoscape;
    },
  );
  return loading;
}

customElements.define("fb-graph", FbGraph);
