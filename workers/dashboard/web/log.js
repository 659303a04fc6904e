// A run's log: the backlog first, then what is printed, folded by phase and searched as text.

import { Problem, stream } from "./api.js";
import { el, panel } from "./dom.js";

const MOST_LINES = 5_000; // a phase shows: a browser becomes slow with more
const AGAIN = 2_000; // milliseconds until a stream that broke is read anew

/** Return the panel of a run's log; `follow(run)` reads it, for as long as the run goes on. */
export function logPanel(path) {
  const search = el("input", { type: "search", class: "form-control", id: "log-search", placeholder: "Search the log",
    "aria-label": "Search the log", autocomplete: "off", spellcheck: "false", input: () => phases.forEach(filter) });
  const tail = el("input", { type: "checkbox", class: "form-check-input", id: "log-tail", checked: true });
  const found = el("span", { class: "quiet", role: "status" });
  const body = el("div", {}, el("p", { class: "quiet", id: "log-empty" }, "Nothing is printed yet."));
  const element = panel("Log", el("div", { class: "log-tools" }, search, found, el("div", { class: "form-check" }, tail,
    el("label", { class: "form-check-label", for: "log-tail" }, "Follow"))), body);
  const phases = new Map();
  let reading = null;

  function show(lines) {
    const touched = new Set();
    for (const line of lines) touched.add(append(line));
    for (const phase of touched) {
      tell(phase);
      if (tail.checked) phase.output.scrollTop = phase.output.scrollHeight;
    }
  }

  function append(line) {
    const key = `${line.attempt} ${line.phase}`;
    if (!phases.has(key)) phases.set(key, open(line));
    const phase = phases.get(key);
    const shown = el("span", { class: "line" }, `${line.text}\n`);
    phase.output.append(shown);
    phase.count += 1;
    judge(phase, shown);
    if (phase.output.childElementCount > MOST_LINES) {
      if (!phase.output.firstChild.hidden) phase.matches -= 1;
      phase.output.firstChild.remove();
      phase.earlier.hidden = false;
    }
    return phase;
  }

  function open({ attempt, phase }) {
    document.getElementById("log-empty")?.remove();
    const title = attempt > 1 ? `${phase}, attempt ${attempt}` : phase;
    const earlier = el("p", { class: "quiet", hidden: true }, `Only the last ${MOST_LINES.toLocaleString()} lines are shown: terraslot logs has all of them.`);
    const output = el("pre", { class: "output", tabindex: "0", role: "group", "aria-label": `Log of ${title}` });
    const count = el("span", { class: "quiet" });
    const made = { output, earlier, words: count, count: 0, matches: 0,
      box: el("details", { open: true }, el("summary", {}, title, " ", count), earlier, output) };
    body.append(made.box);
    return made;
  }

  function judge(phase, line) {
    line.hidden = !line.textContent.toLowerCase().includes(search.value.toLowerCase());
    if (!line.hidden) phase.matches += 1;
  }

  function filter(phase) {
    phase.matches = 0;
    for (const line of phase.output.children) judge(phase, line);
    tell(phase);
  }

  function tell(phase) {
    const searched = search.value !== "";
    phase.words.textContent = searched ? `${phase.matches} of ${phase.count} lines` : `${phase.count} lines`;
    const all = [...phases.values()].reduce((sum, one) => sum + one.matches, 0);
    found.textContent = searched ? `${all} lines` : "";
  }

  async function read(over) {
    const stopped = new AbortController();
    document.addEventListener("visibilitychange", () => document.hidden && stopped.abort(), { once: true });
    phases.clear();
    body.replaceChildren(el("p", { class: "quiet", id: "log-empty" }, over ? "Nothing was printed." : "Nothing is printed yet."));
    await stream(`${path}/log?follow=true`, show, stopped.signal);
  }

  async function follow(run) {
    if (reading) return;
    reading = true;
    try {
      await read(run.finished_at !== null);
    } catch (error) {
      reading = null;
      if (!(error instanceof Problem) && error.name !== "AbortError" && error.name !== "TypeError") throw error;
      if (!document.hidden) window.setTimeout(() => follow(run), AGAIN);
      else document.addEventListener("visibilitychange", () => follow(run), { once: true });
    }
  }

  return { element, follow };
}
