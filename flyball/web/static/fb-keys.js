// The keyboard: `/` searches, `g` and a letter goes, `j` `k` move, Enter opens, `x` selects, `a` all of them, `c` compares, `?` lists them.

let pending = ""; // "g" for a second after it was pressed
let timer = 0;

const isTyping = (target) => target.matches?.("input:not([type=checkbox]), textarea, select, [contenteditable]");
const rows = () => [...document.querySelectorAll("main table.rows > tbody > tr")].filter((row) => row.offsetParent);
const current = () => document.querySelector("main tr[data-current]");

function move(step) {
  const all = rows();
  if (!all.length) return;
  const at = all.indexOf(current());
  const next = all[Math.min(Math.max(at + step, 0), all.length - 1)];
  if (at >= 0) all[at].removeAttribute("data-current");
  next.setAttribute("data-current", "");
  next.scrollIntoView({ block: "nearest" });
  // Focus goes along, so that a screen reader reads the row and Tab goes on from there.
  const focusable = next.querySelector("a, input, button");
  focusable?.focus({ preventScroll: true });
}

const KEYS = {
  "/": () => document.querySelector(".search input")?.focus(),
  "?": () => document.getElementById("keys")?.showModal(),
  j: () => move(1),
  k: () => move(-1),
  x: () => current()?.querySelector("input[type=checkbox]")?.click(),
  a: () => {
    const boxes = rows().map((row) => row.querySelector("td.pick input[type=checkbox]")).filter(Boolean);
    const wanted = !boxes.every((box) => box.checked);
    for (const box of boxes) box.checked = wanted;
  },
  c: () => document.querySelector("form[data-compare]")?.requestSubmit(),
  Enter: () => current()?.querySelector("a[href]")?.click(),
  g: () => {
    pending = "g";
    clearTimeout(timer);
    timer = setTimeout(() => { pending = ""; }, 1000);
  },
};

// What only the buttons beside Compare need does not go into the comparison's address.
let sender = null;
document.addEventListener("submit", (event) => { sender = event.submitter; });
document.addEventListener("formdata", (event) => {
  if (!event.target.matches("form[data-compare]") || sender?.hasAttribute("formaction")) return;
  for (const name of ["back", "tag"]) event.formData.delete(name);
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && event.target.matches?.(".tagging input")) {
    event.preventDefault();
    event.target.nextElementSibling.click();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  if (event.key === "Escape" && event.target.closest?.(".search")) {
    document.getElementById("search-results")?.replaceChildren();
    event.target.blur();
    return;
  }
  if (isTyping(event.target) || document.querySelector("dialog[open]")) return;
  // Enter on a link, button or summary already means something.
  if (event.key === "Enter" && event.target !== document.body) return;
  if (pending === "g") {
    pending = "";
    const link = document.querySelector(`.nav a[data-key="${CSS.escape(event.key)}"]`);
    if (link) {
      event.preventDefault();
      link.click();
    }
    return;
  }
  const act = Object.hasOwn(KEYS, event.key) && KEYS[event.key];
  if (act) {
    event.preventDefault();
    act();
  }
});
