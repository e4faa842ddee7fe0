// The status page: asks the gateway while somebody looks, and shows what it says. Text from outside only ever becomes
// text (textContent); the page's policy (Content-Security-Policy, trusted types) keeps it so.

import { curve, known, sparkline } from "./plots.js";

const LOOK_MS = 2000, CURVES_MS = 10000, LEAST_BINS = 18;
const $ = (id) => document.getElementById(id);
const session = { csrf: null, passwordSet: false, offered: [] };
let span = "hour", curves = null, letterIds = [];

function make(name, text = "", className = "") {
  const made = document.createElement(name);
  if (text !== "") made.textContent = String(text);
  if (className) made.className = className;
  return made;
}

// --- words -------------------------------------------------------------------------------------------------

function age(seconds) {
  seconds = Math.max(0, seconds);
  for (const [step, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds >= 2 * step) return `${Math.floor(seconds / step)} ${unit}`;
  }
  return `${Math.floor(seconds)} s`;
}

function size(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  while (bytes >= 1000 && units.length > 1) { bytes /= 1000; units.shift(); }
  return `${bytes >= 10 || units[0] === "B" ? Math.round(bytes) : bytes.toFixed(1)} ${units[0]}`;
}

const count = (value) => (typeof value === "number" ? value.toLocaleString("en") : "–");
const number = (value) => (value === undefined || value === null ? "–"
  : value.toLocaleString("en", Math.abs(value) >= 1000 ? { maximumFractionDigits: 0 } : { maximumSignificantDigits: 4 }));
const time = (ms) => (ms ? new Date(ms).toISOString().replace("T", " ").slice(0, 19) + "Z" : "–");

// --- parts of the page -------------------------------------------------------------------------------------

function pairs(id, entries) {
  $(id).replaceChildren(...entries.map(([name, value, className]) => {
    const pair = make("div");
    pair.append(make("dt", name), make("dd", value, className));
    return pair;
  }));
}

function table(id, caption, columns, rows) {
  const head = make("tr");
  for (const column of columns) {
    const cell = make("th", column);
    cell.scope = "col";
    head.append(cell);
  }
  const body = make("tbody");
  for (const row of rows) {
    const line = make("tr");
    for (const cell of row) {
      const box = cell instanceof Node ? make("td") : make("td", cell?.text ?? cell ?? "", cell?.className ?? "");
      if (cell instanceof Node) box.append(cell);
      line.append(box);
    }
    body.append(line);
  }
  const top = make("thead");
  top.append(head);
  $(id).replaceChildren(make("caption", caption), top, body);
}

const failed = (part) => part && !Array.isArray(part) && part.error;

function say(id, text, className = "") {  // only what changed: a screen reader reads it aloud
  if ($(id).textContent !== text) $(id).textContent = text;
  $(id).className = className;
}

function show(picture, ageS) {
  const { status, trouble } = picture;
  const link = status.connection;
  const late = ageS > 10 ? `, as of ${age(ageS)} ago` : "";
  say("state", (link.connected ? "connected" : "not connected") + (trouble.length ? `, ${trouble.length} × trouble` : ", all is well") + late,
    trouble.length || !link.connected ? "bad" : "good");
  $("trouble").hidden = !trouble.length;
  $("trouble-list").replaceChildren(...trouble.map((one) => make("li", one.remedy ? `${one.text}; ${one.remedy}` : one.text)));
  overview(status);
  values(picture.newest, status.now_ms);
  day(picture.day);
  controller(status);
  software(picture.update, picture.files);
  letters(picture.dead_letters);
  calls(picture.calls);
  tasks(picture.tasks, status.troubles);
  gateway(status);
  $("all").hidden = false;
}

function overview(status) {
  const { connection: link, archive, delivery, disk, now_ms } = status;
  const since = link.since_ms ? ` for ${age((now_ms - link.since_ms) / 1000)}` : "";
  const ends = delivery.backlog_ends_in_s ? `, gone in ${age(delivery.backlog_ends_in_s)}` : "";
  pairs("overview", [
    ["server", (link.connected ? "connected" : "NOT CONNECTED") + since, link.connected ? "good" : "bad"],
    ["on the way", count(archive.pending) + ends],
    ["rows a second", number(delivery.rows_per_s)],
    ["oldest waiting", archive.oldest_pending_age_s === undefined ? "–" : age(archive.oldest_pending_age_s)],
    ["delivered", count(archive.delivered)],
    ["set aside", count(archive.dead_letters), archive.dead_letters ? "bad" : ""],
    ["link this month", delivery.link ? size(delivery.link.sent_bytes + delivery.link.received_bytes) : "–"],
    ["at its end", delivery.link?.forecast_bytes ? size(delivery.link.forecast_bytes) : "–"],
    ["written a day", delivery.flash?.per_day_bytes ? size(delivery.flash.per_day_bytes) : "–"],
    ["disk free", disk.free_bytes === undefined ? "–" : size(disk.free_bytes)],
    ["controller", status.controller.controller_state ?? "unknown", status.controller.controller_state === "running" ? "good" : ""],
  ]);
}

