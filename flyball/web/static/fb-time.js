// Puts every <time> into the reader's zone: relative times stay true while the page is open, the exact one is the title.
import { exact, minute, relative } from "./fb-format.js";

function tell(root = document) {
  for (const element of root.querySelectorAll("time[datetime]")) {
    const date = new Date(element.dateTime);
    if (Number.isNaN(date.getTime())) continue;
    const text = element.dataset.time === "exact" ? minute(date.getTime() / 1000) : relative(date);
    if (element.textContent !== text) element.textContent = text;
    const title = exact(date);
    if (element.title !== title) element.title = title;
  }
}

tell();
document.addEventListener("htmx:after:swap", () => tell());
setInterval(() => document.hidden || tell(), 10_000);
document.addEventListener("visibilitychange", () => document.hidden || tell());
