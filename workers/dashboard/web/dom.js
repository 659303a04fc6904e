// Elements of the page. Whatever Terraform or people wrote becomes text, never markup.

/** Return an element. Attributes that are functions listen to the event of their name; null and false leave one out. */
export function el(tag, attributes = {}, ...children) {
  const element = tag === "svg" || SVG.has(tag)
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const SVG = new Set(["g", "path", "line", "text"]);
const shown = new WeakMap();

/**
 * Make the children of an element those of a list of `[key, facts, make]`: one whose facts are what they were stays as
 * it is, with its focus, its scrolling and what is unfolded in it; one whose facts changed is made anew by `make()`.
 */
export function keep(parent, parts) {
  const before = shown.get(parent) ?? new Map();
  const after = new Map();
  for (const [key, facts, make] of parts) {
    const signature = JSON.stringify(facts);
    const known = before.get(key);
    after.set(key, known?.signature === signature ? known : { signature, element: make() });
  }
  const focus = focused(parent);
  const elements = [...after.values()].map((part) => part.element);
  const staying = new Set(elements);
  // What is no longer shown goes first: an element that is moved loses its scrolling.
  for (const child of [...parent.childNodes]) if (!staying.has(child)) child.remove();
  elements.forEach((element, place) => {
    if (parent.childNodes[place] !== element) parent.insertBefore(element, parent.childNodes[place] ?? null);
  });
  shown.set(parent, after);
  if (focus && !parent.contains(document.activeElement)) parent.querySelector(focus)?.focus();
}

/** Return a selector of what has the focus in an element, by its id or where it leads; "" where nothing has. */
function focused(parent) {
  const active = document.activeElement;
  if (!parent.contains(active)) return "";
  if (active.id) return `#${CSS.escape(active.id)}`;
  const leads = active.getAttribute("href");
  return leads ? `a[href="${CSS.escape(leads)}"]` : "";
}

/** Return a table in a box that scrolls sideways, and its body; columns are the words of its head. */
export function table(label, columns) {
  const body = el("tbody");
  // On a phone a row is a list: there the style sheet puts these names before its cells.
  columns.forEach((column, place) => body.style.setProperty(`--column-${place + 1}`, JSON.stringify(column)));
  const head = el("thead", {}, el("tr", {}, columns.map((column) => el("th", { scope: "col" }, column))));
  const box = el("div", { class: "scrolls", tabindex: "0", role: "group", "aria-label": label },
    el("table", { class: "table", role: "table" }, head, body));
  return { box, body };
}

/** Return a row of a table. */
export function row(...cells) {
  return el("tr", { role: "row" }, cells.map((cell) => el("td", { role: "cell" }, cell)));
}

/** Return a panel with a title. */
export function panel(title, ...children) {
  return el("section", { class: "panel", "aria-label": title }, el("h2", { class: "panel-title" }, title), children);
}
