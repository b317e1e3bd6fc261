// The size of a pool over time: filled what is in use, in front of what is
// open; a line for the ceiling, and one for those who wait.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 600;
const HEIGHT = 120;
const SPAN = 300; // seconds, when there is so much
const SHORTEST = 60;
const GAP = 12; // without a sample for so long nobody looked

function svg(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) {
    made.setAttribute(key, value);
  }
  return made;
}

export function makeChart() {
  const root = svg("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
    preserveAspectRatio: "none",
    role: "img",
  });
  for (const name of ["grid", "open", "used", "limit", "halo", "waits"]) {
    root.append(svg("path", { class: name }));
  }
  return root;
}

// Stretches in which somebody looked.
function stretches(samples, begin) {
  const found = [];
  let last = -Infinity;
  for (const sample of samples) {
    if (sample[0] < begin) continue;
    if (sample[0] - last > GAP) found.push([]);
    found.at(-1).push(sample);
    last = sample[0];
  }
  return found;
}

export function highest(samples, limit) {
  return Math.max(1, limit, ...samples.map((s) => Math.max(s[1], s[3])));
}

// Draws, and returns how many seconds the chart covers.
export function drawChart(root, samples, limit) {
  const end = samples.at(-1)[0];
  const span = Math.min(SPAN, Math.max(SHORTEST, end - samples[0][0]));
  const begin = end - span;
  const shown = samples.filter((sample) => sample[0] >= begin);
  const top = highest(shown, limit) * 1.06;
  const x = (at) => (((at - begin) / span) * WIDTH).toFixed(1);
  const y = (number) => (HEIGHT * (1 - number / top)).toFixed(1);
  const parts = stretches(shown, begin);
  const line = (part, index) =>
    part.map((s, i) => `${i ? "L" : "M"}${x(s[0])} ${y(s[index])}`).join("");
  const area = (part, index) =>
    `${line(part, index)}L${x(part.at(-1)[0])} ${HEIGHT}` +
    `L${x(part[0][0])} ${HEIGHT}Z`;
  // only where somebody waits: the ground belongs to what is in use
  const step = (a, b) =>
    a[3] || b[3] ? `M${x(a[0])} ${y(a[3])}L${x(b[0])} ${y(b[3])}` : "";
  const waits = parts
    .map((part) => part.slice(1).map((s, i) => step(part[i], s)).join(""))
    .join("");
  const paths = {
    grid: [0, 0.25, 0.5, 0.75, 1]
      .map((part) => `M${WIDTH * part} 0V${HEIGHT}`)
      .join(""),
    open: parts.map((part) => area(part, 1)).join(""),
    used: parts.map((part) => area(part, 2)).join(""),
    limit: limit ? `M0 ${y(limit)}H${WIDTH}` : "",
    halo: waits, // so that the line is seen in front of anything
    waits,
  };
  for (const path of root.children) {
    path.setAttribute("d", paths[path.getAttribute("class")]);
  }
  root.setAttribute("aria-label", told(shown, span, limit));
  return span;
}

function told(samples, span, limit) {
  const range = (index) => {
    const numbers = samples.map((sample) => sample[index]);
    return `${Math.min(...numbers)} to ${Math.max(...numbers)}`;
  };
  return (
    `In the last ${Math.round(span)} seconds ${range(1)} connections were open, ` +
    `${range(2)} in use, and ${range(3)} callers waited` +
    (limit ? `; the ceiling is ${limit}` : "")
  );
}
