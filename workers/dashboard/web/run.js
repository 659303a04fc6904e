// One run: what happened to it, what its plan changes, its log, and what can be decided about it.

import { get, name } from "./api.js";
import { decisions } from "./decide.js";
import { el, keep, panel, row, table } from "./dom.js";
import { live } from "./live.js";
import { logPanel } from "./log.js";
import { briefTable, facts } from "./parts.js";
import { planPanel } from "./plan.js";
import { progressPanel } from "./progress.js";
import { agentLink, happening, kind, linked, moment, poolLink, since, status, took, until, workspaceLink } from "./words.js";

const content = document.getElementById("content");
const path = `/runs/${encodeURIComponent(name)}`;
const log = logPanel(path);
const progress = progressPanel(path);
const history = table("What happened to the run", ["When", "Event", "By", "Says"]);
const events = panel("Events", history.box);

let waits = false;
const renew = live(async () => {
  const [details, happened] = await Promise.all([get(path), get(`${path}/events`)]);
  const { run } = details;
  const planned = run.changes.add === null ? null : (await get(`${path}/plan`)).plan;
  document.title = `${run.status} · ${run.workspace} · Terraslot`;
  show(details, planned);
  keep(history.body, happened.map((event, place) => [place, event, () => eventRow(event)]));
  log.follow(run);
  progress.follow(run);
  waits = run.status === "pending"; // then what it waits for changes with its pool
}, ({ runs, pools }) => runs.has(name) || (waits && pools.size > 0));

function show(details, planned) {
  const { run, failure, actions, timeline, previous } = details;
  const parts = [
    ["head", [run, confirmation(run, timeline)], () => head(details)],
    ["failure", failure, () => failurePanel(failure)],
    ["warnings", [details.rescued_state, details.state_lock, details.unsaved_state], () => warnings(details)],
    ["decisions", [run.run_id, run.attempt, actions, details.approval, details.destroys, run.changes],
      () => decisions(details, path, renew)],
    ["timeline", timeline, () => timelinePanel(timeline)],
    ["progress", "", () => progress.element],
    ["plan", planned, () => planPanel(planned, run)],
    ["outputs", [run.outputs, run.status], () => outputsPanel(run)],
    ["log", "", () => log.element],
    ["events", "", () => events],
    ["previous", previous, () => previousPanel(previous)],
  ];
  const nothing = { failure, plan: planned, outputs: Object.keys(run.outputs).length, previous: previous.length };
  keep(content, parts.filter(([part]) => !(part in nothing) || nothing[part]));
}

function head({ run, destroys, timeline }) {
  return el("section", { "aria-label": "The run" }, facts([
    ["Status", [status(run.status), run.waiting && el("div", { class: "quiet" }, linked(run.waiting))]],
    ["Workspace", workspaceLink(run.workspace)],
    ["Pool", poolLink(run.pool)],
    ["Kind", [kind(run.kind), run.destroy && el("div", { class: "destroys" }, "destroys everything")]],
    ["Asked by", [run.actor ?? "unknown", el("div", { class: "quiet" }, since(run.created_at), " ago")]],
    ["Message", run.message],
    ["Changes", run.changes.add === null ? null : plannedChanges(run.changes, destroys)],
    ["Confirmed by", confirmation(run, timeline)],
    ["Agent", run.agent && [run.finished_at === null ? agentLink(run.agent) : run.agent, `, slot ${run.slot}`]],
    ["Attempt", run.attempt > 1 && String(run.attempt)],
    ["Waits until", run.confirm_until && run.status === "apply_pending"
      && [moment(run.confirm_until), el("div", { class: "quiet" }, "in ", until(run.confirm_until))]],
    ["Program", run.program ?? run.terraform],
    ["Commit", run.commit && el("span", { class: "mono" }, run.commit)],
    ["Options", Object.keys(run.options).length ? el("code", {}, JSON.stringify(run.options)) : null],
  ]));
}

/** Return who has confirmed the plan, and why; nothing where nobody did. */
function confirmation(run, timeline) {
  const confirmed = timeline.findLast(({ stage }) => stage === "confirmation" || stage === "apply");
  if (confirmed?.stage !== "apply" || confirmed.attempt !== run.attempt) return null;
  const advance = confirmed.event === "planned_auto_apply" && ", in advance";
  return [[confirmed.actor ?? "somebody", advance].filter(Boolean).join(""), confirmed.why].filter(Boolean).join(": ");
}

