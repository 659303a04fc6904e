// Parts that several pages show.

import { el, keep, row, table } from "./dom.js";
import { kind, runLink, since, status, took } from "./words.js";

/** Return what a plan changes in few signs, with a mark where it destroys. */
export function changes({ add, change, destroy }, destroys) {
  if (add === null) return "";
  return [el("span", { class: "text-nowrap" }, `+${add} ~${change} −${destroy}`),
    destroys && el("div", { class: "destroys" }, "▲ destroys")];
}

/** Return a list of facts: `[label, value]`; those without a value are left out. */
export function facts(list) {
  return el("dl", { class: "facts" }, list.filter(([, value]) => value)
    .map(([label, value]) => el("div", {}, el("dt", {}, label), el("dd", {}, value))));
}

/** Return a table of a workspace's runs, the newest first. */
export function briefTable(label, runs) {
  const { box, body } = table(label, ["Run", "Status", "Kind", "Changes", "By", "Asked", "Took", "Message"]);
  keep(body, runs.map((run) => [run.run_id, run, () => row(
    runLink(run.run_id), status(run.status), kind(run.kind), changes(run.changes, run.destroys > 0), run.actor ?? "",
    [since(run.created_at), " ago"], lasted(run), run.message ?? "")]));
  return box;
}

/** Return how long a run took from its request to its end; nothing while it goes on. */
export function lasted({ created_at: created, finished_at: finished }) {
  return finished ? took((Date.parse(finished) - Date.parse(created)) / 1000) : "";
}
