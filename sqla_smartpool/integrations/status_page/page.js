// Asks for the numbers again and again, and shows them.

import { makePool, showPool } from "./pool.js";
import { align, clock, duration, element, mark, say } from "./words.js";

const INTERVAL = 2; // seconds
const LONGEST = 30; // seconds between attempts while there is no answer
const PATIENCE = 10; // seconds for an answer
const FORGOTTEN = 60; // seconds after which a process is not shown any more

const find = (id) => document.getElementById(id);

// What was last told, by process and place in its list: behind one address
// there may be several processes, and each tells of its own pools.
const known = new Map();
let failures = 0;
let fetchedAt = 0;
let held = false;
let timer = 0;
let asking = false;

async function ask() {
  const answer = await fetch("json", {
    cache: "no-store",
    signal: AbortSignal.timeout(PATIENCE * 1000),
  });
  const kind = answer.headers.get("Content-Type") || "";
  if (!answer.ok) throw new Error(`the answer was HTTP ${answer.status}`);
  if (!kind.startsWith("application/json")) {
    throw new Error("the answer is another page; are you still signed in?");
  }
  return answer.json();
}

function take(told) {
  const now = Date.now() / 1000;
  told.pools.forEach((pool, place) => {
    const key = `${told.process}-${place}`;
    const { process, bounds } = told;
    known.set(key, { key, process, bounds, pool, seen: now });
  });
  for (const [key, each] of known) {
    if (now - each.seen > FORGOTTEN) known.delete(key);
  }
}

function show() {
  const processes = new Set([...known.values()].map((each) => each.process));
  const pools = [...known.values()].sort((a, b) => a.process - b.process);
  for (const each of pools) {
    each.title = each.pool.name;
    each.where = processes.size > 1 ? `process ${each.process}` : "";
  }
  tellChanges(pools);
  align(find("pools"), pools, (each) => each.key, makePool, showPool);
  const overview = find("overview");
  overview.hidden = pools.length < 2;
  align(
    overview.firstElementChild, pools, (each) => each.key, makeLink, showLink,
  );
}

function makeLink(each) {
  const link = element("a", { href: `#pool-${each.key}` });
  link.append(element("span"), " ", element("b"), " ", element("small"));
  return element("li", {}, link);
}

function showLink(item, each) {
  const [state, name, note] = item.firstElementChild.children;
  const stats = each.pool.stats;
  mark(state, `dot ${each.level}`);
  say(name, [each.title, each.where].filter(Boolean).join(", "));
  const numbers = stats ? `${stats.pool_in_use} in use` : "";
  say(note, each.level === "good" ? numbers : each.state);
}

// Who cannot see the page is told when a state changes, and nothing else.
let states = new Map();

function tellChanges(pools) {
  const now = new Map();
  const changes = [];
  for (const each of pools) {
    each.state = each.pool.blocked ? "no answer" : each.pool.state;
    each.level = level(each.state);
    now.set(each.key, each.state);
    const before = states.get(each.key);
    if (before !== undefined && before !== each.state) {
      changes.push(`${each.title}: ${each.state}`);
    }
  }
  states = now;
  if (changes.length) say(find("said"), changes.join(". "));
}

function level(state) {
  if (state === "fine") return "good";
  return state === "callers wait" || state === "paused" ? "fair" : "bad";
}

async function refresh() {
  clearTimeout(timer);
  if (asking || held || document.hidden) return;
  asking = true;
  let wait = INTERVAL;
  try {
    let told = null;
    try {
      told = await ask();
      failures = 0;
    } catch (error) {
      failures += 1;
      wait = Math.min(INTERVAL * 2 ** failures, LONGEST);
      tellStale(error, wait);
    }
    if (told && !held) tellFresh(told);
  } finally {
    asking = false;
    // not all pages of a wall of screens at the same moment
    timer = setTimeout(refresh, wait * 1000 * (0.9 + 0.2 * Math.random()));
  }
}

function tellFresh(told) {
  fetchedAt = Date.now() / 1000;
  find("stale").hidden = true;
  document.body.classList.remove("is-stale");
  say(find("when"), `live, ${clock(fetchedAt)}`);
  take(told);
  show();
}

function tellStale(error, wait) {
  const since = fetchedAt ? `Stale since ${clock(fetchedAt)}` : "No data yet";
  const words = {
    TimeoutError: `no answer within ${PATIENCE} s`,
    TypeError: "the application cannot be reached",
  };
  const why = words[error.name] || error.message;
  const stale = find("stale");
  stale.hidden = false;
  say(stale, `${since}: ${why}. Next attempt in ${duration(wait)}.`);
  say(find("when"), "stale");
  document.body.classList.add("is-stale");
}

find("hold").addEventListener("click", () => {
  held = !held;
  find("hold").setAttribute("aria-pressed", String(held));
  document.body.classList.toggle("is-held", held);
  if (held) say(find("when"), `held since ${clock(Date.now() / 1000)}`);
  refresh();
});
document.addEventListener("visibilitychange", refresh);
window.addEventListener("online", refresh);
refresh();
