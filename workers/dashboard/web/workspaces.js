// All workspaces by name: what runs in each, and how its last run ended.

import { get } from "./api.js";
import { el, keep, row, table } from "./dom.js";
import { live } from "./live.js";
import { poolLink, runLink, since, status, workspaceLink } from "./words.js";

const content = document.getElementById("content");
const { box, body } = table("Workspaces", ["Workspace", "Pool", "Now", "Last run", "Notes"]);
const search = el("input", { type: "search", class: "form-control", id: "workspaces-search", "aria-label": "Search workspaces",
  placeholder: "Search workspaces", autocomplete: "off", input: () => renew() });
const more = el("button", { type: "button", class: "btn btn-outline-secondary", hidden: true, click: () => { shown += 200; renew(); } }, "More");
const none = el("p", { class: "quiet", role: "status" });
let shown = 200;
content.append(el("div", { class: "search" }, search), none, el("section", { class: "panel" }, box), more);

const renew = live(async () => {
  const { workspaces, after } = await get("/workspaces", { text: search.value.trim(), limit: shown });
  keep(body, workspaces.map((workspace) => [workspace.name, workspace, () => workspaceRow(workspace)]));
  more.hidden = after === null || shown >= 1000;
  none.textContent = workspaces.length ? "" : "There is no such workspace.";
});

function workspaceRow({ name, pool, lock, unsaved, unfinished, last_run: last }) {
  const now = Object.entries(unfinished).map(([state, count]) => el("div", {}, status(state), count > 1 && ` ${count}`));
  return row(workspaceLink(name), poolLink(pool), now.length ? now : el("span", { class: "quiet" }, "nothing"),
    last && [runLink(last.run_id), " ", status(last.status), el("div", { class: "quiet" }, since(last.created_at), " ago")],
    [lock && el("div", { class: "state-apply_pending" }, `▲ locked by ${lock.by ?? "somebody"}${lock.message ? `: ${lock.message}` : ""}`),
      unsaved && el("div", { class: "destroys" }, "▲ a state is not saved: ", runLink(unsaved))]);
}
