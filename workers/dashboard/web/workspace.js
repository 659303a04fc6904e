// One workspace: what runs and waits, what was applied last, whether it has drifted, and its history.

import { get, name, root } from "./api.js";
import { el, keep, panel, row, table } from "./dom.js";
import { live } from "./live.js";
import { briefTable, changes, facts } from "./parts.js";
import { kind, linked, moment, poolLink, runLink, since, status } from "./words.js";

const content = document.getElementById("content");
const path = `/workspaces/${encodeURIComponent(name)}/overview`;

live(async () => {
  const found = await get(path);
  const { workspace, problem, lock, unsaved_state: unsaved, unfinished, last_applied: applied, drift, recent } = found;
  const parts = [
    ["problem", problem, () => warning(problem)],
    ["lock", lock, () => warning(`Locked by ${lock.by ?? "somebody"} since ${moment(lock.at)}`, lock.message)],
    ["unsaved", unsaved, () => warning(unsaved)],
    ["facts", [workspace, applied, drift, found.outcomes], () => facts(about(found))],
    ["unfinished", unfinished, () => unfinishedPanel(unfinished)],
    ["recent", recent, () => recentPanel(found)],
  ];
  const nothing = { problem, lock, unsaved };
  keep(content, parts.filter(([part]) => !(part in nothing) || nothing[part]));
}, () => true);

function warning(words, more) {
  return el("div", { class: "alert alert-warning" }, words, more && `: ${more}`);
}

function about({ workspace, last_applied: applied, drift, outcomes }) {
  const tally = Object.entries(outcomes).map(([outcome, count]) => el("div", {}, status(outcome), ` ${count}`));
  return [
    ["Last applied", applied ? [runLink(applied.run_id), el("div", { class: "quiet" }, since(applied.finished_at), " ago",
      applied.actor && `, asked by ${applied.actor}`)] : "never"],
    ["Drift", driftWords(drift)],
    ["Latest runs", tally.length ? tally : null],
    ["Pool", workspace && poolLink(workspace.pool)],
    ["Source", workspace && source(workspace.source)],
    ["Program", workspace?.terraform],
    ["Confirmation", workspace && (workspace.auto_apply ? "none: plans are applied at once" : approval(workspace.approval))],
    ["Variables", workspace && Object.keys(workspace.variables).join(", ")],
    ["Sensitive variables", workspace?.sensitive.join(", ")],
  ];
}

function driftWords(drift) {
  if (drift === null) return "not known: no plan since the last apply";
  const found = drift.drifted ? `${drift.drifted} changed outside of Terraform` : "state and configuration differ";
  return [drift.differs || drift.drifted ? el("span", { class: "state-apply_pending" }, "▲ ", found) : "✓ none",
    el("div", { class: "quiet" }, "plan ", runLink(drift.run_id), " ", since(drift.at), " ago"), changes(drift.changes, false)];
}

function source({ type, ...facts }) {
  const words = Object.entries(facts).filter(([, value]) => value !== null && value !== false && value !== "")
    .map(([fact, value]) => el("div", {}, `${fact}: `, el("span", { class: "mono" }, String(value))));
  return [type, words];
}

function approval({ four_eyes: others, count, names = [] }) {
  return [others && "another person than the one who asked", count > 1 && `${count} people`,
    names?.length && `of ${names.join(", ")}`].filter(Boolean).join(", ") || "a person";
}

function unfinishedPanel(runs) {
  if (runs.length === 0) return panel("Now", el("p", { class: "quiet" }, "Nothing runs or waits."));
  const made = table("Runs that go on", ["Run", "Status", "Kind", "By", "Since"]);
  keep(made.body, runs.map((run) => [run.run_id, run, () => row(
    [runLink(run.run_id), run.message && el("div", { class: "quiet" }, run.message)],
    [status(run.status), run.waiting && el("div", { class: "quiet" }, linked(run.waiting))],
    kind(run.kind), run.actor ?? "", since(run.created_at))]));
  return panel("Now", made.box);
}

function recentPanel({ name: workspace, recent }) {
  return panel("History", briefTable("Runs of the workspace, the newest first", recent),
    el("p", {}, el("a", { href: `${root}/runs?workspace=${encodeURIComponent(workspace)}` }, "All its runs")));
}