function values(newest, nowMs) {
  const rows = failed(newest) ? [[newest.error]] : newest.map((row) => [
    row.key, { text: typeof row.value === "number" ? number(row.value) : row.value ?? "–", className: "number" }, sparkline(row.points),
    { text: typeof row.ts_ms === "number" ? `${age((nowMs - row.ts_ms) / 1000)} ago` : "–", className: "nowrap" },
  ]);
  table("values", "From the archive; the line shows the values before.", ["key", "value", "before", "measured"], rows);
}

function day(account) {
  if (!account || account.accepted === undefined) return pairs("day", [["account", "not yet"]]);
  pairs("day", [
    [`accepted in ${age(account.since_s)}`, count(account.accepted)], ["acknowledged", count(account.delivered)],
    ["proven stored", count(account.stored)], ["on the way now", count(account.pending)],
    ["held back", count(account.held)],
    ["set aside", count(account.set_aside)], ["evicted", count(account.evicted), account.evicted ? "bad" : ""],
    ["lost", count(account.lost), account.lost ? "bad" : ""],
  ]);
}

function controller({ controller: found, heartbeat, now_ms }) {
  if (found.error) return pairs("controller", [["state", found.error]]);
  const words = new Set([found.controller_state, found.controller_state_reason].filter(Boolean));
  const entries = [["state", [...words].join(": ")]];
  if (found.controller_version) entries.push(["version", found.controller_version]);
  if (found.controller_running_since_ms) entries.push(["running for", age((now_ms - found.controller_running_since_ms) / 1000)]);
  if (found.controller_restarts !== undefined) entries.push(["restarts", count(found.controller_restarts)]);
  entries.push(["heartbeat", heartbeat?.last_ms ? `${age((now_ms - heartbeat.last_ms) / 1000)} ago` : heartbeat?.error ?? "none yet"]);
  if (found.controller_last_exit_ms) entries.push(["last ended", `${time(found.controller_last_exit_ms)} ${found.controller_last_exit_reason}`]);
  pairs("controller", entries);
}

function software(update, files) {
  if (failed(update)) pairs("update", [["update", update.error]]);
  else {
    const job = update.job;
    const entries = [["wanted version", update.wanted || "none"]];
    if (job) entries.push(["update", `${job.version}: ${job.state} (${job.phase}, attempt ${job.attempt})${job.reason ? ": " + job.reason : ""}`]);
    else entries.push(["update", update.failed ? "the last one failed" : "none in progress", update.failed ? "bad" : ""]);
    if (update.previous) entries.push(["version before", update.previous]);
    pairs("update", entries);
  }
  const rows = failed(files) ? [[files.error]] : files.files.map((file) => [
    file.name, file.error ? { text: file.error, className: "bad" } : file.confirmation || "as wanted", file.version ?? "–", file.hash ?? "–",
  ]);
  const problem = failed(files) || !files.problem ? "" : ` ${files.problem}`;
  table("files", `Remote files${problem}`, ["file", "state", "version", "MD5"], rows);
}

function letters(found) {
  const known = failed(found) ? [] : found;
  letterIds = known.map((letter) => letter.id);
  const rows = failed(found) ? [[found.error]] : known.map((letter) =>
    [letter.id, { text: time(letter.set_aside_ms), className: "nowrap" }, letter.reason, letter.message]);
  table("letters", known.length ? "Records that were set aside, the newest first." : "None.", ["number", "set aside", "reason", "record"], rows);
}

function calls(found) {
  const rows = failed(found) ? [[found.error]] : found.map((call) => [
    { text: time(call.received_ms), className: "nowrap" }, call.here ? "this page" : "server", call.method, call.params, call.state, call.answer]);
  table("calls", "The newest first.", ["time", "from", "method", "parameters", "state", "answer"], rows);
}

