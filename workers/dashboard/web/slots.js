// Pools, their agents with three slots each, and what waits.

import { get } from "./api.js";
import { el, keep, panel, row, table } from "./dom.js";
import { live } from "./live.js";
import { kind, poolLink, runLink, since, workspaceLink } from "./words.js";

const content = document.getElementById("content");
const FOR = ["Slot 0: plans and applies", "Slot 1: plans", "Slot 2: plans"];

live(async () => {
  const pools = await get("/pools");
  const parts = pools.map((pool) => [pool.name, pool.name, () => section(pool)]);
  keep(content, parts.length ? parts : [["", "", () => el("p", {}, "There is no pool yet.")]]);
  pools.forEach(fill);
}, ({ pools }) => pools.size > 0);

const sections = new Map();

function section(pool) {
  const parts = { facts: el("p", { class: "quiet" }), counts: el("dl", { class: "counts" }) };
  const agents = table(`Agents of ${pool.name}`, ["Agent", "State", ...FOR]);
  const waiting = table(`Runs of ${pool.name} that wait for a slot`, ["Run", "Workspace", "Kind", "Priority", "Waits"]);
  sections.set(pool.name, { ...parts, agents: agents.body, waiting: waiting.body });
  return el("section", { "aria-label": `Pool ${pool.name}` },
    el("h2", {}, poolLink(pool.name)), parts.facts, parts.counts,
    panel("Agents", agents.box), panel("Waiting for a slot", waiting.box));
}

function fill(pool) {
  const parts = sections.get(pool.name);
  parts.facts.textContent = [facts(pool), pool.status_message].filter(Boolean).join(". ");
  keep(parts.counts, counts(pool).map(([label, value]) =>
    [label, value, () => el("div", {}, el("dt", {}, label), el("dd", {}, String(value)))]));
  keep(parts.agents, pool.agents.map((agent) => [agent.name, { ...agent, heartbeat_at: 0 }, () => agentRow(agent)]));
  keep(parts.waiting, pool.waiting.map((run) => [run.run_id, run, () => waitingRow(run)]));
}

function facts({ type, limits }) {
  return limits.max_agents === null ? type : `${type}, ${limits.min_agents} to ${limits.max_agents} agents`;
}

function counts({ agents, slots, pending }) {
  return [
    ["Agents", agents.length], ["Running slots", slots.running], ["Reserved slots", slots.reserved],
    ["Idle slots", slots.idle], ["Plans waiting", pending.plan], ["Applies waiting", pending.plan_and_apply],
  ];
}

function agentRow(agent) {
  return row(
    [agent.name, el("div", { class: "quiet" }, "for ", since(agent.registered_at))],
    el("span", { class: `agent-${agent.state}` }, agent.state), ...agent.slots.map(slotCell),
  );
}

function slotCell(slot) {
  if (slot.run_id === null) return el("div", { class: "slot slot-idle" }, "idle");
  return el("div", { class: `slot slot-${slot.state}` },
    slot.workspace ? workspaceLink(slot.workspace) : "?", ` ${kind(slot.kind)}`,
    el("div", { class: "quiet" }, slot.state, " for ", since(slot.since)),
    el("div", { class: "quiet" }, "run ", runLink(slot.run_id)));
}

function waitingRow(run) {
  return row(runLink(run.run_id), workspaceLink(run.workspace), kind(run.kind), String(run.priority),
    [since(run.created_at), el("div", { class: "quiet" }, run.waiting)]);
}
