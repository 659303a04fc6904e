// What a person can decide about a run. The server decides whether they may: a page only asks.

import { post } from "./api.js";
import { el } from "./dom.js";
import { say } from "./live.js";

const VERBS = {
  confirm: { words: "Confirm", style: "primary", asks: "Apply this plan?" },
  discard: { words: "Discard", style: "outline-secondary", asks: "Refuse this plan?" },
  extend: { words: "Extend", style: "outline-secondary", asks: "Let this plan wait longer?" },
  cancel: { words: "Cancel run", style: "outline-danger", asks: "End this run?" },
};

/** Return the panel of the decisions that are open to whom Flower has signed in, and why the others are not. */
export function decisions(details, path, renew) {
  const open = details.actions.filter((action) => action.open);
  const refused = details.actions.filter((action) => !action.open && matters(action.action, details.run));
  return el("section", { class: "decisions", "aria-label": "Decisions" },
    details.approval && el("p", {}, details.approval),
    el("div", { class: "buttons" }, open.map(({ action }) => button(action, details, path, renew))),
    refused.length > 0 && el("ul", { class: "quiet refused" },
      [...new Set(refused.map(({ why }) => why))].map((why) => el("li", {}, why))));
}

/** Whether somebody may expect this button: nobody cancels what is over, or confirms what is not planned. */
function matters(verb, { status, finished_at: finished }) {
  return finished === null && (verb === "cancel" || status === "apply_pending");
}

function button(verb, details, path, renew) {
  const { words, style } = VERBS[verb];
  const destroys = verb === "confirm" && details.destroys > 0;
  return el("button", {
    type: "button", class: `btn btn-${destroys ? "danger" : style}`, id: `decide-${verb}`,
    click: () => ask(verb, details, path, renew),
  }, destroys ? `Confirm: destroys ${details.destroys}` : words);
}

function ask(verb, details, path, renew) {
  const { words, asks } = VERBS[verb];
  const { run } = details;
  const message = el("input", { class: "form-control", id: "decision-message", maxlength: 500, autocomplete: "off", autofocus: verb !== "extend" });
  const more = extras(verb, run);
  const refusal = el("p", { class: "alert alert-danger", role: "alert", hidden: true });
  const go = el("button", { type: "submit", class: `btn btn-${verb === "cancel" || destroying(verb, details) ? "danger" : "primary"}` }, words);
  const form = el("form", { method: "dialog", submit: send },
    el("h2", { class: "panel-title", id: "decision-title" }, asks),
    el("p", {}, `${run.workspace}, run ${run.run_id.slice(0, 8)}`, run.attempt > 1 && `, attempt ${run.attempt}`),
    verb === "confirm" && el("p", {}, `${run.changes.add} to add, ${run.changes.change} to change, ${run.changes.destroy} to destroy.`),
    destroying(verb, details) && el("p", { class: "destroys" }, `▲ This destroys ${details.destroys} of what is there.`),
    more?.element, el("label", { for: "decision-message", class: "form-label" }, "Why (on record with the run)"), message, refusal,
    el("div", { class: "buttons" },
      go, el("button", { type: "button", class: "btn btn-outline-secondary", click: () => dialog.close() }, "Back")));
  const dialog = el("dialog", { class: "decision", "aria-labelledby": "decision-title", close: leave }, form);

  async function send(event) {
    event.preventDefault();
    go.disabled = true;
    const attempt = verb === "confirm" ? { attempt: run.attempt } : {};
    const why = message.value.trim() ? { message: message.value.trim() } : {};
    try {
      await post(`${path}/${verb}`, { ...attempt, ...more?.value(), ...why });
      dialog.close();
    } catch (error) {
      say(refusal, error.message);
      go.disabled = false;
    }
    renew();
  }

  function leave() {
    dialog.remove();
    document.getElementById(`decide-${verb}`)?.focus(); // the button may have been made anew meanwhile
  }

  document.body.append(dialog);
  dialog.showModal();
}

function destroying(verb, details) {
  return verb === "confirm" && details.destroys > 0;
}

function extras(verb, { status }) {
  if (verb === "cancel") {
    if (status !== "planning" && status !== "applying") return null;
    const force = el("input", { type: "checkbox", class: "form-check-input", id: "decision-force" });
    return {
      element: el("div", {}, el("p", {}, "Terraform is interrupted: it ends what it has begun, and its state is saved."),
        el("div", { class: "form-check" }, force, el("label", { class: "form-check-label", for: "decision-force" },
          "Kill it instead: what it has done may be missing from the state"))),
      value: () => (force.checked ? { force: true } : {}),
    };
  }
  if (verb === "extend") {
    const hours = el("input", { type: "number", class: "form-control", id: "decision-hours", min: 1, max: 720, value: 4, required: true });
    return {
      element: el("div", {}, el("label", { class: "form-label", for: "decision-hours" }, "Hours more"), hours),
      value: () => ({ seconds: Number(hours.value) * 3600 }),
    };
  }
  return null;
}
