// The page: consent, start, what is shown, keys. Pictures and sound go through sender.js; this draws and never waits.
import { explained, feed, fillDevices, openStream } from "/page/capture.js";
import { drawFaces, drawTimeline } from "/page/draw.js";
import { LABELS, NOT_SURE, colourOf, percent } from "/page/labels.js";
import { nameOf, People } from "/page/people.js";
import { Recording } from "/page/record.js";
import { absoluteS } from "/page/stamps.js";

const at = (id) => document.getElementById(id);
const [video, stage, overlay, timeline] = ["video", "stage", "overlay", "timeline"].map(at);
const people = new People(at("people"), at("nobody"));
const TIMELINE_S = 60;
const STILL_S = 2;
const GONE_S = 1;      // an answer about a moment that far back says nothing about who is there now
const WIDTHS = { camera: 640, screen: 1280 };
const token = new URLSearchParams(location.hash.slice(1)).get("token");
const worker = new Worker("/page/sender.js", { type: "module" });

let zeroS = absoluteS();
let source = "camera";
let stream = null;
let unfeed = null;
let state = "off";
let answer = null;
let answeredS = 0;
let shownS = 0;
let history = new Map();
let recording = null;
let health = {};
let engine = "";
let told = { text: "", s: 0 };
let drawn = [];        // [seconds of the page, age of the reading in ms] of answers as they were first drawn

const nowS = () => absoluteS() - zeroS;

function setState(name, text) {
  state = name;
  at("state").dataset.state = name;
  at("state-text").textContent = text;
}

function curtain(title, text = "", again = false) {
  at("curtain").hidden = !title;
  at("curtain-title").textContent = title ?? "";
  at("curtain-text").textContent = text;
  at("curtain-again").hidden = !again;
}

async function start() {
  at("start").disabled = true;
  at("welcome-problem").hidden = true;
  try {
    await open();
    at("welcome").hidden = true;
    at("run").hidden = false;
    // Whoever scrolled down to the button is shown the picture, not what stands below it.
    scrollTo(0, 0);
    at("main").focus({ preventScroll: true });
  } catch (error) {
    const { title, text } = explained(error);
    at("welcome-problem").textContent = `${title}. ${text}`;
    at("welcome-problem").hidden = false;
    setState("bad", "not started");
  }
  at("start").disabled = !at("consent").checked;
}

// Open the devices and the connection anew; what was open is closed.
async function open(cameraId, microphoneId) {
  halt();
  setState("wait", "starting");
  stream = await openStream(source, cameraId, microphoneId);
  const ours = stream;
  zeroS = absoluteS();
  [answer, drawn, history] = [null, [], new Map()];
  video.srcObject = stream;
  await video.play().catch(() => {});
  const [picture] = stream.getVideoTracks();
  picture.onended = () => { if (stream === ours) lost(); };
  const { width, height } = picture.getSettings();
  if (width && height) stage.style.aspectRatio = `${width} / ${height}`;
  if (source === "camera") await fillDevices(at("camera"), at("microphone"), stream);
  at("devices-open").hidden = source !== "camera";
  curtain("Starting", "The networks are being loaded.");
  worker.postMessage({ kind: "open", ...session() });
  unfeed = await feed(stream, video, worker);
}

function halt() {
  worker.postMessage({ kind: "close" });
  unfeed?.();
  [unfeed, stream] = [null, null];
  video.srcObject = null;
}

function lost() {
  halt();
  answer = null;
  setState("bad", "no picture");
  const text = source === "screen" ? "Sharing has ended." : "The camera was unplugged, or another program took it.";
  curtain("No picture any more", text, true);
}

async function again() {
  curtain("Starting");
  if (stream) {
    worker.postMessage({ kind: "again" });
    return;
  }
  try {
    await open(at("camera").value, at("microphone").value);
  } catch (error) {
    const { title, text } = explained(error);
    setState("bad", "not started");
    curtain(title, text, true);
  }
}

worker.onmessage = ({ data }) => {
  if (data.kind === "ready") {
    engine = data.engine;
    setState("live", "live");
    curtain(null);
  } else if (data.kind === "answer") {
    if (!stream || data.t < (answer?.t ?? 0)) return;
    answer = data;
    answeredS = nowS();
    remember(data);
  } else if (data.kind === "cues") {
    if (recording) record(data.cues);
  } else if (data.kind === "health") {
    health = data;
  } else if (data.kind === "gone" && !data.stopped) {
    answer = null;
    setState("bad", data.code === 4429 ? "no place" : "no answer");
    const title = data.code === 4429 ? "No place for a third page" : data.words ? "The analysis ended" : "The program does not answer";
    const text = data.words || "Is 'liveaffect serve' still running? Trying again by itself.";
    curtain(title, data.again && data.words ? `${data.words}. Trying again by itself.` : text, !data.again);
  }
};
// Nothing has begun where this happens, so it has to be said beside the start as well.
worker.onerror = () => {
  const [title, text] = ["This browser is too old", "It cannot run workers as modules. Take a newer one."];
  at("welcome-problem").textContent = `${title}. ${text}`;
  at("welcome-problem").hidden = false;
  curtain(title, text);
};

