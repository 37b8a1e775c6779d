// Axes of values of runs, which <fb-parallel>, <fb-scatter> and <fb-box> share.
//
// An axis is {"label", "values": [number | null per run], "words"?: [text], "log"?: true}: with words a value is the place
// of one, with `log` it is drawn by its logarithm.
import { ticks } from "./fb-chart.js";
import { number } from "./fb-format.js";

/** [least, most] of what is known, apart. */
export function reach(values) {
  const known = values.filter((value) => value !== null);
  if (!known.length) return [0, 1];
  let [low, high] = [Math.min(...known), Math.max(...known)];
  if (low === high) [low, high] = [low - (Math.abs(low) || 1) * 0.5, high + (Math.abs(high) || 1) * 0.5];
  return [low, high];
}

/** The scale of an axis: from its values to places between two. */
export function scaleOf(axis, from, to, room = 0) {
  if (!axis.log) return scale(reach(axis.values), from, to, room);
  const inner = scale(reach(axis.values.map((value) => (value === null ? null : Math.log10(value)))), from, to, room);
  return (value) => inner(Math.log10(value));
}

/** A function from a value to a place between two, with some room at both ends. */
export function scale([low, high], from, to, room = 0) {
  const margin = (high - low) * room;
  return (value) => from + ((value - low + margin) / (high - low + 2 * margin)) * (to - from);
}

export const textOf = (axis, value) => (value === null || value === undefined ? "–" : axis.words ? axis.words[value] : number(value));

/** Where an axis has ticks: values. */
export function places(axis, wanted) {
  const [low, high] = reach(axis.values);
  if (axis.log) {
    const first = Math.ceil(Math.log10(low) - 1e-9);
    return Array.from({ length: Math.max(Math.floor(Math.log10(high) + 1e-9) - first + 1, 0) }, (_, at) => Number((10 ** (first + at)).toPrecision(3)));
  }
  if (!axis.words) return ticks(low, high, wanted).filter((at) => at >= low && at <= high);
  const every = Math.ceil(axis.words.length / Math.max(wanted, 1));
  return axis.words.map((_, at) => at).filter((at) => at % every === 0);
}

export const cut = (text, most) => (text.length > most ? `${text.slice(0, Math.max(most - 1, 1))}…` : text);

/** The colour of a share from 0 to 1: from one arm's to another's. */
export const shade = (share) => (share === null ? "var(--arm-7)" : `color-mix(in oklab, var(--arm-1) ${Math.round(share * 100)}%, var(--arm-0))`);

/** The rows of the table behind: a run and its value on each axis. */
export function tableOfAxes(runs, axes) {
  return {
    columns: [{ label: "run" }, ...axes.map((axis) => ({ label: axis.label, number: !axis.words }))],
    rows: runs.map((run, at) => [run.name, ...axes.map((axis) => textOf(axis, axis.values[at]))]),
  };
}
