// What the page asks the server for: the HTTP API of /api/v1, which decides who may do what.

const page = document.getElementById("page");

/** The path below which the dashboard is served. */
export const root = page.dataset.root;
/** The run, pool or workspace of the page; "" where it shows several. */
export const name = page.dataset.name;

const API = `${root}/api/v1`;
const SIGNED_OUT = "You are signed in no longer: load this page again.";
let ahead = 0; // milliseconds that the server's clock is ahead of this one's

/** Whether the server has asked for another sign-in. Then nothing more is asked: a browser would prompt each time. */
export let signedOut = false;

/** What kept the server from answering. `status` is 0 where nothing answered at all. */
export class Problem extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** The server's time, in milliseconds. */
export function now() {
  return Date.now() + ahead;
}

/** Return what a path of the API answers; a list in the query is repeated, what is empty in it is left out. */
export function get(path, query = {}) {
  const found = new URLSearchParams();
  for (const [key, value] of Object.entries(query)) {
    for (const one of [value].flat()) if (one !== null && one !== undefined && one !== "") found.append(key, one);
  }
  const asked = found.toString();
  return answered(asked ? `${path}?${asked}` : path, {});
}

/** Change something; returns the answer. */
export function post(path, body) {
  const headers = { "Content-Type": "application/json" };
  return answered(path, { method: "POST", headers, body: JSON.stringify(body) });
}

async function answered(path, options) {
  const response = await asked(path, options);
  try {
    return await response.json();
  } catch {
    throw new Problem(response.status, "The dashboard's answer was cut short.");
  }
}

/** Hand the documents of a stream to `take`, several at a time, until it ends. */
export async function stream(path, take, signal) {
  const response = await asked(path, { signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    if (lines.length) take(lines.map((line) => JSON.parse(line)));
  }
}

async function asked(path, options) {
  if (signedOut) throw new Problem(401, SIGNED_OUT);
  let response;
  try {
    response = await fetch(API + path, { credentials: "same-origin", cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "The dashboard does not answer.");
  }
  const date = Date.parse(response.headers.get("Date"));
  // It has whole seconds: what is shown would go back and forth with less.
  if (Math.abs(date - Date.now() - ahead) > 2_000) ahead = date - Date.now();
  if (response.status === 401) signedOut = true;
  if (!response.ok) throw new Problem(response.status, await detail(response));
  return response;
}

async function detail(response) {
  if (signedOut) return SIGNED_OUT;
  try {
    return (await response.json()).detail;
  } catch {
    return `The dashboard answered ${response.status}.`;
  }
}
