// Elements and words.  Text goes into the page as text only, never as markup.

export function element(name, options = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(options)) {
    if (key === "class") made.className = value;
    else made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

// Change the text only if it differs: a selection in it is lost otherwise.
export function say(where, text) {
  if (where.textContent !== String(text)) where.textContent = text;
}

export function mark(where, className) {
  if (where.className !== className) where.className = className;
}

// Bring a list of elements in line with values, and keep those that stay:
// what is open in them, or has the focus, stays so.
export function align(parent, values, keyOf, make, update) {
  const before = new Map();
  for (const child of parent.children) before.set(child.dataset.key, child);
  let place = parent.firstElementChild;
  for (const value of values) {
    const key = String(keyOf(value));
    let child = before.get(key);
    before.delete(key);
    if (child === undefined) {
      child = make(value);
      child.dataset.key = key;
    }
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
    update(child, value);
  }
  for (const gone of before.values()) gone.remove();
}

const UNITS = [
  [86400, "d"],
  [3600, "h"],
  [60, "min"],
];

export function duration(seconds) {
  for (const [length, unit] of UNITS) {
    if (seconds >= 2 * length) return `${Math.floor(seconds / length)} ${unit}`;
  }
  if (seconds >= 10) return `${Math.floor(seconds)} s`;
  if (seconds >= 1) return `${seconds.toFixed(1)} s`;
  if (seconds > 0) return `${Math.max(1, Math.round(seconds * 1000))} ms`;
  return "0";
}

// A quantile is the upper bound of a bucket; null is beyond the last bound.
export function bound(seconds, count, bounds) {
  if (count === 0) return "–";
  if (seconds === null) return `> ${duration(bounds.at(-1))}`;
  return duration(seconds);
}

// Of a stack, the line that its reader has probably written: the innermost
// one outside of libraries.
export function ownLine(lines) {
  const own = (line) => !/[/\\](site|dist)-packages[/\\]|[/\\]lib[/\\]python/i.test(line);
  return lines.findLast(own) || lines.at(-1);
}

export function clock(at) {
  return new Date(at * 1000).toLocaleTimeString();
}
