// A browser source for OBS. ?transparent=1: boxes and labels alone, for a camera that OBS shows itself; ?picture=1: the
// program's own drawn picture, for a camera that serves one program only. Also: scale, corner, notice, source, token.
import { drawFaces } from "/page/draw.js";
import { absoluteS } from "/page/stamps.js";

const asked = new URLSearchParams(location.search);
const token = asked.get("token");
const secret = token ? `?token=${encodeURIComponent(token)}` : "";
const notice = document.getElementById("notice");
const KEPT_S = 1;
const seen = new Map(); // track: { cue, atS, velocity }

const corner = asked.get("corner") ?? "bl";
notice.hidden = asked.get("notice") === "no" || asked.has("picture");
if (corner.includes("t")) Object.assign(notice.style, { top: ".75rem", bottom: "auto" });
if (corner.includes("r")) Object.assign(notice.style, { right: ".75rem", left: "auto" });
const scale = Math.min(4, Math.max(0.5, Number(asked.get("scale")) || 1));
document.documentElement.classList.toggle("solid", !asked.has("transparent"));

function showPicture() {
  const picture = document.getElementById("picture");
  picture.hidden = false;
  const load = () => { picture.src = `/picture${secret}${secret ? "&" : "?"}n=${Date.now()}`; };
  picture.onerror = () => setTimeout(load, 1000);
  load();
}

function take(cue) {
  if (cue.track === null || !cue.box || (asked.has("source") && cue.source !== asked.get("source"))) return;
  const before = seen.get(cue.track);
  const passed = before ? cue.t - before.cue.t : 0;
  const moved = passed > 0 && passed < 0.5 ? [0, 1].map((k) => (cue.box[k] - before.cue.box[k]) / passed) : [0, 0];
  seen.set(cue.track, { cue, atS: absoluteS(), velocity: moved });
}

function listen(pauseS = 0.5) {
  const socket = new WebSocket(`${location.origin.replace("http", "ws")}/cues${secret}`);
  socket.onmessage = (event) => { pauseS = 0.5; take(JSON.parse(event.data)); };
  socket.onclose = () => setTimeout(listen, 1000 * pauseS, Math.min(2 * pauseS, 5));
}

function draw() {
  requestAnimationFrame(draw);
  const s = absoluteS();
  for (const [track, { atS }] of seen) if (s - atS > KEPT_S) seen.delete(track);
  const all = [...seen.values()];
  if (all.length === 0) { drawFaces(document.getElementById("overlay"), null, {}); return; }
  const newest = Math.max(...all.map(({ cue }) => cue.t));
  const late = s - Math.max(...all.map(({ atS }) => atS));
  const answer = {
    t: newest, size: all[0].cue.frame,
    faces: all.map(({ cue, velocity }) => ({ track: cue.track, box: cue.box, velocity })),
    cues: all.map(({ cue }) => cue),
  };
  drawFaces(document.getElementById("overlay"), answer, { nowS: newest + late, shownS: newest + late, scale, mirrored: asked.has("mirror") });
}

if (asked.has("picture")) showPicture();
else { listen(); draw(); }
