// How values are written on every page.

import { now, root } from "./api.js";
import { el } from "./dom.js";

const STEPS = [[86_400, "d", 3_600, "h"], [3_600, "h", 60, "min"], [60, "min", 1, "s"]];

/** Return seconds as people write them: `42 s`, `3 min 5 s`, `2 d 4 h`. */
export function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  for (const [size, unit, part, small] of STEPS) {
    if (whole < size) continue;
    const rest = Math.floor((whole % size) / part);
    return rest ? `${Math.floor(whole / size)} ${unit} ${rest} ${small}` : `${Math.floor(whole / size)} ${unit}`;
  }
  return `${whole} s`;
}

/** Return how long something took that is over: `0.4 s` where whole seconds would say too little. */
export function took(seconds) {
  return seconds < 10 ? `${seconds.toFixed(1)} s` : duration(seconds);
}

/** Return the time since a moment, which goes on by itself; the moment itself is on hover. */
export function since(at) {
  const element = el("time", { datetime: at, title: moment(at), "data-since": Date.parse(at) });
  element.textContent = duration((now() - Date.parse(at)) / 1000);
  return element;
}

/** Return the time since something began to run, marked by a sign and a colour when it is long. */
export function age(at) {
  const element = since(at);
  element.dataset.age = old(now() - Date.parse(at));
  element.title += " (◑: over 15 min, ●: over 2 h)";
  return element;
}

function old(milliseconds) {
  if (milliseconds < 15 * 60_000) return "fresh";
  return milliseconds < 2 * 3_600_000 ? "long" : "old";
}

/** Return the time until a moment. */
export function until(at) {
  const element = el("time", { datetime: at, title: moment(at), "data-until": Date.parse(at) });
  element.textContent = duration((Date.parse(at) - now()) / 1000);
  return element;
}

/** Return a moment in the viewer's words and time zone. */
export function moment(at) {
  return new Date(at).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
}

window.setInterval(() => {
  if (document.hidden) return;
  for (const element of document.querySelectorAll("[data-since]")) {
    retext(element, duration((now() - element.dataset.since) / 1000));
    if (element.dataset.age) element.dataset.age = old(now() - element.dataset.since);
  }
  for (const element of document.querySelectorAll("[data-until]")) {
    retext(element, duration((element.dataset.until - now()) / 1000));
  }
}, 1000);

function retext(element, words) {
  if (element.textContent !== words) element.textContent = words;
}

// A state is told by its sign as well as by its colour.
const SIGNS = {
  pending: "◷", planning: "▷", apply_pending: "❚❚", applying: "▶", succeeded: "✓", failed: "✕", discarded: "⊘",
  expired: "◴", cancelled: "■",
};
/** All statuses of a run. */
export const STATUSES = Object.keys(SIGNS);
const EVENTS = {
  submitted: "asked for", dispatched: "given to an agent", planned: "planned, and waits for a person",
  planned_auto_apply: "approved in advance",
};
const RUN = /\b([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\b/;
const KINDS = { plan: "plan", plan_and_apply: "plan and apply" };
const STATES = { apply_pending: "waits for a person", pending: "waits" };

/** Return a run's status as a badge. */
export function status(value) {
  return el("span", { class: `badge-state state-${value}` },
    el("span", { "aria-hidden": "true" }, SIGNS[value] ?? "•"), ` ${STATES[value] ?? value}`);
}

/** Return what happened to a run in words. */
export function happening(event) {
  return EVENTS[event] ?? event.replaceAll("_", " ");
}

/** Return a run's kind in words. */
export function kind(value) {
  return KINDS[value] ?? value;
}

/** Return the link to a run; `words` stand for its id. */
export function runLink(id, words = id.slice(0, 8)) {
  return el("a", { href: `${root}/runs/${encodeURIComponent(id)}`, title: id }, words);
}

/** Return a sentence in which the ids of runs are links. */
export function linked(words) {
  return (words ?? "").split(RUN).map((part, place) => (place % 2 ? runLink(part) : part));
}

/** Return the link to what an agent does. */
export function agentLink(name) {
  return el("a", { href: `${root}/slots?text=${encodeURIComponent(name)}` }, name);
}

/** Return the link to a workspace. */
export function workspaceLink(name) {
  return el("a", { href: `${root}/workspaces/${encodeURIComponent(name)}` }, name);
}

/** Return the link to a pool. */
export function poolLink(name) {
  return el("a", { href: `${root}/pools/${encodeURIComponent(name)}` }, name);
}
