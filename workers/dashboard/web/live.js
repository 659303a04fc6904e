// Keeps a page true: one stream says what has changed, and the page looks at it again.

import { Problem, root, signedOut } from "./api.js";

const LONGEST_PAUSE = 15_000; // milliseconds between two attempts to come back
const REST = 2; // times as long as a look has taken nobody looks again: a server that is busy is left in peace
const LONGEST_REST = 10_000;
const FIRST_LOOK = 1_500; // milliseconds after which a page is shown whose stream is held back on its way
const LONGEST_SILENCE = 45_000; // milliseconds: the server says something every 20 s, a connection that died says nothing
const connection = document.getElementById("connection");
const problem = document.getElementById("problem");
const content = document.getElementById("content");

/**
 * Call `look` when the stream of changes begins, and again whenever something changes that `concerns` it:
 * `concerns({runs, pools})` gets sets of ids and names. `look` reads and shows; a problem that it throws is shown above
 * the page, which keeps what it showed. Returns a function that looks at once.
 */
export function live(look, concerns = () => true) {
  let busy = false;
  let again = false;

  async function renew() {
    if (busy) {
      again = true;
      return;
    }
    busy = true;
    try {
      do {
        again = false;
        const begun = Date.now();
        await attempt(look);
        await rest(REST * (Date.now() - begun));
      } while (again);
    } finally {
      busy = false;
    }
  }

  follow((change) => {
    if (change === null || concerns(change)) renew();
  });
  return renew;
}

function rest(milliseconds) {
  return new Promise((done) => { window.setTimeout(done, Math.min(milliseconds, LONGEST_REST)); });
}

async function attempt(look) {
  try {
    await look();
    say(problem, null);
    content.removeAttribute("aria-busy");
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    // A page that shows something says already that its connection is lost.
    if (error.status !== 0 || content.hasAttribute("aria-busy")) say(problem, error.message);
  }
}

/** Show words, or hide their place; the same words are not read aloud again. */
export function say(place, words) {
  if (place.textContent !== (words ?? "")) place.textContent = words ?? "";
  place.hidden = words === null;
}

/** Hand changes to `hear`, and null where anything may have changed meanwhile. A page that nobody sees has no stream. */
function follow(hear) {
  let source = null;
  let pause = 500;
  let timer = 0;

  function open() {
    if (source !== null || document.hidden || signedOut) return;
    source = new EventSource(`${root}/api/v1/changes`);
    expect(() => {
      hear(null);
      expect(lose, LONGEST_SILENCE);
    }, FIRST_LOOK);
    source.onmessage = ({ data }) => {
      const change = JSON.parse(data);
      pause = 500;
      expect(lose, LONGEST_SILENCE);
      if (change.problem) return shown("lost", `${change.problem} This is how it was.`);
      shown("live", "live");
      hear(change.everything ? null : { runs: new Set(change.runs), pools: new Set(change.pools) });
    };
    source.onerror = lose;
  }

  function lose() {
    close();
    shown("lost", "The connection is lost: this is how it was.");
    hear(null); // what is answered says why, where it is more than a connection
    expect(open, pause);
    pause = Math.min(pause * 2, LONGEST_PAUSE);
  }

  function expect(next, milliseconds) {
    window.clearTimeout(timer);
    timer = window.setTimeout(next, milliseconds);
  }

  function close() {
    window.clearTimeout(timer);
    source?.close();
    source = null;
  }

  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  window.addEventListener("pagehide", close);
  window.addEventListener("pageshow", open);
  if (document.hidden) hear(null); // a tab that was opened in the background is there when somebody comes
  open();
}

function shown(state, words) {
  connection.dataset.state = state;
  say(connection, words);
}
