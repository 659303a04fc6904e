// All runs, the newest first: filtered by what the address says, so that a page can be shared.

import { get } from "./api.js";
import { el, keep, row, table } from "./dom.js";
import { live } from "./live.js";
import { changes, lasted } from "./parts.js";
import { kind, linked, poolLink, runLink, since, status, STATUSES, workspaceLink } from "./words.js";

const PAGE = 50;
const content = document.getElementById("content");
const runs = table("Runs", ["Run", "Status", "Workspace", "Pool", "Kind", "Changes", "By", "Asked", "Took"]);
const form = filters();
const pager = el("nav", { class: "pager", "aria-label": "Pages" });
const nothing = el("p", { class: "quiet", role: "status" });
content.append(form, nothing, el("section", { class: "panel" }, runs.box), pager);

const renew = live(async () => {
  const query = Object.fromEntries(asked());
  query.status = asked().getAll("status");
  const page = await get("/runs", { ...query, limit: PAGE });
  nothing.textContent = page.runs.length ? "" : "No run is like that.";
  keep(runs.body, page.runs.map((run) => [run.run_id, run, () => runRow(run)]));
  pager.replaceChildren(...[
    asked().has("before") && go("Newest", null),
    page.before && go("Older", page.before),
  ].filter(Boolean));
}, ({ runs: changed, pools }) => changed.size > 0 || pools.size > 0);

function asked() {
  return new URLSearchParams(window.location.search);
}

function runRow(run) {
  return row(
    [runLink(run.run_id), run.message && el("div", { class: "quiet" }, run.message)],
    [status(run.status), run.waiting && el("div", { class: "quiet" }, linked(run.waiting)),
      run.error && el("div", { class: "quiet" }, run.error.split("\n")[0])],
    workspaceLink(run.workspace), poolLink(run.pool), [kind(run.kind), run.destroy && el("div", { class: "destroys" }, "destroy")],
    changes(run.changes, run.plan_destroys), run.actor ?? "", el("span", { class: "text-nowrap" }, since(run.created_at), " ago"), lasted(run));
}

function go(words, before) {
  const query = asked();
  if (before === null) query.delete("before");
  else query.set("before", before);
  return el("a", { class: "btn btn-outline-secondary", href: `?${query}` }, words);
}

function filters() {
  const field = (label, control) => el("div", {}, el("label", { class: "form-label", for: control.id }, label), control);
  const input = (key, type = "text", placeholder = "the whole name") => el("input", { type, class: "form-control", id: `filter-${key}`, name: key, placeholder,
    value: asked().get(key) ?? "", autocomplete: "off" });
  const kinds = el("select", { class: "form-select", id: "filter-kind", name: "kind" },
    el("option", { value: "" }, "any"), ["plan", "plan_and_apply"].map((value) =>
      el("option", { value, selected: asked().get("kind") === value }, kind(value))));
  const states = el("fieldset", {}, el("legend", { class: "form-label" }, "Status"),
    el("div", { class: "chips" }, STATUSES.map((value) => el("label", { class: "chip" },
      el("input", { type: "checkbox", name: "status", value, checked: asked().getAll("status").includes(value) }), " ", status(value)))));
  const made = el("form", { class: "panel filters", role: "search", "aria-label": "Filter runs", change: apply, submit: apply },
    field("Text", input("text", "search", "id, workspace, message, error")), field("Workspace", input("workspace")), field("Pool", input("pool")),
    field("By", input("actor")), field("Kind", kinds), states);
  return made;
}

function apply(event) {
  event.preventDefault();
  const query = new URLSearchParams([...new FormData(form)].filter(([, value]) => value !== ""));
  window.history.replaceState(null, "", query.size ? `?${query}` : window.location.pathname);
  renew();
}
