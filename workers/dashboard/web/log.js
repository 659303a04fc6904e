// A run's log: the backlog first, then what is printed, folded by phase and searched as text.

import { Problem, signedOut, stream } from "./api.js";
import { el, panel } from "./dom.js";

const MOST_LINES = 5_000; // a phase shows: a browser becomes slow with more
const AGAIN = 2_000; // milliseconds until a stream that broke is read anew
const AT_END = 8; // pixels: whoever has scrolled further up reads, and is left where they are

/** Return the panel of a run's log; `follow(run)` reads it, for as long as the run goes on. */
export function logPanel(path) {
  const search = el("input", { type: "search", class: "form-control", id: "log-search", placeholder: "Search the log",
    "aria-label": "Search the log", autocomplete: "off", spellcheck: "false", input: () => phases.forEach(filter) });
  const tail = el("input", { type: "checkbox", class: "form-check-input", id: "log-tail", checked: true });
  const found = el("span", { class: "quiet", role: "status" });
  const empty = el("p", { class: "quiet" });
  const body = el("div", {}, empty);
  const element = panel("Log", el("div", { class: "log-tools" }, search, found, el("div", { class: "form-check" }, tail,
    el("label", { class: "form-check-label", for: "log-tail" }, "Follow"))), body);
  const phases = new Map();
  let last = "0"; // the id of the last line that is shown
  let reading = null;
  document.addEventListener("visibilitychange", () => document.hidden && reading?.abort());

  function show(lines) {
    const touched = new Set();
    for (const line of lines) touched.add(append(line));
    last = lines.at(-1)?.id || last;
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
    empty.hidden = true;
    const title = attempt > 1 ? `${phase}, attempt ${attempt}` : phase;
    const earlier = el("p", { class: "quiet", hidden: true }, `Only the last ${MOST_LINES.toLocaleString()} lines are shown: terraslot logs has all of them.`);
    const output = el("pre", { class: "output", tabindex: "0", role: "group", "aria-label": `Log of ${title}`,
      scroll: () => { tail.checked = output.scrollHeight - output.scrollTop - output.clientHeight < AT_END; } });
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

  async function follow(run) {
    empty.textContent = run.finished_at === null ? "Nothing is printed yet." : "Nothing was printed.";
    if (reading || document.hidden) return; // a page that is seen again looks again, and calls this
    reading = new AbortController();
    const shown = last; // a stream begins with the first line, whatever is shown already
    try {
      await stream(`${path}/log?follow=true`, (lines) => show(lines.filter(({ id }) => isAfter(id, shown))), reading.signal);
    } catch (error) {
      reading = null;
      if (!(error instanceof Problem) && error.name !== "AbortError" && error.name !== "TypeError") throw error;
      if (!signedOut) window.setTimeout(() => follow(run), AGAIN);
    }
  }

  return { element, follow };
}

/** Whether the line of the first id, `MILLISECONDS-NUMBER`, comes after that of the second. */
function isAfter(one, other) {
  const [time, number = 0] = one.split("-").map(Number);
  const [otherTime, otherNumber = 0] = other.split("-").map(Number);
  return time > otherTime || (time === otherTime && number > otherNumber);
}
