// How far a phase has come with the resources that it changes: asked for each second while it executes.

import { get, Problem } from "./api.js";
import { el, keep, panel, row, table } from "./dom.js";
import { since, took } from "./words.js";

const EXECUTING = new Set(["planning", "applying"]);
const EVERY = 1_000; // milliseconds
const SIGNS = { working: "▶", failed: "✕", done: "✓" };

/** Return the panel of a run's progress, hidden where none is known; `follow(run)` asks for it as long as it changes. */
export function progressPanel(path) {
  const words = el("p");
  const bar = el("progress", { class: "progress-of-run", "aria-label": "Changes that are done" });
  const { box, body } = table("Resources", ["Resource", "Action", "State", "Time"]);
  const rest = el("p", { class: "quiet" });
  const element = panel("Progress", words, bar, box, rest);
  let timer = 0;
  let asked = null;
  element.hidden = true;

  function show(progress) {
    element.hidden = progress === null;
    if (progress === null) return;
    const { step, since: begun, planned, working, failed, done, resources, left_out: others } = progress;
    const of = planned === null ? "" : ` of ${planned}`;
    keep(words, [["", [step, begun, planned, working, failed, done], () => el("span", {},
      step && [step, " ", begun && since(begun), ": "], `${done}${of} done, ${working} under way`,
      failed > 0 && el("span", { class: "destroys" }, `, ${failed} failed`))]]);
    bar.hidden = planned === null;
    bar.max = Math.max(1, planned ?? 1);
    bar.value = Math.min(done, bar.max);
    box.hidden = resources.length === 0;
    keep(body, resources.map((resource) => [`${resource.address} ${resource.action}`, resource, () => resourceRow(resource)]));
    rest.textContent = others > 0 ? `and ${others.toLocaleString()} more` : "";
  }

  async function follow({ run_id: run, attempt, status }) {
    const wanted = `${run} ${attempt} ${status}`;
    if (asked === wanted && timer !== 0) return;
    window.clearTimeout(timer);
    timer = 0;
    asked = wanted;
    await ask(wanted, EXECUTING.has(status));
  }

  async function ask(wanted, again) {
    try {
      if (!document.hidden) {
        const { progress } = await get(`${path}/progress`);
        if (asked === wanted) show(progress);
      }
    } catch (error) {
      if (!(error instanceof Problem)) throw error; // the page says already what keeps it from being read
    }
    if (again && asked === wanted) timer = window.setTimeout(() => ask(wanted, again), EVERY);
  }

  return { element, follow };
}

function resourceRow({ address, action, state, since: begun, seconds }) {
  const sign = el("span", { "aria-hidden": "true" }, `${SIGNS[state] ?? "•"} `);
  return row(el("span", { class: "mono" }, address), action, el("span", { class: `resource-${state} text-nowrap` }, sign, state),
    seconds === null ? since(begun) : took(seconds));
}
