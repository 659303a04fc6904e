// Pools, their agents with three slots each, and what waits.

import { agentList } from "./agents.js";
import { get } from "./api.js";
import { el, keep } from "./dom.js";
import { live } from "./live.js";
import { waitingTable } from "./parts.js";
import { poolLink } from "./words.js";

const content = document.getElementById("content");
const search = el("input", { type: "search", class: "form-control", id: "slots-search", "aria-label": "Search agents, runs and workspaces",
  placeholder: "Search agents, runs and workspaces", autocomplete: "off", value: asked("text"), input: filter });
const states = ["idle", "running", "reserved", "draining", "silent"].map((state) =>
  el("label", { class: "chip" }, el("input", { type: "checkbox", name: "state", value: state, checked: asked("state").split(",").includes(state), change: filter }), ` ${state}`));
const list = el("div");
const sections = new Map();
let pools = [];
content.append(el("form", { class: "tools", role: "search", "aria-label": "Filter agents", submit: (event) => event.preventDefault() },
  search, el("div", { class: "chips", role: "group", "aria-label": "Agents with a slot or state" }, states)), list);

live(async () => {
  pools = await get("/pools");
  const parts = pools.map((pool) => [pool.name, pool.name, () => section(pool)]);
  keep(list, parts.length ? parts : [["", "", () => el("p", {}, "There is no pool yet.")]]);
  pools.forEach(fill);
}, ({ pools: changed }) => changed.size > 0);

function section(pool) {
  const facts = el("p", { class: "quiet pool-facts" });
  const counts = el("dl", { class: "counts" });
  const agents = agentList(pool.name);
  const waiting = waitingTable(pool.name);
  const more = el("p", { class: "quiet" });
  const title = el("h3", { class: "panel-title" }, "Waiting for a slot");
  sections.set(pool.name, { facts, counts, agents, waiting, title, more });
  return el("section", { class: "panel pool", "aria-label": `Pool ${pool.name}` },
    el("header", {}, el("h2", {}, poolLink(pool.name)), facts),
    el("details", { open: true }, el("summary", {}, "Agents and runs"), counts, agents.element, title, waiting.element, more));
}

function fill(pool) {
  const parts = sections.get(pool.name);
  const words = [limits(pool), pool.size_reason, pool.status_message].filter(Boolean).join("; ");
  if (parts.facts.textContent !== words) parts.facts.textContent = words;
  keep(parts.counts, counts(pool).map(([label, value]) =>
    [label, value, () => el("div", {}, el("dt", {}, label), el("dd", {}, value.toLocaleString()))]));
  const search = wanted();
  const waiting = pool.waiting.filter(search.names);
  parts.agents.fill(pool.agents, search);
  parts.title.hidden = waiting.length === 0;
  parts.waiting.fill(waiting);
  const rest = pool.pending.plan + pool.pending.plan_and_apply - pool.waiting.length;
  parts.more.textContent = rest > 0 ? `and ${rest.toLocaleString()} more` : "";
}

function limits({ type, limits: { min_agents: least, max_agents: most }, agents }) {
  const now = agents.length === 1 ? "1 agent" : `${agents.length.toLocaleString()} agents`;
  return most === null ? type : `${type}, ${now} (at least ${least}, at most ${most.toLocaleString()})`;
}

function counts({ slots, pending, starting }) {
  return [
    ["Running slots", slots.running], ["Reserved slots", slots.reserved], ["Idle slots", slots.idle],
    ["Agents starting", starting], ["Plans waiting", pending.plan], ["Applies waiting", pending.plan_and_apply],
  ];
}

function asked(key) {
  return new URLSearchParams(window.location.search).get(key) ?? "";
}

function chosenStates() {
  return states.map((label) => label.firstChild).filter((box) => box.checked).map((box) => box.value);
}

/** Return what is looked for: what all words name, and of the agents those that have one of the states. */
function wanted() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const chosen = chosenStates();
  const said = (texts) => words.every((word) => texts.join(" ").toLowerCase().includes(word));
  const facts = (run) => [run.run_id, run.workspace, run.kind];
  const passes = (agent) => {
    const has = new Set([agent.state, ...agent.slots.map((slot) => slot.state)]);
    return said([agent.name, ...agent.slots.flatMap(facts)]) && (chosen.length === 0 || chosen.some((state) => has.has(state)));
  };
  return { passes, names: (run) => said(facts(run)), filtered: words.length + chosen.length > 0 };
}

function filter() {
  const query = new URLSearchParams();
  if (search.value) query.set("text", search.value);
  const chosen = chosenStates();
  if (chosen.length) query.set("state", chosen.join(","));
  window.history.replaceState(null, "", query.size ? `?${query}` : window.location.pathname);
  pools.forEach(fill);
}
