// One pool: why it has so many agents, how that came over time, and what its agents do.

import { agentList } from "./agents.js";
import { get, name, now } from "./api.js";
import { chart } from "./chart.js";
import { el, keep, panel, row, table } from "./dom.js";
import { live } from "./live.js";
import { facts, waitingTable } from "./parts.js";
import { moment } from "./words.js";

const RANGES = [["1 hour", 1], ["6 hours", 6], ["1 day", 24], ["7 days", 168], ["90 days", 2160]];
const AGENTS = [{ name: "ready", key: "ready" }, { name: "starting", key: "starting" }];
const WORK = [
  { name: "running slots", key: "running" }, { name: "reserved slots", key: "reserved" },
  { name: "plans waiting", key: "waiting_plans" }, { name: "applies waiting", key: "waiting_applies" },
];
const HISTORY_EVERY = 15_000; // milliseconds: a cycle of the pool adds a point

const content = document.getElementById("content");
const path = `/pools/${encodeURIComponent(name)}`;
const range = el("select", { class: "form-select", id: "history-range", change: () => { historyAt = 0; renew(); } },
  RANGES.map(([words, hours]) => el("option", { value: hours, selected: hours === 6 }, words)));
const charts = el("div");
const agents = agentList(name);
const waiting = waitingTable(name);
const decided = table("Scaling decisions", ["When", "Agents", "Why", "Facts"]);
const status = el("div");
const older = el("button", { type: "button", class: "btn btn-outline-secondary", click: more }, "Older");
let decisions = [];
let historyAt = 0; // when it was read last
content.append(status,
  panel("Over time", el("div", { class: "tools" }, el("label", { for: "history-range" }, "The last"), range), charts),
  panel("Agents", agents.element), panel("Waiting for a slot", waiting.element), panel("Scaling decisions", decided.box, el("div", {}, older)));

const renew = live(async () => {
  const pool = await get(path);
  keep(status, [["", { ...pool, agents: pool.agents.length, waiting: 0 }, () => about(pool)]]);
  agents.fill(pool.agents);
  waiting.fill(pool.waiting);
  if (Date.now() - historyAt >= HISTORY_EVERY) await showHistory();
}, ({ pools }) => pools.has(name));
window.setInterval(() => document.hidden || renew(), HISTORY_EVERY);

function about(pool) {
  const { limits, slots, pending, starting } = pool;
  return el("section", { "aria-label": "The pool" },
    pool.status_message && el("div", { class: "alert alert-warning" }, pool.status_message),
    facts([
      ["Agents", [pool.agents.length.toLocaleString(), starting > 0 && ` and ${starting} starting`,
        limits.max_agents !== null && ` (at least ${limits.min_agents}, at most ${limits.max_agents.toLocaleString()})`,
        el("div", { class: "quiet" }, pool.size_reason)]],
      ["Kind", pool.type], ["Slots", `${slots.running} running, ${slots.reserved} reserved, ${slots.idle} idle`],
      ["Waiting", `${pending.plan} to plan, ${pending.plan_and_apply} to apply`],
      ["Draining", pool.draining && "it is given nothing more"],
      ["Programs", pool.programs.join(", ")], ["Required", pool.terraform],
    ]));
}

async function showHistory() {
  historyAt = Date.now();
  const hours = Number(range.value);
  const begin = new Date(now() - hours * 3_600_000).toISOString();
  const history = await get(`${path}/history`, { since: begin });
  const marks = history.decisions.map((decision) => ({ at: decision.at, words: `${sizes(decision)}: ${decision.reason}` }));
  if (!charts.querySelector(":focus, .mark:hover")) { // what somebody reads stays
    charts.replaceChildren(...history.samples.length
      ? [chart("Agents", history, AGENTS, marks), chart("Slots and runs", history, WORK)]
      : [el("p", { class: "quiet" }, "No cycle of the pool has ended in this time.")]);
  }
  const known = new Set(history.decisions.map((decision) => decision.id));
  show([...history.decisions, ...decisions.filter((decision) => !known.has(decision.id))]);
}

async function more() {
  const page = await get(`${path}/decisions`, { before: decisions.at(-1)?.id, limit: 50 });
  older.hidden = page.before === null;
  show([...decisions, ...page.decisions]);
}

function show(list) {
  decisions = list.sort((one, other) => other.id - one.id);
  keep(decided.body, decisions.map((decision) => [decision.id, decision, () => decisionRow(decision)]));
}

function decisionRow(decision) {
  const words = Object.entries(decision.facts).filter(([, value]) => value?.length !== 0).map(([fact, value]) =>
    el("div", {}, `${fact.replaceAll("_", " ")}: ${typeof value === "object" ? JSON.stringify(value) : value}`));
  return row(el("time", { class: "text-nowrap", datetime: decision.at }, moment(decision.at)),
    el("span", { class: "text-nowrap" }, sizes(decision)), decision.reason,
    words.length > 0 && el("details", {}, el("summary", {}, "facts"), words));
}

function sizes({ current, desired }) {
  return `${current} → ${desired}`;
}
