// The console: what the API says, drawn anew every second. Texts of others are set as text, never as markup.

const API = "api/v1/";
const SECOND = 1000;
const SHOWN_LINES = 300;
const SAMPLES = 60;
const AUDIO_OR_VIDEO = /\.(webm|mkv|mka|mp4|ogg|opus)$/;
// Phases in the order of a join (bot.events.PhaseDone), and the colour of each.
const PHASES = { websocket: "a", sasl: "b", bind: "b", focus: "c", muc: "c", offer: "d", ice: "e", dtls: "f",
  first_packet_out: "g", first_packet_in: "g", channel: "g" };
const GOOD = new Set(["active", "done", "waiting_for_peers", "ok", "met", "ready"]);
const BAD = new Set(["failed", "critical", "missed"]);

const byId = (id) => document.getElementById(id);
let token = sessionStorage.getItem("token") ?? "";
let mayOperate = true;

// --- asking ---------------------------------------------------------------------------------------------------

class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail ?? `answer ${status}`);
    this.status = status;
  }
}

function headers(more = {}) {
  return token ? { ...more, Authorization: `Bearer ${token}` } : more;
}

async function ask(method, path, body) {
  const answer = await fetch(API + path, {
    method,
    headers: headers(body === undefined ? {} : { "Content-Type": "application/json" }),
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (answer.status === 401) await login();
  if (!answer.ok) throw new Refused(answer.status, await answer.json().catch(() => ({})));
  return answer.status === 200 || answer.status === 201 ? answer.json() : null;
}

let asking = null;

function login() {
  asking ??= new Promise((done) => {
    const dialog = byId("login");
    dialog.addEventListener("close", () => {
      token = dialog.querySelector("input").value.trim();
      sessionStorage.setItem("token", token);
      dialog.querySelector("input").value = "";
      asking = null;
      done();
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}

function complain(error) {
  byId("problem").textContent = error ? error.message : "";
  byId("problem").hidden = !error;
}

async function act(work) {
  try {
    complain(null);
    await work();
    await refresh();
  } catch (error) {
    complain(error);
  }
}

// --- building -------------------------------------------------------------------------------------------------

function make(tag, attributes = {}, ...children) {
  const found = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) found.addEventListener(name.slice(2), value);
    else if (name === "class") found.className = value;
    else if (value !== null && value !== false) found.setAttribute(name, value === true ? "" : value);
  }
  found.append(...children);
  return found;
}

function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

// One child for each item, kept from one second to the next: whoever has the focus in it keeps it.
function sync(parent, items, key, create, update) {
  const known = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let at = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    let child = known.get(name);
    if (child) known.delete(name);
    else {
      child = create(item);
      child.dataset.key = name;
    }
    if (child === at) at = at.nextElementSibling;
    else parent.insertBefore(child, at);
    update(child, item);
  }
  for (const child of known.values()) child.remove();
}

function badge(element, word) {
  text(element, word.replaceAll("_", " "));
  element.className = `badge ${GOOD.has(word) ? "good" : BAD.has(word) ? "bad" : "odd"}`;
}

function bits(value) {
  return value >= 1e6 ? `${(value / 1e6).toFixed(1)} Mbit/s` : `${Math.round(value / 1e3)} kbit/s`;
}

function bytes(value) {
  return value >= 1e6 ? `${(value / 1e6).toFixed(1)} MB` : `${Math.ceil(value / 1e3)} kB`;
}

function seconds(value) {
  return value < 1 ? `${Math.round(value * 1000)} ms` : value < 100 ? `${value.toFixed(1)} s` : `${Math.round(value)} s`;
}

function clock(at) {
  return new Date(at * 1000).toLocaleTimeString([], { hour12: false });
}

function part(card, name) {
  return card.querySelector(`[data-part="${name}"]`);
}

const SVG = "http://www.w3.org/2000/svg";

// Lines of numbers over their whole width; all share one scale that begins at 0.
function chart(svg, rows, most = Math.max(1, ...rows.flat())) {
  rows.forEach((row, number) => {
    const line = svg.children[number] ?? svg.appendChild(document.createElementNS(SVG, "polyline"));
    line.setAttribute("class", number ? "two" : "one");
    const step = 100 / Math.max(1, row.length - 1);
    line.setAttribute("points", row.map((value, at) => `${(at * step).toFixed(2)},${(39 - (38 * value) / most).toFixed(2)}`).join(" "));
  });
}

function emptyChart(label, kind = "") {
  const svg = document.createElementNS(SVG, "svg");
  for (const [name, value] of Object.entries({ class: `chart ${kind}`, viewBox: "0 0 100 40", preserveAspectRatio: "none", role: "img", "aria-label": label })) svg.setAttribute(name, value);
  return svg;
}

// --- participants ---------------------------------------------------------------------------------------------

const rates = new Map();

function keepRates(items) {
  for (const item of items) {
    const row = rates.get(item.id) ?? [];
    row.push([item.media?.bitrate_received ?? 0, item.media?.bitrate_sent ?? 0]);
    rates.set(item.id, row.slice(-SAMPLES));
  }
  for (const id of rates.keys()) if (!items.some((item) => item.id === id)) rates.delete(id);
}

function showParticipants(items) {
  keepRates(items);
  const states = new Map();
  const rooms = new Map();
  for (const item of items) {
    states.set(item.state, (states.get(item.state) ?? 0) + 1);
    rooms.set(item.room, [...(rooms.get(item.room) ?? []), item]);
  }
  sync(byId("states"), [...states], ([state]) => state, () => make("span"), (child, [state, count]) => {
    badge(child, state);
    text(child, `${count} ${state.replaceAll("_", " ")}`);
  });
  sync(byId("rooms"), [...rooms].sort(), ([room]) => room, newRoom, (child, [, members]) => {
    text(part(child, "count"), `${members.length} of this daemon`);
    sync(part(child, "cards"), members, (item) => item.id, newParticipant, showParticipant);
  });
}

function newRoom([room]) {
  return make("div", { class: "room" },
    make("header", {}, make("h3", {}, room), make("span", { class: "soft", "data-part": "count" })),
    make("div", { class: "cards", "data-part": "cards" }));
}

function newParticipant(item) {
  const path = `participants/${item.id}`;
  const mute = (kind) => make("button", {
    type: "button", "aria-pressed": "false", "data-part": `mute-${kind}`,
    onclick: (event) => act(() => ask("PATCH", path, { [`${kind}_muted`]: event.target.getAttribute("aria-pressed") !== "true" })),
  }, kind === "audio" ? "Mute sound" : "Mute picture");
  return make("article", { class: "card", "aria-label": `Participant ${item.id}` },
    make("div", { class: "top" }, make("h3", {}, item.name), make("span", { "data-part": "state" })),
    make("p", { class: "caption", "data-part": "about" }),
    make("dl", { class: "rates" }, ...[["receives", "in"], ["sends", "out"], ["loss", "loss"]].map(([label, name]) =>
      make("div", {}, make("dt", {}, label), make("dd", { "data-part": name }, "–")))),
    emptyChart("Bit rates of the last minute, received and sent", "spark"),
    make("div", { class: "phases", role: "img", "data-part": "phases" }),
    make("p", { class: "caption", "data-part": "phase-text" }),
    make("p", { class: "error", "data-part": "error", hidden: true }),
    make("form", { onsubmit: (event) => {
      event.preventDefault();
      const field = event.target.elements.text;
      act(async () => { await ask("POST", `${path}/messages`, { text: field.value }); field.value = ""; });
    }, "data-part": "chat" }, make("input", { name: "text", required: true, maxlength: "4000", placeholder: "Write to the room", "aria-label": `Message of ${item.name}` }), make("button", {}, "Send")),
    make("div", { class: "actions" }, mute("audio"), mute("video"),
      make("button", { type: "button", onclick: () => filterBy(item.id) }, "Log"),
      make("button", { type: "button", class: "stop", "data-part": "stop", onclick: () => act(() => ask("DELETE", path)) }, "Leave")));
}

function showParticipant(card, item) {
  badge(part(card, "state"), item.leaving ? "leaving" : item.state);
  text(part(card, "about"), [item.id, item.endpoint && `endpoint ${item.endpoint}`, `${item.others} ${item.others === 1 ? "other" : "others"}`, `since ${clock(item.since)}`, item.layout].filter(Boolean).join(" · "));
  text(part(card, "in"), item.media ? bits(item.media.bitrate_received) : "–");
  text(part(card, "out"), item.media ? bits(item.media.bitrate_sent) : "–");
  text(part(card, "loss"), item.media ? `${(item.media.loss * 100).toFixed(1)} %` : "–");
  const row = rates.get(item.id);
  chart(card.querySelector("svg"), [row.map((one) => one[0]), row.map((one) => one[1])]);
  showPhases(card, item.phases);
  text(part(card, "error"), item.error ? `${item.error.code}: ${item.error.message}` : "");
  part(card, "error").hidden = !item.error;
  for (const kind of ["audio", "video"]) {
    const button = part(card, `mute-${kind}`);
    const source = item.sources.find((one) => one.media === kind);
    button.disabled = !mayOperate || !source;
    button.setAttribute("aria-pressed", String(source?.muted ?? false));
  }
  part(card, "chat").hidden = !mayOperate || !item.in_room;
  part(card, "stop").disabled = !mayOperate || item.leaving;
}

function showPhases(card, phases) {
  const found = Object.entries(phases).filter(([name]) => name in PHASES);
  const total = found.reduce((sum, [, value]) => sum + value, 0);
  sync(part(card, "phases"), found, ([name]) => name, ([name]) => make("span", { class: PHASES[name] }), (child, [name, value]) => {
    child.style.flexGrow = String(Math.max(1, (1000 * value) / total));
    child.title = `${name} ${seconds(value)}`;
  });
  const words = found.map(([name, value]) => `${name.replaceAll("_", " ")} ${seconds(value)}`).join(", ");
  part(card, "phases").setAttribute("aria-label", `Phases of joining: ${words || "none yet"}`);
  const slowest = found.reduce((one, two) => (two[1] > one[1] ? two : one), ["", -1]);
  text(part(card, "phase-text"), found.length ? `joined in ${seconds(total)}, most of it ${slowest[0].replaceAll("_", " ")} (${seconds(slowest[1])})` : "has not joined yet");
}

// --- jobs -----------------------------------------------------------------------------------------------------

function newJob(kind, item, title, ...rest) {
  const path = `${kind}/${item.id}`;
  return make("article", { class: "card", "aria-label": `${title} ${item.id}` },
    make("div", { class: "top" }, make("h3", { "data-part": "title" }), make("span", { "data-part": "state" })),
    make("p", { class: "caption", "data-part": "about" }), ...rest,
    make("p", { class: "error", "data-part": "error", hidden: true }),
    make("ul", { class: "list", "data-part": "files" }),
    make("div", { class: "actions" },
      make("button", { type: "button", class: "stop", "data-part": "stop", onclick: () => act(() => ask("POST", `${path}/stop`)) }, "Stop"),
      make("button", { type: "button", "data-part": "log", onclick: () => filterBy(item.id) }, "Log"),
      make("button", { type: "button", "data-part": "forget", onclick: () => act(() => ask("DELETE", path)) }, "Forget")));
}

function showJob(card, item, title, about) {
  const over = item.state === "done" || item.state === "failed";
  text(part(card, "title"), title);
  badge(part(card, "state"), item.state);
  text(part(card, "about"), about);
  text(part(card, "error"), item.error ? `${item.error.code}: ${item.error.message}` : "");
  part(card, "error").hidden = !item.error;
  part(card, "stop").hidden = over;
  part(card, "stop").disabled = !mayOperate || item.state === "stopping";
  part(card, "forget").hidden = !over || !mayOperate || item.spec === null;
  part(card, "log").hidden = item.spec === null;
  sync(part(card, "files"), item.files, (file) => file.name, newFile, (child, file) => {
    child.dataset.url = file.url;
    child.querySelector("a").href = file.url;
    text(part(child, "size"), bytes(file.bytes));
  });
}

function newFile(file) {
  const link = make("a", { target: "_blank", rel: "noopener" }, file.name);
  const row = make("li", {}, link, make("span", { class: "soft", "data-part": "size" }));
  if (AUDIO_OR_VIDEO.test(file.name)) {
    row.append(make("button", { type: "button", "aria-label": `Play ${file.name}`, onclick: () => play(row) }, "Play"));
  }
  return row;
}

function play(row) {
  const card = row.closest(".card");
  const player = card.querySelector("video") ?? make("video", { controls: true, playsinline: true });
  player.setAttribute("aria-label", row.querySelector("a").textContent);
  card.querySelector("img")?.remove();
  player.src = row.dataset.url;
  part(card, "files").before(player);
  player.play().catch(complain);
}

function showRecordings(items) {
  sync(byId("recording-cards"), [...items].reverse(), (item) => item.id, (item) => newJob("recordings", item, "Recording"), (card, item) => {
    const who = item.participants.length ? ` · ${item.participants.join(", ")}` : "";
    const poster = item.files.find((file) => file.name === "poster.jpg");
    if (poster && !card.querySelector("img, video")) part(card, "files").before(make("img", { src: poster.url, alt: `A picture of ${item.room}` }));
    showJob(card, item, item.room || item.id, `${clock(item.began)} · ${seconds(item.seconds)}${who}${item.end_cause ? ` · ended: ${item.end_cause}` : ""}`);
  });
}

function showLoads(items) {
  sync(byId("load-cards"), [...items].reverse(), (item) => item.id, newLoad, (card, item) => {
    const now = item.series.at(-1);
    showJob(card, item, item.id, [item.state === "running" && item.at === 0 ? item.said : `${seconds(item.at)} of ${seconds(item.duration)}`, `${item.joined} joins of ${item.planned} participants`].filter(Boolean).join(" · "));
    part(card, "progress").value = item.at / item.duration;
    part(card, "progress").hidden = item.ended !== null;
    chart(part(card, "people"), [item.series.map((one) => one.in_room), item.series.map((one) => one.joining)]);
    chart(part(card, "bits"), [item.series.map((one) => one.bitrate_received), item.series.map((one) => one.bitrate_sent)]);
    text(part(card, "in-room"), `in rooms ${item.in_room}`);
    text(part(card, "joining"), `joining ${now?.joining ?? 0}`);
    text(part(card, "received"), `received ${bits(now?.bitrate_received ?? 0)}`);
    text(part(card, "sent"), `sent ${bits(now?.bitrate_sent ?? 0)}`);
    const failures = Object.entries(item.failures).map(([cause, count]) => `${count} × ${cause}`);
    text(part(card, "limits"), [...failures, ...item.limits].join("; "));
    sync(part(card, "thresholds"), item.thresholds, (one) => one.threshold, (one) => make("li", {}, make("span", {}, one.threshold), make("span", { "data-part": "met" })), (child, one) => {
      badge(part(child, "met"), one.state);
      child.title = one.reason;
    });
  });
}

function newLoad(item) {
  const people = emptyChart("Participants in rooms and joining, over time");
  const traffic = emptyChart("Bit rates received and sent, over time");
  people.dataset.part = "people";
  traffic.dataset.part = "bits";
  return newJob("loads", item, "Load run",
    make("progress", { max: "1", value: "0", "data-part": "progress", "aria-label": "How far it is" }),
    people, make("p", { class: "legend" }, make("span", { "data-part": "in-room" }), make("span", { class: "two", "data-part": "joining" })),
    traffic, make("p", { class: "legend" }, make("span", { "data-part": "received" }), make("span", { class: "two", "data-part": "sent" })),
    make("ul", { class: "list", "data-part": "thresholds" }),
    make("p", { class: "error", "data-part": "limits" }));
}

function showProbes(items) {
  sync(byId("probe-cards"), [...items].reverse(), (item) => item.id, newProbe, (card, item) => {
    const last = item.results.at(-1);
    showJob(card, item, item.id, item.spec.every ? `every ${seconds(item.spec.every)} · ${item.results.length} results` : "once");
    sync(part(card, "history"), item.results, (one) => one.at, () => make("li"), (child, one) => {
      child.className = one.verdict.severity;
      child.title = `${clock(one.at)}: ${verdict(one)}`;
    });
    part(card, "history").setAttribute("aria-label", `${item.results.length} results, ${item.results.filter((one) => one.verdict.severity !== "ok").length} of them not fine`);
    text(part(card, "verdict"), last ? verdict(last) : "no result yet");
    const delays = item.results.map((one) => one.measures.delay ?? 0);
    part(card, "delay").style.display = delays.length > 1 ? "" : "none";
    chart(part(card, "delay"), [delays]);
    const shown = last ? Object.entries(last.measures).map(([name, value]) => `${name} ${+value.toPrecision(3)}`) : [];
    text(part(card, "measures"), shown.join(" · "));
  });
}

function verdict(result) {
  const { severity, stage, cause, hint } = result.verdict;
  return severity === "ok" ? "all fine" : `${stage}: ${cause}${hint ? ` – ${hint}` : ""}`;
}

function newProbe(item) {
  const delay = emptyChart("Delay of each result", "spark");
  delay.dataset.part = "delay";
  return newJob("probes", item, "Probe", make("p", { "data-part": "verdict" }),
    make("ol", { class: "history", "data-part": "history" }), delay, make("p", { class: "caption", "data-part": "measures" }));
}

// --- the log --------------------------------------------------------------------------------------------------

const lines = [];
const owners = new Set();
let drawing = 0;

function take(entry) {
  lines.push(entry);
  if (lines.length > 5 * SHOWN_LINES) lines.splice(0, lines.length - 5 * SHOWN_LINES);
  if (!owners.has(entry.owner)) {
    owners.add(entry.owner);
    byId("filter").elements.owner.append(make("option", { value: entry.owner }, entry.owner));
  }
  drawing ||= requestAnimationFrame(showLines);
}

function showLines() {
  drawing = 0;
  const { owner, text: words, debug } = byId("filter").elements;
  const sought = words.value.toLowerCase();
  const wanted = (entry) => (!owner.value || entry.owner === owner.value) && (debug.checked || entry.level !== "debug") &&
    (!sought || `${entry.name} ${entry.message}`.toLowerCase().includes(sought));
  sync(byId("lines"), lines.filter(wanted).slice(-SHOWN_LINES).reverse(), (entry) => entry.key, newLine, () => {});
}

function newLine(entry) {
  return make("li", { class: entry.level, title: entry.name }, make("time", {}, clock(entry.at)), make("b", {}, entry.owner), make("span", {}, entry.message));
}

function filterBy(owner) {
  const form = byId("filter");
  if (!owners.has(owner)) {
    owners.add(owner);
    form.elements.owner.append(make("option", { value: owner }, owner));
  }
  form.elements.owner.value = owner;
  showLines();
  byId("log").scrollIntoView();
  form.elements.owner.focus();
}

// EventSource sends no token: the stream is read as it comes, from where it broke off.
async function follow() {
  let last = "0";
  let number = 0;
  for (;;) {
    try {
      const answer = await fetch(`${API}events`, { headers: headers({ "Last-Event-ID": last }), cache: "no-store" });
      if (answer.status === 401) {
        await login();
        continue;
      }
      if (!answer.ok) throw new Refused(answer.status, {});
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (let chunk = await reader.read(); !chunk.done; chunk = await reader.read()) {
        const frames = (rest + chunk.value).split("\n\n");
        rest = frames.pop();
        for (const frame of frames) {
          const fields = Object.fromEntries(frame.split("\n").map((line) => [line.slice(0, line.indexOf(": ")), line.slice(line.indexOf(": ") + 2)]));
          if (!fields.id) continue;
          last = fields.id;
          take({ ...JSON.parse(fields.data), key: number++ });
        }
      }
    } catch {
      // The daemon is gone or begins anew: what is asked every second says so.
    }
    await new Promise((done) => setTimeout(done, 2 * SECOND));
  }
}

// --- every second ---------------------------------------------------------------------------------------------

async function refresh() {
  const status = await ask("GET", "status");
  mayOperate = status.scope === "operate";
  text(byId("server"), status.server);
  text(byId("seats"), `${status.participants} of ${status.max_participants} participants · version ${status.version}`);
  badge(byId("ready"), status.draining ? "draining" : status.ready ? "ready" : "not ready");
  byId("token").hidden = !token;
  for (const form of document.querySelectorAll(".start")) form.hidden = !mayOperate;
  const kinds = { participants: showParticipants, recordings: showRecordings, loads: showLoads, probes: showProbes };
  await Promise.all(Object.entries(kinds).map(async ([kind, show]) => show((await ask("GET", kind)).items)));
}

let lost = false;

async function keep() {
  for (;;) {
    try {
      if (!document.hidden) await refresh();
      if (lost) complain(null);
      lost = false;
    } catch (error) {
      if (!(error instanceof Refused && error.status === 401)) {
        lost = true;
        complain(error instanceof Refused ? error : new Error("The daemon does not answer."));
        badge(byId("ready"), "failed");
      }
    }
    await new Promise((done) => setTimeout(done, SECOND));
  }
}

// --- starting -------------------------------------------------------------------------------------------------

const random = () => crypto.getRandomValues(new Uint32Array(1))[0].toString(16).padStart(8, "0");
const given = (values) => Object.fromEntries(Object.entries(values).filter(([, value]) => value !== "" && value !== undefined));

const CREATE = {
  async participants(values) {
    const count = Number(values.count);
    for (let number = 1; number <= count; number++) {
      const name = values.name && count > 1 ? `${values.name} ${number}` : values.name;
      await ask("PUT", `participants/p-${random()}`, given({ room: values.room, name, audio: values.audio, video: values.video }));
    }
  },
  recordings: (values) => ask("PUT", `recordings/r-${random()}`, { room: values.room, audio_only: values.audio_only === "on" }),
  loads: (values) => ask("PUT", `loads/l-${random()}`, given({
    conferences: Number(values.conferences), participants: Number(values.participants), duration: Number(values.duration),
    height: values.height, thresholds: values.threshold ? [values.threshold] : undefined,
  })),
  probes: (values) => ask("PUT", `probes/probe-${random()}`, { every: Number(values.every), duration: Number(values.duration) }),
};

for (const form of document.querySelectorAll("form[data-create]")) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    act(() => CREATE[form.dataset.create](Object.fromEntries(new FormData(form))));
  });
}
byId("filter").addEventListener("input", showLines);
byId("filter").addEventListener("submit", (event) => event.preventDefault());
byId("token").addEventListener("click", () => { token = ""; login(); });
keep();
follow();