function remember({ t, cues }) {
  for (const cue of cues) {
    const entries = history.get(cue.track) ?? [];
    if (entries.length === 0 || t - entries.at(-1)[0] >= 0.1) entries.push([t, cue.label, cue.confidence]);
    while (entries.length && t - entries[0][0] > TIMELINE_S) entries.shift();
    history.set(cue.track, entries);
  }
  for (const [track, entries] of history) if (t - (entries.at(-1)?.[0] ?? 0) > TIMELINE_S) history.delete(track);
}

// Every picture that the screen shows says when it was captured, where the browser knows.
function follow(now, about) {
  shownS = (performance.timeOrigin + (about.captureTime ?? now)) / 1000 - zeroS;
  video.requestVideoFrameCallback(follow);
}
video.requestVideoFrameCallback?.(follow);

function draw() {
  requestAnimationFrame(draw);
  if (at("run").hidden) return;
  const s = nowS();
  if (!video.requestVideoFrameCallback) shownS = s;
  const paused = at("pause").getAttribute("aria-pressed") === "true";
  if (answer && drawn.at(-1)?.[2] !== answer.t) {
    drawn.push([s, 1000 * (s - answer.t), answer.t]);
    if (drawn.length > 300) drawn.shift();
  }
  const fresh = answer && !paused && s - answer.t < GONE_S ? answer : null;
  drawFaces(overlay, fresh, { nowS: s, shownS: Math.max(shownS, fresh?.t ?? 0), mirrored: stage.classList.contains("mirrored") });
  if (state === "live" && !paused && answer && s - answeredS > STILL_S) setState("wait", "no answers");
  if (state === "wait" && fresh) setState("live", "live");
}
requestAnimationFrame(draw);

function shareOf(values, share) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted.length ? sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] : null;
}

// What need not change with every picture: cards, captions, timeline, health.
function refresh() {
  if (at("run").hidden || at("pause").getAttribute("aria-pressed") === "true") return;
  const s = nowS();
  const cues = answer && s - answeredS < STILL_S ? answer.cues : [];
  people.show(cues, s);
  at("captions").textContent = cues.map((cue) => {
    const said = cue.transcript ? ` “${cue.transcript}”` : "";
    return `${nameOf(cue.track)}: ${cue.label}${cue.label === NOT_SURE ? "" : ` ${percent(cue.confidence)}`}${cue.speaking ? ", speaks" : ""}${said}`;
  }).join("  ·  ");
  speak(cues, s);
}
setInterval(refresh, 150);

function refreshSlowly() {
  if (at("run").hidden) return;
  const style = getComputedStyle(document.documentElement);
  const inks = { soft: style.getPropertyValue("--soft"), fill: style.getPropertyValue("--line") };
  drawTimeline(timeline, history, nowS(), TIMELINE_S, inks);
  const recent = drawn.filter(([s]) => nowS() - s < 3);
  const ages = recent.map(([, age]) => age);
  const lostHere = (health.page?.left ?? 0) + (health.page?.lost ?? 0);
  const lostThere = Object.values(health.losses ?? {}).reduce((sum, count) => sum + count, 0);
  const ms = (value) => `${Math.round(value)} ms`;
  const rows = {
    "Age when drawn": ages.length ? `${ms(shareOf(ages, 0.5))}, at worst ${ms(shareOf(ages, 0.95))}` : "–",
    "Answers a second": recent.length ? (recent.length / 3).toFixed(0) : "–",
    "Left out here": String(lostHere),
    "Lost in the analysis": String(lostThere),
    Sound: !stream?.getAudioTracks().length ? "none" : health.samples ? "yes" : "none comes",
    Networks: engine || "–",
  };
  const list = at("health");
  if (list.children.length === 0) {
    for (const name of Object.keys(rows)) {
      list.append(Object.assign(document.createElement("dt"), { textContent: name }), document.createElement("dd"));
    }
  }
  Object.values(rows).forEach((text, k) => { list.children[2 * k + 1].textContent = text; });
}
setInterval(refreshSlowly, 500);

// For a screen reader: whenever what is shown changes, and not more often than every four seconds.
function speak(cues, s) {
  const text = cues.map((cue) => `${nameOf(cue.track)}: ${cue.label}`).join("; ");
  if (text === told.text || s - told.s < 4) return;
  told = { text, s };
  at("spoken").textContent = text || "Nobody is in view.";
}