function plannedChanges({ add, change, destroy }, destroys) {
  const words = `${add} to add, ${change} to change, ${destroy} to destroy`;
  return [words, destroys > 0 && el("div", { class: "destroys" }, `▲ destroys ${destroys} of what is there`)];
}

function failurePanel({ headline, text }) {
  return el("section", { class: "panel failure", "aria-label": "Why the run failed" },
    el("h2", { class: "panel-title" }, headline),
    text && text !== headline && el("pre", { class: "output", tabindex: "0" }, text));
}

function warnings({ rescued_state: rescued, state_lock: lock, unsaved_state: unsaved }) {
  const words = [
    rescued && `A state could not be saved (${rescued.size.toLocaleString()} bytes): `
      + (rescued.settled_as ?? (rescued.kept ? "it is kept here. See terraslot state rescued." : "it is on its agent.")),
    lock && `State lock ${lock.id}: ${lock.said}`,
    unsaved,
  ].filter(Boolean);
  return el("div", {}, words.map((word) => el("div", { class: "alert alert-warning" }, word)));
}

const STAGES = { queued: "Queued", plan: "Plan", confirmation: "Waits for a person", apply: "Apply", ended: "Ended" };

function timelinePanel(timeline) {
  const longest = Math.max(1, ...timeline.map((stage) => stage.seconds ?? 0));
  return panel("Timeline", el("ol", { class: "timeline" }, timeline.map((stage) => stageItem(stage, longest))));
}

function stageItem(stage, longest) {
  const open = stage.end === null && stage.stage !== "ended";
  const share = open ? 100 : Math.max(1, (100 * (stage.seconds ?? 0)) / longest);
  const where = stage.agent && `${stage.agent}, slot ${stage.slot}`;
  return el("li", { class: `stage stage-${stage.stage}`, "data-open": open },
    el("div", { class: "stage-name" }, STAGES[stage.stage] ?? stage.stage,
      stage.attempt > 1 && el("span", { class: "quiet" }, ` attempt ${stage.attempt}`)),
    el("div", { class: "stage-time" }, open ? since(stage.begin) : stage.stage !== "ended" && took(stage.seconds)),
    stage.stage !== "ended" && el("meter", { class: "stage-bar", min: 0, max: 100, value: share, "aria-hidden": "true" }),
    el("div", { class: "quiet" }, linked([moment(stage.begin), where, `${happening(stage.event)}${stage.actor ? ` by ${stage.actor}` : ""}`,
      stage.why, stage.waited_for && (open ? stage.waited_for : `waited for ${stage.waited_for}`)].filter(Boolean).join(" · "))));
}

function outputsPanel({ outputs, kind: asked, status: reached }) {
  const applied = asked === "plan_and_apply" && reached === "succeeded";
  const values = table("Outputs of the run", ["Output", "Value"]);
  keep(values.body, Object.entries(outputs).map(([output, value]) => [output, value, () =>
    row(el("span", { class: "mono" }, output), outputValue(typeof value === "string" ? value : JSON.stringify(value, null, 2)))]));
  return panel(applied ? "Outputs" : "Outputs as planned", values.box);
}

function outputValue(words) {
  const long = words.length > 500 || words.split("\n").length > 10;
  return el("pre", { class: "value", tabindex: long && "0" }, words);
}

// What the system notes for itself.
const INTERNAL = new Set(["locks_as", "clock", "task"]);

function eventRow({ at, event, detail }) {
  const { actor, message, ...more } = detail;
  const words = Object.entries(more).filter(([fact, value]) => value !== null && !INTERNAL.has(fact))
    .map(([fact, value]) => `${fact} ${value}`);
  return row(el("time", { class: "text-nowrap", datetime: at }, moment(at)), happening(event), actor ?? "",
    [message && el("div", {}, message), words.length > 0 && el("div", { class: "quiet" }, words.join(", "))]);
}

function previousPanel(previous) {
  const label = "Earlier runs of the workspace";
  return panel(label, briefTable(label, previous));
}
