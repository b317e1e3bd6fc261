// One pool on the page.

import { drawChart, highest, makeChart } from "./chart.js";
import {
  align, bound, clock, duration, element, mark, ownLine, say,
} from "./words.js";

const TILES = [
  ["in use", (s) => s.pool_in_use, (s) => (s.pool_max ? `of ${s.pool_max}` : "")],
  ["idle", (s) => s.pool_available, () => ""],
  ["waiting", (s) => s.requests_waiting, () => ""],
  ["connecting", (s) => s.pool_connecting, () => ""],
  ["checkouts/s", (s, pool) => rate(pool), () => ""],
  ["failed so far", (s) => s.requests_errors, () => ""],
];
const TIMES = [["wait", "Waiting"], ["use", "In use"], ["connect", "Connecting"]];
const COLUMNS = ["", "p50", "p99", "p50", "p99", "count"];

function rate(pool) {
  const { count } = pool.times.use.recent;
  if (pool.recent_seconds < 1) return "–";
  const each = count / pool.recent_seconds;
  return each >= 10 ? Math.round(each) : Number(each.toFixed(1));
}

function part(name, title, ...children) {
  return element(
    "section", { class: name }, element("h3", {}, title), ...children,
  );
}

function table(caption, head, name) {
  return element(
    "table", { class: name },
    element("caption", { class: "unseen" }, caption), head, element("tbody"),
  );
}

function headRow(names) {
  return element(
    "tr", {}, ...names.map((name) => element("th", { scope: "col" }, name)),
  );
}

export function makePool({ key }) {
  const id = `pool-${key}`;
  const spans = element(
    "tr", {},
    element("td"),
    element("th", { colspan: 2, scope: "colgroup", class: "recent" }),
    element("th", { colspan: 3, scope: "colgroup" }, "since start"),
  );
  return element(
    "article", { id, "aria-labelledby": `${id}-name`, tabindex: "-1" },
    element(
      "header", {},
      element("h2", { id: `${id}-name` }),
      element("span", { class: "kind" }),
      element("strong", { class: "badge" }),
    ),
    element("div", { class: "cause", hidden: "" }),
    element(
      "dl", { class: "tiles" },
      ...TILES.map(([name]) =>
        element("div", {}, element("dt", {}, name), element("dd"))),
    ),
    element(
      "figure", {},
      element("span", { class: "top", "aria-hidden": "true" }),
      makeChart(),
      element(
        "figcaption", { "aria-hidden": "true" },
        element("span"),
        element("span", { class: "key used" }, "in use"),
        element("span", { class: "key open" }, "idle"),
        element("span", { class: "key waits" }, "waiting"),
        element("span", { class: "key limit" }, "ceiling"),
        element("span", {}, "now"),
      ),
    ),
    element(
      "div", { class: "columns" },
      part("times", "How long it takes",
        table("Durations", element("thead", {}, spans, headRow(COLUMNS)), "numbers")),
      part("errors", "Last errors", element("ul", { tabindex: "0", "aria-label": "Last errors" }), element("p", { class: "none" }, "None seen yet.")),
    ),
    part("holders", "Who has connections", element("ul", { tabindex: "0", "aria-label": "Who has connections" }), element("p", { class: "none" }, "Nobody.")),
    element(
      "details", { class: "connections" },
      element("summary", {}, element("h3", {}, "Connections"), " ", element("span", { class: "count" })),
      table("Connections", element("thead", {}, headRow(["no.", "state", "age", "idle", "uses", "proof of life"])), "numbers"),
    ),
    element(
      "details", { class: "settings" },
      element("summary", {}, element("h3", {}, "Settings")),
      element("dl"),
    ),
    part("advice", "Which size would serve", element("p")),
  );
}

export function showPool(root, { pool, bounds, title, where, state, level }) {
  const find = (selector) => root.querySelector(selector);
  say(find("h2"), title);
  say(find(".kind"), [pool.pool, where].filter(Boolean).join(" · "));
  say(find(".badge"), state);
  mark(find(".badge"), `badge ${level}`);
  showCause(find(".cause"), pool, level);
  root.classList.toggle("is-empty", !pool.stats);
  if (!pool.stats) return;
  TILES.forEach(([name, number, note], index) => {
    const value = find(".tiles").children[index].lastElementChild;
    if (!value.firstChild) value.append(element("span"), " ", element("small"));
    say(value.children[0], number(pool.stats, pool));
    say(value.children[1], note(pool.stats));
    const alarming =
      (name === "waiting" || name === "failed so far") && number(pool.stats) > 0;
    mark(value, alarming ? "alarming" : "");
  });
  const span = drawChart(find("svg"), pool.samples, pool.stats.pool_max);
  say(find("figcaption span"), `${duration(span)} ago`);
  say(find(".top"), highest(pool.samples, pool.stats.pool_max));
  showTimes(root, pool, bounds);
  showErrors(find(".errors"), pool.errors);
  showHolders(find(".holders"), pool.holders);
  showConnections(find(".connections"), pool.connections);
  showSettings(find(".settings dl"), pool.settings);
  say(find(".advice p"), pool.advice.text);
}

