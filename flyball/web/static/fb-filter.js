// <fb-filter>: the filter of the runs, completed as one types: prefixes, keys with how many runs have them, values.
//
// What the server answers for the text before the caret (/runs/complete) stands below the field; arrows choose, Tab or
// Enter takes, Escape closes. Without a choice Enter sends the form as ever.
import { element } from "./fb-chart.js";

const SETTLE_MS = 120;

class FbFilter extends HTMLElement {
  #list = null;
  #from = 0;
  #at = -1;
  #timer = 0;
  #asked = 0;

  connectedCallback() {
    const input = this.input;
    if (!input || this.#list) return;
    this.#list = element("ul", { className: "completions", hidden: true, role: "listbox", id: "filter-completions" });
    this.#list.ariaLabel = "Completions";
    input.setAttribute("role", "combobox");
    input.setAttribute("aria-controls", this.#list.id);
    input.ariaExpanded = "false";
    input.ariaAutoComplete = "list";
    this.append(this.#list);
    input.addEventListener("input", () => this.#soon());
    input.addEventListener("focus", () => this.#soon());
    input.addEventListener("blur", () => setTimeout(() => this.#close(), 150));
    input.addEventListener("keydown", (event) => this.#key(event));
    this.#list.addEventListener("pointerdown", (event) => {
      const item = event.target.closest("li");
      if (!item) return;
      event.preventDefault();
      this.#take(item);
    });
  }

  get input() { return this.querySelector("input"); }

  #soon() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#ask(), SETTLE_MS);
  }

  async #ask() {
    const input = this.input;
    const number = ++this.#asked;
    const asked = new URLSearchParams({ text: input.value.slice(0, input.selectionStart) });
    for (const one of this.closest("form").querySelectorAll("[name=experiment]")) if (one.value) asked.append("experiment", one.value);
    try {
      const answer = await fetch(`/runs/complete?${asked}`);
      if (!answer.ok || number !== this.#asked || document.activeElement !== input) return;
      const { from, items } = await answer.json();
      this.#show(from, items);
    } catch {
      this.#close(); // completion is a help; the filter works without it
    }
  }

  #show(from, items) {
    this.#from = from;
    this.#at = -1;
    this.#list.replaceChildren(...items.map((one, place) => {
      const item = element("li", { role: "option", id: `completion-${place}` });
      item.dataset.text = one.text;
      item.append(element("span", { textContent: one.text }), element("small", { textContent: one.note }));
      return item;
    }));
    this.#list.hidden = !items.length;
    this.input.ariaExpanded = String(items.length > 0);
  }

  #close() {
    this.#asked += 1;
    this.#list.hidden = true;
    this.input.ariaExpanded = "false";
    this.input.removeAttribute("aria-activedescendant");
  }

  #key(event) {
    if (this.#list.hidden) return;
    const items = [...this.#list.children];
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      const step = event.key === "ArrowDown" ? 1 : -1;
      this.#at = (this.#at + step + items.length) % items.length;
      items.forEach((item, place) => { item.ariaSelected = String(place === this.#at); });
      items[this.#at].scrollIntoView({ block: "nearest" });
      this.input.setAttribute("aria-activedescendant", items[this.#at].id);
    } else if ((event.key === "Enter" || event.key === "Tab") && this.#at >= 0) {
      event.preventDefault();
      this.#take(items[this.#at]);
    } else if (event.key === "Escape") {
      event.preventDefault();
      this.#close();
    }
  }

  #take(item) {
    const input = this.input;
    const behind = input.value.slice(input.selectionStart);
    const before = input.value.slice(0, this.#from) + item.dataset.text;
    input.value = before + behind;
    input.setSelectionRange(before.length, before.length);
    input.focus();
    this.#close();
    this.#soon();
  }
}

customElements.define("fb-filter", FbFilter);