function tasks(found, troubles) {
  const rows = failed(found) ? [[found.error]] : Object.entries(found).map(([lane, { workers, waiting }]) =>
    [lane, { text: count(workers), className: "number" }, { text: count(waiting), className: "number" }]);
  for (const [task, reason] of Object.entries(troubles)) rows.push([{ text: task, className: "bad" }, "", reason]);
  table("tasks", "Lanes of the queue, and tasks that cannot do their work.", ["lane", "workers", "waiting"], rows);
}

function gateway(status) {
  pairs("gateway", [
    ["running for", age(status.uptime_s)], ["log level", status.log_level],
    ["versions", Object.entries(status.versions).map((pair) => pair.join(" ")).join(", ")],
  ]);
}

function drawCurves() {
  if (!curves) return;
  const found = curves[span];
  const bins = Math.max(found.backlog.length, LEAST_BINS);  // a young gateway's curve is not squeezed into a corner
  const shown = bins < found.bins ? age(bins * found.step_s) : span;
  $("shown").textContent = `the last ${shown}`;
  const all = [
    ["Rows a second", [found.delivered_per_s, found.accepted_per_s], "dashed: accepted", ""],
    ["Latency to the acknowledgement", [found.latency_ms], "", " ms"],
    ["Backlog", [found.backlog], "", " rows"],
  ];
  $("curves").replaceChildren(...all.map(([title, series, note, unit]) => {
    const values = known(series[0]);
    const words = values.length ? `now ${number(values.at(-1))}${unit}, at most ${number(Math.max(...values))}${unit}` : "nothing yet";
    const figure = make("figure"), caption = make("figcaption");
    caption.append(make("span", title + (note ? ` (${note})` : "")), make("span", words));
    figure.append(caption, curve(series, bins, `${title}, the last ${shown}: ${words}`));
    return figure;
  }));
}

// --- asking ------------------------------------------------------------------------------------------------

async function ask(path, options = {}) {
  const answer = await fetch(path, { credentials: "same-origin", ...options });
  const body = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(body.error), { status: answer.status });
  return body;
}

const post = (path, body) => ask(path, {
  method: "POST", body: JSON.stringify(body),
  headers: { "Content-Type": "application/json", ...(session.csrf ? { "X-CSRF-Token": session.csrf } : {}) },
});

async function look() {
  try {
    const { picture, age_s } = await ask("api/picture");
    if (picture.error) throw new Error(picture.error);
    show(picture, age_s);
    for (const source of ["controller", "gateway"]) if ($(`${source}-log`).open) await readLog(source);
  } catch (error) {
    if (error.status === 401) return signedOut();
    say("state", error.status ? error.message : "the gateway does not answer", "bad");
  }
}

async function readLog(source) {
  const { lines } = await ask(`api/log/${source}`);
  const box = $(`${source}-log`).querySelector("pre");
  const text = lines.join("\n");
  if (box.textContent !== text) { box.textContent = text; box.scrollTop = box.scrollHeight; }
}

async function lookAtCurves() {
  try {
    curves = await ask("api/history");
    drawCurves();
  } catch { /* `look` says what is wrong */ }
}

function every(ms, work) {  // while somebody looks, and never two at a time
  let running = false;
  const turn = async () => {
    if (document.hidden || running || (session.passwordSet && !session.csrf)) return;
    running = true;
    try { await work(); } finally { running = false; }
  };
  setInterval(turn, ms);
  document.addEventListener("visibilitychange", turn);
  return turn;
}

// --- signing in --------------------------------------------------------------------------------------------

function adopt({ csrf, offered }) {
  session.csrf = csrf;
  session.offered = offered ?? [];
  $("sign-in").hidden = !session.passwordSet || Boolean(csrf);
  $("sign-out").hidden = !csrf;
  drawActions();
}

function signedOut() {
  adopt({ csrf: null, offered: [] });
  $("all").hidden = $("trouble").hidden = true;
  say("state", "sign in to look", "");
  if (!$("password-dialog").open) $("password-dialog").showModal();
}

$("sign-in").addEventListener("click", () => $("password-dialog").showModal());
$("password-cancel").addEventListener("click", () => $("password-dialog").close());
$("sign-out").addEventListener("click", async () => { await post("api/sign-out", {}); signedOut(); });
$("password-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    adopt(await post("api/sign-in", { password: $("password").value }));
    $("password").value = $("password-wrong").textContent = "";
    $("password-dialog").close();
    refresh();
  } catch (error) {
    $("password-wrong").textContent = error.message;
  }
});

