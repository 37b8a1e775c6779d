// Sets the remembered theme before the first paint: the only script that is not deferred, and so as short as it can be.
// `fb-frame.js` holds the switch. Without a remembered choice the stylesheet follows the system.
try {
  const chosen = localStorage.getItem("fb-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // Storage may be forbidden by the browser's settings; the page then follows the system.
}
