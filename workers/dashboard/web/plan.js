// What a plan does with each resource, the gravest first.

import { el, panel } from "./dom.js";

const SIGNS = {
  delete: "−", replace: "∓", forget: "⌀", update: "~", create: "+", read: "←", "no-op": "·",
};

/** Return the panel of a plan's resource changes. */
export function planPanel(plan, run) {
  const left = Object.entries(plan.left_out ?? {});
  return panel(run.kind === "plan" ? "Changes" : "What the plan does",
    plan.resources.length === 0 && el("p", {}, "Nothing changes."),
    el("ul", { class: "changes" }, plan.resources.map(change)),
    left.length > 0 && el("p", { class: "quiet" },
      `Not on record one by one: ${left.map(([action, count]) => `${count} to ${action}`).join(", ")}.`));
}

function change(resource) {
  const { action, address, attributes = [], attributes_left_out: more = 0 } = resource;
  const destroys = (action === "delete" || action === "replace") && !resource.drift;
  const notes = [
    resource.drift && "changed outside of Terraform",
    resource.action === "replace" && destroys && "destroys what is there",
    resource.replace_paths?.length && `because of ${resource.replace_paths.join(", ")}`,
    resource.create_first && "the new one is made first",
    resource.moved_from && `was ${resource.moved_from}`,
    resource.imported && "imported",
    resource.deposed && `deposed ${resource.deposed}`,
    !resource.replace_paths?.length && resource.reason?.replaceAll("_", " "),
  ].filter(Boolean);
  const title = [
    el("span", { class: `sign sign-${action}`, "aria-hidden": "true" }, SIGNS[action] ?? "?"),
    el("span", { class: `action-${action}` }, action), " ", el("span", { class: "mono" }, address),
    notes.length > 0 && el("span", { class: destroys ? "destroys" : "quiet" }, ` ${notes.join(", ")}`),
  ];
  if (attributes.length + more === 0) return el("li", {}, title);
  return el("li", {}, el("details", {}, el("summary", {}, title), el("ul", { class: "attributes mono" },
    attributes.map(attribute), more > 0 && el("li", { class: "quiet" }, `and ${more} more`))));
}

function attribute({ path, before, after, unknown, sensitive, large = [] }) {
  const old = value(before, sensitive, large.includes("before"));
  const fresh = unknown ? "(known after the apply)" : value(after, sensitive, large.includes("after"));
  return el("li", {}, `${path}: `, el("del", {}, old), " → ", el("ins", {}, fresh));
}

function value(what, sensitive, large) {
  if (large) return "(too long to show)";
  if (what === null || what === undefined) return sensitive ? "(sensitive)" : "(nothing)";
  return JSON.stringify(what);
}
