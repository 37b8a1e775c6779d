// <fb-columns>: chooses columns among any number of keys: a search box over a list of which only what is seen is there.
//
// The keys come a page at a time from /runs/keys, those in view and no others; what is ticked becomes a box of the form
// around (`col`), so that the address holds it.
import { element } from "./fb-chart.js";

const ROW = 26; // pixels, as the stylesheet has it
const PAGE = 200; // keys an answer holds
const SETTLE_MS = 150;

class FbColumns extends HTMLElement {
  #pages = new Map();
  #total = 0;
  #words = "";
  #timer = 0;
  #round = 0;

  connectedCallback() {
    if (this.#timer || this.querySelector(".keys-list")) return;
    this.search = element("input", { className: "field", type: "search", placeholder: "Search keys", autocomplete: "off", spellcheck: false });
    this.search.ariaLabel = "Search keys";
    this.note = element("small", { className: "muted" });
    this.note.role = "status";
    this.list = element("div", { className: "keys-list", tabIndex: 0, role: "group" });
    this.list.ariaLabel = "Keys";
    this.space = this.list.appendChild(element("div", { className: "keys-space" }));
    this.chosen = this.querySelector(".chosen");
    this.chosen.after(this.search, this.note, this.list);
    this.search.addEventListener("input", () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#start(this.search.value), SETTLE_MS);
    });
    this.search.addEventListener("keydown", (event) => event.key === "Enter" && event.preventDefault());
    this.list.addEventListener("scroll", () => this.#draw(), { passive: true });
    this.closest("details")?.addEventListener("toggle", (event) => {
      if (!event.target.open) return;
      this.search.focus();
      if (!this.#pages.size) this.#start("");
    });
  }

  #start(words) {
    this.#words = words;
    this.#pages.clear();
    this.#round += 1;
    this.list.scrollTop = 0;
    this.#page(0);
  }

  async #page(start) {
    if (this.#pages.has(start)) return;
    const round = this.#round;
    this.#pages.set(start, null);
    const asked = new URLSearchParams({ q: this.#words, start });
    for (const one of this.closest("form").querySelectorAll("[name=experiment]")) if (one.value) asked.append("experiment", one.value);
    try {
      const answer = await fetch(`/runs/keys?${asked}`);
      if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
      const { total, items } = await answer.json();
      if (round !== this.#round) return;
      this.#pages.set(start, items);
      this.#total = total;
      this.space.style.height = `${total * ROW}px`;
      this.note.textContent = `${total.toLocaleString("en-US")} ${total === 1 ? "key" : "keys"}`;
      this.#draw();
    } catch (error) {
      if (round !== this.#round) return;
      this.#pages.delete(start);
      this.note.textContent = `The keys did not come: ${error.message}.`;
    }
  }

  #draw() {
    const first = Math.max(Math.floor(this.list.scrollTop / ROW) - 4, 0);
    const last = Math.min(first + Math.ceil(this.list.clientHeight / ROW) + 8, this.#total);
    const shown = [];
    for (let at = first; at < last; at += 1) {
      const start = Math.floor(at / PAGE) * PAGE;
      const page = this.#pages.get(start);
      if (page === undefined) this.#page(start);
      if (!page?.[at - start]) continue;
      const [name, count] = page[at - start];
      const box = element("input", { type: "checkbox", checked: this.#boxOf(name) !== undefined });
      box.addEventListener("change", () => this.#choose(name, box.checked));
      const line = element("label", { title: name });
      line.style.top = `${at * ROW}px`;
      line.append(box, element("span", { textContent: name }), element("small", { textContent: count.toLocaleString("en-US") }));
      shown.push(line);
    }
    this.space.replaceChildren(...shown);
  }

  #boxOf(name) {
    return [...this.chosen.querySelectorAll("input")].find((box) => box.value === name && box.checked);
  }

  #choose(name, isChosen) {
    const there = [...this.chosen.querySelectorAll("input")].find((box) => box.value === name);
    if (!isChosen) {
      there?.parentElement.remove();
    } else if (there) {
      there.checked = true;
    } else {
      const line = element("label");
      line.append(element("input", { type: "checkbox", name: "col", value: name, checked: true }), ` ${name}`);
      this.chosen.append(line);
    }
  }
}

customElements.define("fb-columns", FbColumns);
