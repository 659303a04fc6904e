// Parts that several pages show.

import { root } from "./api.js";
import { el, keep, row, table } from "./dom.js";
import { kind, linked, runLink, since, status, took, workspaceLink } from "./words.js";

/** Return what a plan changes in few signs, with a mark where it destroys. */
export function changes({ add, change, destroy }, destroys) {
  if (add === null) return "";
  return [el("span", { class: "text-nowrap" }, `+${add} ~${change} −${destroy}`),
    destroys && el("div", { class: "destroys text-nowrap" }, "▲ destroys")];
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
    el("span", { class: "text-nowrap" }, since(run.created_at), " ago"), lasted(run), run.message ?? "")]));
  return box;
}

/** Return how long a run took from its request to its end; nothing while it goes on. */
export function lasted({ created_at: created, finished_at: finished }) {
  return finished && el("span", { class: "text-nowrap" }, took((Date.parse(finished) - Date.parse(created)) / 1000));
}

/** Return the table of the runs of a pool that lack nothing but a slot: its box, and what fills it. */
export function waitingTable(pool) {
  const { box, body } = table(`Runs of ${pool} that wait for a slot`, ["Run", "Workspace", "Kind", "Priority", "Waits"]);
  const all = el("a", { href: `${root}/runs?${new URLSearchParams({ pool, status: "pending" })}` }, "All runs that wait, for their workspace too");
  const none = el("span", {}, "No run waits for a slot. ");
  const fill = (runs) => {
    box.hidden = runs.length === 0;
    none.hidden = runs.length > 0;
    keep(body, runs.map((run) => [run.run_id, run, () => waitingRow(run)]));
  };
  return { element: el("div", {}, box, el("p", { class: "quiet" }, none, all)), fill };
}

function waitingRow(run) {
  return row(runLink(run.run_id), workspaceLink(run.workspace), kind(run.kind), String(run.priority),
    [since(run.created_at), el("div", { class: "quiet" }, linked(run.waiting))]);
}
