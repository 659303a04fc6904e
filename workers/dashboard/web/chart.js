// A chart over time as SVG: steps of the largest number in each point's time, with gaps where nothing is known.

import { el } from "./dom.js";
import { moment } from "./words.js";

const WIDEST = 900;
const HEIGHT = 160;
const LEFT = 36;
const BOTTOM = 20;
const LEAST = 10 * 60_000; // milliseconds that a chart stands for

/**
 * Return a chart of `series`, `[{name, key, sign}]`, over the samples of a history, with `marks`, `[{at, words}]`, on it.
 * What a mark says is told below the chart when it is pointed at or has the focus. The tab key leads to the last one,
 * the arrows to the others.
 */
export function chart(label, { since, until, seconds, samples }, series, marks = []) {
  const to = Date.parse(until);
  // A pool that is younger than the time that is asked for is shown from its beginning.
  const from = Math.max(Date.parse(since), Math.min(Date.parse(samples[0].at), to - LEAST));
  const most = Math.max(1, ...samples.flatMap((sample) => series.map(({ key }) => sample[key])));
  const width = Math.min(WIDEST, document.getElementById("content").clientWidth);
  const x = (at) => LEFT + ((width - LEFT) * (Math.min(to, Date.parse(at)) - from)) / Math.max(1, to - from);
  const y = (value) => (HEIGHT - BOTTOM) * (1 - value / most) + 4;
  const gap = Math.max(seconds, 90) * 1000;
  const said = el("p", { class: "quiet chart-said" }, marks.length > 0 && "▲ A decision: point at it, or go there by Tab and the arrows.");
  const picture = el("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, class: "chart", role: "group", "aria-label": label, keydown: walk },
    [0, most].map((value) => axis(value, y(value), width)),
    [from, to].map((at, end) => el("text", { x: end ? width : LEFT, y: HEIGHT - 4, "text-anchor": end ? "end" : "start" },
      new Date(at).toLocaleString(undefined, { dateStyle: "short", timeStyle: "short" }))),
    series.map(({ key }, place) => el("path", { class: `line line-${place}`, d: steps(samples, key, x, y, gap, seconds * 1000) })),
    marks.filter(({ at }) => Date.parse(at) >= from).sort((one, other) => Date.parse(one.at) - Date.parse(other.at))
      .map((mark, place, { length }) => markOn(mark, x(mark.at), said, place === length - 1)));
  const legend = el("ul", { class: "legend" }, series.map(({ name }, place) =>
    el("li", {}, el("span", { class: `swatch swatch-${place}`, "aria-hidden": "true" }), name)));
  return el("figure", { class: "chart-box" }, el("figcaption", {}, label, legend), picture, said);
}

function axis(value, y, width) {
  return [el("line", { class: "axis", x1: LEFT, x2: width, y1: y, y2: y }),
    el("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" }, String(value))];
}

function steps(samples, key, x, y, gap, length) {
  let path = "";
  samples.forEach((sample, place) => {
    const next = samples[place + 1];
    const before = samples[place - 1];
    const joined = before && Date.parse(sample.at) - Date.parse(before.at) <= gap;
    const at = x(sample.at).toFixed(1);
    path += joined ? `V${y(sample[key]).toFixed(1)}` : `M${at} ${y(sample[key]).toFixed(1)}`;
    const ends = next && Date.parse(next.at) - Date.parse(sample.at) <= gap
      ? next.at : new Date(Date.parse(sample.at) + length).toISOString();
    path += `H${x(ends).toFixed(1)}`;
  });
  return path;
}

function markOn({ words, at }, x, said, last) {
  const tell = () => { said.textContent = `${moment(at)}: ${words}`; };
  return el("g", { class: "mark", tabindex: last ? "0" : "-1", role: "img", "aria-label": words, focus: tell, mouseenter: tell },
    el("line", { x1: x, x2: x, y1: 4, y2: HEIGHT - BOTTOM }), el("path", { d: `M${x} 2l6 10h-12z` }));
}

function walk(event) {
  const next = { ArrowLeft: "previousElementSibling", ArrowRight: "nextElementSibling" }[event.key];
  const mark = next && event.target[next];
  if (!mark?.classList.contains("mark")) return;
  event.preventDefault();
  mark.focus();
}