// --- actions -----------------------------------------------------------------------------------------------

const ACTIONS = [
  { title: "Ping", method: "ping", text: "Answers Pong: the way through the gateway works." },
  { title: "Restart the controller", method: "restart_controller", text: "It is stopped and started again; that takes up to a minute." },
  { title: "Publish again", method: "archive_republish_messages", text: "What the archive holds of this time is sent to the server once more.",
    fields: [["start", "From", "datetime-local"], ["end", "To", "datetime-local"]],
    params: ({ start, end }) => ({ start_timestamp_ms: Date.parse(start), end_timestamp_ms: Date.parse(end) }) },
  { title: "Retry the dead letters", method: "dead_letters", text: "Those shown are checked again by today's rules and sent.", params: () => ({ action: "retry", ids: letterIds }) },
  { title: "Drop the dead letters", method: "dead_letters", text: "Those shown are deleted. They do not come back.", params: () => ({ action: "drop", ids: letterIds }) },
  { title: "Log level", method: "set_log_level", text: "For half an hour, then as before.",
    fields: [["level", "Level", ["DEBUG", "INFO", "WARNING", "ERROR"]]], params: ({ level }) => ({ level, minutes: 30 }) },
  { title: "Tell all files again", method: "init_files", text: "The attributes of the remote files are set anew and read again." },
  { title: "Restart the gateway", method: "exit", text: "The gateway ends, and its service manager starts it again. Nothing is lost." },
  { title: "Reboot the device", method: "reboot", text: "The whole machine starts again." },
];

function drawActions() {
  const offered = ACTIONS.filter((action) => session.offered.includes(action.method));
  $("actions-note").textContent = offered.length ? "" : session.passwordSet ? "Sign in to do something." : "To do something from here, set TEG_CONSOLE_PASSWORD.";
  $("actions").replaceChildren(...offered.map((action) => {
    const button = make("button", action.title);
    button.type = "button";
    button.addEventListener("click", () => confirm(action));
    return button;
  }));
}

function field([name, label, kind]) {
  const box = make("div"), caption = make("label", label);
  const input = make(Array.isArray(kind) ? "select" : "input");
  if (Array.isArray(kind)) input.append(...kind.map((choice) => make("option", choice)));
  else { input.type = kind; input.step = 1; }
  input.name = input.id = caption.htmlFor = `field-${name}`;
  input.required = true;
  box.append(caption, input);
  return box;
}

let confirmed = null;

function confirm(action) {
  confirmed = action;
  $("confirm-title").textContent = `${action.title}?`;
  $("confirm-text").textContent = action.text;
  $("confirm-fields").replaceChildren(...(action.fields ?? []).map(field));
  $("confirm-dialog").showModal();
}

$("confirm-no").addEventListener("click", () => $("confirm-dialog").close());
$("confirm-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const action = confirmed;
  const given = Object.fromEntries((action.fields ?? []).map(([name]) => [name, $(`field-${name}`).value]));
  $("confirm-dialog").close();
  say("outcome", `${action.title} …`);
  try {
    const { answer } = await post("api/call", { method: action.method, params: action.params ? action.params(given) : null });
    say("outcome", `${action.title}: ${typeof answer === "string" ? answer : JSON.stringify(answer)}`);
  } catch (error) {
    say("outcome", `${action.title}: ${error.status ? error.message : "no answer; look at the calls whether it was done"}`, "bad");
    if (error.status === 401) signedOut();
  }
  await look();
});

// --- the start ---------------------------------------------------------------------------------------------

for (const one of ["hour", "week"]) {
  $(`span-${one}`).addEventListener("click", () => {
    span = one;
    for (const other of ["hour", "week"]) $(`span-${other}`).setAttribute("aria-pressed", String(other === span));
    drawCurves();
  });
}
for (const source of ["controller", "gateway"]) $(`${source}-log`).addEventListener("toggle", look);

const turns = [every(LOOK_MS, look), every(CURVES_MS, lookAtCurves)];
const refresh = () => turns.forEach((turn) => turn());

try {
  const found = await ask("api/session");
  session.passwordSet = found.password_set;
  if (found.password_set && !found.signed_in) signedOut();
  else { adopt(found); refresh(); }
} catch (error) {
  say("state", error.status ? error.message : "the gateway does not answer", "bad");
}