function press(id, on = at(id).getAttribute("aria-pressed") !== "true") {
  at(id).setAttribute("aria-pressed", String(on));
  return on;
}

function pause() {
  const on = press("pause");
  at("pause").textContent = on ? "Go on" : "Pause";
  if (on) { video.pause(); worker.postMessage({ kind: "close" }); setState("off", "paused"); people.clear(); answer = null; }
  else if (stream) {
    video.play();
    curtain("Starting");
    worker.postMessage({ kind: "open", ...session() });
    setState("wait", "starting");
  }
}

function session() {
  const url = `${location.origin.replace("http", "ws")}/session${token ? `?token=${encodeURIComponent(token)}` : ""}`;
  return { url, hello: { v: 1, pictures: true, sound: stream.getAudioTracks().length > 0 }, zeroS, width: WIDTHS[source] };
}

function record(cues) {
  recording.add(cues);
  if (recording.full) toggleRecording();
  else at("saved-text").textContent = `${recording.length} cues recorded`;
}

function toggleRecording() {
  if (press("record")) {
    recording = new Recording();
    at("record").textContent = "Stop recording";
    at("saved").hidden = false;
    at("save-jsonl").hidden = at("save-csv").hidden = true;
    at("saved-text").textContent = "Recording cues: numbers only, no picture and no sound";
    return;
  }
  at("record").textContent = "Record cues";
  at("saved-text").textContent = `${recording.length} cues recorded${recording.full ? ", which is all that is kept" : ""}. Save as`;
  for (const [id, blob] of [["save-jsonl", recording.jsonl()], ["save-csv", recording.csv()]]) {
    if (at(id).href) URL.revokeObjectURL(at(id).href);
    at(id).href = URL.createObjectURL(blob);
    at(id).hidden = false;
  }
  recording = null;
}

function stop() {
  if (recording) toggleRecording();
  halt();
  press("pause", false);
  at("pause").textContent = "Pause";
  people.clear();
  at("run").hidden = true;
  at("welcome").hidden = false;
  at("consent").checked = false;
  at("start").disabled = true;
  curtain(null);
  setState("off", "not started");
}

function showTheme(theme) {
  document.documentElement.dataset.theme = theme;
  at("theme").textContent = `Colours: ${theme === "auto" ? "system" : theme}`;
}

function nextTheme() {
  const order = ["auto", "light", "dark"];
  const theme = order[(order.indexOf(document.documentElement.dataset.theme) + 1) % 3];
  localStorage.setItem("theme", theme);
  showTheme(theme);
}

const DOES = {
  pause, stop,
  mirror: () => stage.classList.toggle("mirrored", press("mirror")),
  caption: () => { at("captions").hidden = !press("caption"); },
  record: toggleRecording,
  "devices-open": () => {
    at("devices").hidden = !at("devices").hidden;
    at("devices-open").setAttribute("aria-expanded", String(!at("devices").hidden));
  },
  theme: nextTheme,
  "help-open": () => at("help").showModal(),
  "curtain-again": again,
};
const KEYS = { " ": "pause", m: "mirror", c: "caption", r: "record", d: "devices-open", s: "stop", t: "theme", "?": "help-open" };

for (const [id, does] of Object.entries(DOES)) at(id).addEventListener("click", does);
for (const id of ["camera", "microphone"]) {
  at(id).addEventListener("change", () => { halt(); again(); });
}
at("consent").addEventListener("change", () => { at("start").disabled = !at("consent").checked; });
at("start-form").addEventListener("submit", (event) => {
  event.preventDefault();
  source = new FormData(at("start-form")).get("source");
  start();
});
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || at("help").open) return;
  if (event.target.closest("input, select, button") && event.key === " ") return;
  if (event.target.closest("select")) return;
  const id = KEYS[event.key];
  if (!id || (at("run").hidden && !["theme", "help-open"].includes(id)) || at(id).hidden) return;
  event.preventDefault();
  at(id).click();
});
addEventListener("pagehide", halt);
document.addEventListener("visibilitychange", () => { if (!document.hidden) refreshSlowly(); });

at("where").textContent = location.host;
at("legend").append(...[...LABELS, NOT_SURE].map((label) => {
  const item = document.createElement("li");
  const dot = Object.assign(document.createElement("i"), { className: "dot" });
  dot.style.background = colourOf(label);
  item.append(dot, label);
  return item;
}));
showTheme(localStorage.getItem("theme") ?? "auto");

// For measurements: what was drawn when, and how old it was.
globalThis.liveaffect = { get drawn() { return drawn; }, get answer() { return answer; }, get shownS() { return shownS; }, nowS, get health() { return health; } };
