// The agents of a pool with their three slots. Those with work come first; what is idle is folded together.

import { el, keep, row, table } from "./dom.js";
import { changes } from "./parts.js";
import { age, kind, runLink, since, status, until, workspaceLink } from "./words.js";

const COLUMNS = ["Agent", "State", "Slot 0: plans and applies", "Slot 1: plans", "Slot 2: plans"];
const FIRST = 200; // that many rows are made before somebody asks for all
const SIGNS = { available: "●", draining: "◐", silent: "○" };

/** Return the list of the agents of a pool: its element, and what fills it with those that a filter lets through. */
export function agentList(pool) {
  const { box, body } = table(`Agents of ${pool}`, COLUMNS);
  const idle = el("p", { class: "idle-names mono" });
  const count = el("summary");
  const folded = el("details", { class: "idle", hidden: true }, count, idle);
  const none = el("p", { class: "quiet" });
  const all = el("button", { type: "button", class: "btn btn-outline-secondary", hidden: true, click: () => { most = Infinity; again(); } });
  let most = FIRST;
  let again = () => {};

  function fill(agents, { passes = () => true, filtered = false } = {}) {
    const wanted = agents.filter(passes);
    const [busy, resting] = filtered ? [wanted, []] : split(wanted);
    again = () => fill(agents, { passes, filtered });
    keep(body, busy.slice(0, most).map((agent) => [agent.name, { ...agent, heartbeat_at: agent.state === "silent" ? agent.heartbeat_at : 0 },
      () => agentRow(agent)]));
    box.hidden = busy.length === 0;
    all.hidden = busy.length <= most;
    all.textContent = `Show all ${busy.length.toLocaleString()}`;
    folded.hidden = resting.length === 0;
    count.textContent = resting.length === 1 ? "1 idle agent" : `${resting.length.toLocaleString()} idle agents`;
    idle.textContent = resting.map((agent) => agent.name).join("  ");
    none.hidden = wanted.length > 0;
    none.textContent = agents.length ? "No agent is like that." : "No agents: they are started when a run waits.";
  }

  return { element: el("div", {}, none, box, all, folded), fill };
}

function split(agents) {
  const works = (agent) => agent.state !== "available" || agent.slots.some((slot) => slot.run_id !== null);
  return [agents.filter(works), agents.filter((agent) => !works(agent))];
}

function agentRow(agent) {
  return row(
    [el("span", { class: "mono" }, agent.name), el("div", { class: "quiet" }, "for ", since(agent.registered_at))],
    [el("span", { class: `agent-${agent.state} text-nowrap` }, el("span", { "aria-hidden": "true" }, `${SIGNS[agent.state] ?? "•"} `), agent.state),
      agent.state === "silent" && el("div", { class: "quiet" }, "heard ", since(agent.heartbeat_at), " ago")],
    ...agent.slots.map(slotCell),
  );
}

function slotCell(slot) {
  if (slot.run_id === null) return el("div", { class: "slot slot-idle" }, "idle");
  return el("div", { class: `slot slot-${slot.status ?? slot.state}` },
    el("div", {}, slot.status ? status(slot.status) : slot.state, " ", el("span", { class: "quiet" }, age(slot.since))),
    el("div", {}, slot.workspace ? workspaceLink(slot.workspace) : "?", ` ${slot.kind ? kind(slot.kind) : ""} `,
      el("span", { class: "quiet" }, "run "), runLink(slot.run_id)),
    slot.status === "apply_pending" && slot.changes && el("div", {}, changes(slot.changes, slot.destroys > 0)),
    slot.until && el("div", { class: "quiet" }, "ends in ", until(slot.until)));
}
