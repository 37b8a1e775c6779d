// Live pages: listens to the server's changes and tells the page, which asks for its live sections again.
//
// The body names the stream (`data-changes="/api/changes"`). Each message is JSON {"refs": ["run/41f3", …]} (or nothing);
// the body then gets `fb:changed` and, for each kind among the references, `fb:changed:run`. A live section is
//   <section id="now" hx-get="/" hx-select="#now" hx-swap="outerMorph" hx-trigger="fb:changed from:body">
// (the macro `live` writes it). A broken stream says so beside the search box and is opened again, then everything is
// asked for once more, since changes may have been missed: the body gets `fb:everything`. The same when the stream's first
// event, `now`, gives a newer number than the page was made at (`data-seen`). What the journal does not tell, requests
// and a run's metrics, is asked for every few seconds where the page has an element with `data-tick="run"` (the kind).

const SETTLE_MS = 250; // changes come in bursts; one question answers them all
const HIDDEN_MS = 30_000; // a hidden tab gives its connection back: HTTP/1.1 browsers have six a host
const TICK_MS = 4_000;
const RETRY_MS = [1_000, 2_000, 5_000, 10_000, 30_000];

const url = document.body.dataset.changes;
const sign = document.getElementById("connection");
let stream = null;
let failures = 0;
let retry = 0;
let hiding = 0;
let settling = 0;
let seen = Number(document.body.dataset.seen);
const kinds = new Set();

/** Whether an update now would move what the reader holds: a pressed pointer, marked text, an open dialog. */
let pressed = false;
addEventListener("pointerdown", () => { pressed = true; });
for (const name of ["pointerup", "pointercancel", "blur"]) addEventListener(name, () => { pressed = false; });
const isHeld = () => pressed || !getSelection().isCollapsed || document.querySelector("dialog[open]") !== null;

function tell() {
  if (isHeld()) {
    settling = setTimeout(tell, SETTLE_MS);
    return;
  }
  settling = 0;
  const changed = [...kinds];
  kinds.clear();
  document.body.dispatchEvent(new CustomEvent("fb:changed", { detail: { kinds: changed } }));
  if (!changed.length) document.body.dispatchEvent(new CustomEvent("fb:everything"));
  for (const kind of changed) document.body.dispatchEvent(new CustomEvent(`fb:changed:${kind}`));
}

function changed(refs) {
  for (const ref of refs) kinds.add(ref.split("/", 1)[0]);
  settling ||= setTimeout(tell, SETTLE_MS);
}

function say(state) {
  if (!sign) return;
  sign.dataset.state = state;
  sign.hidden = state === "live";
  sign.textContent = state === "live" ? "" : "connection lost, trying again";
}

function open() {
  clearTimeout(retry);
  stream?.close();
  stream = new EventSource(url);
  stream.onopen = () => {
    if (failures) changed([]);
    failures = 0;
    say("live");
  };
  stream.addEventListener("now", (message) => {
    if (seen && Number(message.data) > seen) changed([]);
    seen = Number(message.data);
  });
  stream.onmessage = (message) => {
    let refs = [];
    try {
      refs = JSON.parse(message.data).refs ?? [];
    } catch {
      // A bare "something changed" is a message too.
    }
    changed(refs);
  };
  stream.onerror = () => {
    stream.close();
    say("lost");
    retry = setTimeout(open, RETRY_MS[Math.min(failures, RETRY_MS.length - 1)]);
    failures += 1;
  };
}

if (url) {
  open();
  setInterval(() => {
    const ticking = document.hidden ? null : document.querySelector("[data-tick]");
    if (ticking) changed([`${ticking.dataset.tick}/`]);
  }, TICK_MS);
  addEventListener("pagehide", () => { clearTimeout(retry); stream?.close(); });
  addEventListener("pageshow", (event) => event.persisted && open());
  document.addEventListener("visibilitychange", () => {
    clearTimeout(hiding);
    if (document.hidden) {
      hiding = setTimeout(() => { clearTimeout(retry); stream?.close(); stream = null; }, HIDDEN_MS);
    } else if (stream === null) {
      failures = 1;
      open();
    }
  });
}