function showCause(root, { at, diagnosis, blocked }, level) {
  root.hidden = !diagnosis && !blocked;
  mark(root, `cause ${level}`);
  const lines = [];
  if (blocked) {
    lines.push(["b", `Its event loop has not answered for ${duration(blocked.seconds)}.`]);
    if (blocked.where.length) lines.push(["code", `It stands at ${ownLine(blocked.where)}`]);
  }
  if (blocked && at) lines.push(["p", `What follows is as it was at ${clock(at)}.`]);
  if (diagnosis) {
    lines.push(["b", `Likely cause: ${diagnosis.cause}`]);
    lines.push(["p", diagnosis.finding]);
    lines.push(["p", `Remedy: ${diagnosis.remedy}`]);
  }
  align(root, lines, ([name, text]) => `${name}${text}`,
    ([name]) => element(name), (line, [, text]) => say(line, text));
}

function showTimes(root, pool, bounds) {
  say(root.querySelector(".recent"), `last ${duration(pool.recent_seconds)}`);
  align(root.querySelector(".times tbody"), TIMES, ([name]) => name,
    ([, title]) => element("tr", {}, element("th", { scope: "row" }, title),
      ...COLUMNS.slice(1).map(() => element("td"))),
    (row, [name]) => {
      const all = pool.times[name];
      const cells = [
        ...[all.recent, all].flatMap((each) => [each.p50, each.p99].map(
          (seconds) => bound(seconds, each.count, bounds))),
        all.count.toLocaleString(),
      ];
      cells.forEach((text, index) => say(row.children[index + 1], text));
    });
}

function showErrors(root, errors) {
  root.querySelector(".none").hidden = errors.length > 0;
  align(root.querySelector("ul"), errors, (each) => each.what + each.text,
    (each) => element("li", {}, element("b", {}, each.what), " ", element("small"),
      element("span", { class: "text" }, each.text)),
    (item, each) => {
      const often = each.times > 1 ? `reported ${each.times.toLocaleString()} times from ${clock(each.first)} to ` : "at ";
      say(item.querySelector("small"), often + clock(each.last));
    });
}

function showHolders(root, holders) {
  root.querySelector(".none").hidden = holders.length > 0;
  align(root.querySelector("ul"), holders,
    (each) => `${each.connection_id} ${each.name} ${each.ident}`,
    () => element("li", {},
      element("span", { class: "long" }), " ", element("b"), " ",
      element("span", { class: "tag" }, "in the database"), " ",
      element("small"),
      element("code", { class: "place" }),
      element("details", {}, element("summary", {}, "Whole stack"),
        element("ol", { class: "stack" }),
        element("p", { class: "taken" }, "Checked out at"),
        element("ol", { class: "stack" }))),
    (item, each) => {
      const [now, taken] = item.querySelectorAll("ol");
      say(item.querySelector(".long"), duration(each.seconds));
      say(item.querySelector("b"), each.name);
      say(item.querySelector("small"), `connection ${each.connection_id}`);
      item.querySelector(".tag").hidden = !each.in_database;
      say(item.querySelector(".place"),
        ownLine(each.where) || "It has ended, and did not return the connection.");
      item.querySelector(".taken").hidden = !each.taken.length;
      item.querySelector("details").hidden = each.where.length < 2 && !each.taken.length;
      showLines(now, each.where);
      showLines(taken, each.taken);
    });
}

function showLines(list, lines) {
  align(list, lines.map((text, index) => [index, text]), ([index]) => index,
    () => element("li", {}, element("code")),
    (item, [, text]) => say(item.firstElementChild, text));
}

function showConnections(root, connections) {
  say(root.querySelector(".count"), connections.length);
  align(root.querySelector("tbody"), connections, (each) => each.id,
    () => element("tr", {}, element("th", { scope: "row" }),
      ...Array.from({ length: 5 }, () => element("td"))),
    (row, each) => {
      const cells = [
        each.id, each.state, duration(each.age),
        each.state === "in use" ? "–" : duration(each.idle),
        each.uses.toLocaleString(), `${duration(each.proven)} ago`,
      ];
      cells.forEach((text, index) => say(row.children[index], text));
      mark(row.children[1], each.state.replace(" ", "-"));
    });
}

function showSettings(root, settings) {
  align(root, Object.entries(settings), ([name]) => name,
    ([name]) => element("div", {}, element("dt", {}, name), element("dd")),
    (item, [, value]) => say(item.lastElementChild, value === null ? "none" : value));
}
