// The frame's own parts: the theme switch, the menu of a narrow screen, copy buttons, dialogs, search suggestions.

const THEMES = ["system", "light", "dark"];

function remembered() {
  try {
    return localStorage.getItem("fb-theme") ?? "system";
  } catch {
    return "system";
  }
}

function choose(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  try {
    if (theme === "system") localStorage.removeItem("fb-theme");
    else localStorage.setItem("fb-theme", theme);
  } catch {
    // Not remembered where storage is forbidden; the choice still holds for this page.
  }
  show(theme);
  document.dispatchEvent(new CustomEvent("fb:theme"));
}

function show(theme) {
  for (const button of document.querySelectorAll("[data-action=theme]")) {
    const label = `Theme: ${theme}`;
    button.title = button.ariaLabel = label;
    const use = button.querySelector("use");
    use.setAttribute("href", use.getAttribute("href").replace(/#.*/, `#${theme}`));
  }
}

const ACTIONS = {
  theme() {
    choose(THEMES[(THEMES.indexOf(remembered()) + 1) % THEMES.length]);
  },
  menu(button) {
    const open = document.documentElement.toggleAttribute("data-menu");
    button.ariaExpanded = String(open);
  },
  keys() {
    document.getElementById("keys")?.showModal();
  },
  close(button) {
    button.closest("dialog")?.close();
  },
  async copy(button) {
    const code = button.parentElement.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "copied";
    } catch {
      // No clipboard without a secure origin: select the text, so that one key finishes the work.
      getSelection().selectAllChildren(code);
      button.textContent = "press Ctrl C";
    }
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  },
};

document.addEventListener("click", (event) => {
  const button = event.target.closest?.("[data-action]");
  if (button) ACTIONS[button.dataset.action]?.(button);
  const results = document.getElementById("search-results");
  if (results && !event.target.closest?.(".search")) results.replaceChildren();
});

// A click on a dialog's backdrop has the dialog itself as its target.
document.addEventListener("click", (event) => {
  if (event.target instanceof HTMLDialogElement) event.target.close();
});

show(remembered());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  document.dispatchEvent(new CustomEvent("fb:theme"));
});
