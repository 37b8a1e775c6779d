// A card about whatever a reference names, after the pointer or the focus has rested on it: the fragment at /card?ref=….

const REST_MS = 350;
const known = new Map(); // one question a reference and page
let card = null;
let timer = 0;
let over = null;

async function fragment(ref) {
  if (!known.has(ref)) {
    const answer = fetch(`/card?ref=${encodeURIComponent(ref)}`, { headers: { Accept: "text/html" } })
      .then((response) => (response.ok ? response.text() : ""))
      .catch(() => "");
    known.set(ref, answer);
  }
  return known.get(ref);
}

async function show(link) {
  const html = await fragment(link.dataset.ref);
  if (!html || over !== link || !link.isConnected) return;
  card ??= document.body.appendChild(Object.assign(document.createElement("div"), { className: "hover-card", popover: "manual" }));
  card.innerHTML = html;
  document.dispatchEvent(new CustomEvent("htmx:after:swap")); // its <time>s are told too
  card.showPopover();
  const at = link.getBoundingClientRect();
  const size = card.getBoundingClientRect();
  const below = at.bottom + 6 + size.height < innerHeight;
  card.style.left = `${Math.max(8, Math.min(at.left, innerWidth - size.width - 8))}px`;
  card.style.top = `${below ? at.bottom + 6 : at.top - size.height - 6}px`;
}

function hide() {
  clearTimeout(timer);
  over = null;
  if (card?.matches(":popover-open")) card.hidePopover();
}

function rest(event) {
  const link = event.target.closest?.("[data-ref]");
  if (link === over) return;
  hide();
  if (!link) return;
  over = link;
  timer = setTimeout(() => show(link), REST_MS);
}

document.addEventListener("pointerover", (event) => event.pointerType === "mouse" && rest(event));
document.addEventListener("focusin", (event) => event.target.matches(":focus-visible") && rest(event));
document.addEventListener("focusout", hide);
document.addEventListener("scroll", hide, { passive: true, capture: true });
document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
document.body.addEventListener("fb:changed", () => known.clear());
