// How figures read in charts: the same as flyball/web/formats.py writes them on the page.

export const MISSING = "–";

/** A number with three significant digits; whole numbers keep all of theirs. */
export function number(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return MISSING;
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (Number.isInteger(value)) return value.toLocaleString("en-US").replace("-", "−");
  if (Math.abs(value) < 1e-4) return value.toExponential(2).replace(/^-/, "−");
  const decimals = digits - 1 - Math.floor(Math.log10(Math.abs(Number(value.toPrecision(digits)))));
  const rounded = decimals < 0 ? Math.round(value / 10 ** -decimals) * 10 ** -decimals : value;
  const shown = Math.max(decimals, 0);
  return rounded
    .toLocaleString("en-US", { minimumFractionDigits: shown, maximumFractionDigits: shown })
    .replace("-", "−");
}

/** A number that a person has set, such as a threshold: as it was written, not padded to three digits. */
export const plain = (value) => String(Number(value.toPrecision(6))).replace("-", "−");

/** A share between 0 and 1: `70 %`, `33.3 %`, `0.041 %`. */
export const percent = (share) => (share === null ? MISSING : `${plain(Number((share * 100).toPrecision(3)))} %`);

const INSTANT = new Intl.DateTimeFormat(undefined, {
  year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit",
  hourCycle: "h23", timeZoneName: "short",
});
const MINUTE = new Intl.DateTimeFormat(undefined, {
  month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23",
});

/** The exact instant in the reader's zone. */
export const exact = (date) => INSTANT.format(date);

/** Day and minute in the reader's zone, from seconds since 1970. */
export const minute = (seconds) => MINUTE.format(new Date(seconds * 1000));

/** How long ago a date is, or how soon. */
export function relative(date, now = Date.now()) {
  const seconds = (now - date.getTime()) / 1000;
  const span = Math.abs(seconds);
  if (span < 10) return "just now";
  const [size, unit] = [[31556952, "y"], [5259492, "mo"], [86400, "d"], [3600, "h"], [60, "min"], [1, "s"]].find(([size]) => span >= size);
  // Two months and more are counted in months, so that the threshold is not the unit.
  const text = `${Math.floor(span / (unit === "mo" ? size / 2 : size))} ${unit}`;
  return seconds > 0 ? `${text} ago` : `in ${text}`;
}
