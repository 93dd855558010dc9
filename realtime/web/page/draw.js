// What is drawn over a picture: boxes that stand where the faces are now, and what each person shows. Used by the page
// and by the overlay for OBS.
import { colourOf, percent } from "/page/labels.js";

const MOVED_S = 0.2;      // a box is not moved on further than this; after it, nobody knows
const FRESH_MS = 500;     // a face reading is true for so long, then it fades
const GONE_MS = 900;

// How well a reading may still be seen, 0..1.
export function opacityOf(cue, nowS) {
  if (!cue) return 0;
  const ages = [cue.age_ms.face, cue.age_ms.voice === null ? null : cue.age_ms.voice - 1500];
  const known = ages.filter((age) => age !== null);
  if (known.length === 0) return 1;
  const age = Math.min(...known) + 1000 * Math.max(0, nowS - cue.t);
  return Math.max(0, Math.min(1, (GONE_MS - age) / (GONE_MS - FRESH_MS)));
}

// Fits the canvas to its place on the screen; returns a pen whose unit is a CSS pixel.
export function penOf(canvas) {
  const { width, height } = canvas.getBoundingClientRect();
  const fine = Math.min(devicePixelRatio || 1, 2);
  const size = [Math.round(width * fine), Math.round(height * fine)];
  if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
  const pen = canvas.getContext("2d");
  pen.setTransform(fine, 0, 0, fine, 0, 0);
  pen.clearRect(0, 0, width, height);
  return { pen, width, height };
}

// `answer`: { size, faces, cues } for the moment t; `shownS`: when the picture on the screen was captured.
export function drawFaces(canvas, answer, { nowS, shownS, mirrored = false, scale = 1 }) {
  const { pen, width, height } = penOf(canvas);
  if (!answer) return;
  const fit = Math.min(width / answer.size[0], height / answer.size[1]);
  const left = (width - fit * answer.size[0]) / 2;
  const top = (height - fit * answer.size[1]) / 2;
  const moved = Math.max(0, Math.min(MOVED_S, shownS - answer.t));
  const byTrack = new Map(answer.cues.map((cue) => [cue.track, cue]));
  for (const face of answer.faces) {
    const [w, h] = [fit * face.box[2], fit * face.box[3]];
    let x = fit * (face.box[0] + moved * face.velocity[0]);
    if (mirrored) x = fit * answer.size[0] - x - w;
    const y = top + fit * (face.box[1] + moved * face.velocity[1]);
    drawFace(pen, { x: left + x, y, w, h, width, scale }, byTrack.get(face.track), nowS);
  }
}

function drawFace(pen, at, cue, nowS) {
  const seen = opacityOf(cue, nowS);
  const colour = cue && seen > 0 ? colourOf(cue.label) : colourOf("not sure");
  corners(pen, at, colour);
  if (!cue || seen === 0) return;
  const px = at.scale * Math.max(12, Math.min(17, at.w / 8));
  pen.globalAlpha = seen;
  pen.font = `600 ${px}px system-ui, "DejaVu Sans", sans-serif`;
  const plateOf = (words) => pen.measureText(words).width + 1.5 * px + 0.8 * px;
  const whole = cue.label === "not sure" ? "not sure" : `${cue.label}  ${percent(cue.confidence)}`;
  const text = plateOf(whole) > 1.8 * at.w ? cue.label : whole; // small faces stand close to each other
  const wide = plateOf(text);
  const high = 1.75 * px;
  const x = Math.max(4, Math.min(at.width - wide - 4, at.x + (at.w - wide) / 2));
  const above = at.y - high - 6;
  const y = above > 4 ? above : at.y + at.h + 6;
  pen.fillStyle = "#0d1015e0";
  pen.beginPath();
  pen.roundRect(x, y, wide, high, high / 2);
  pen.fill();
  pen.fillStyle = colour;
  pen.beginPath();
  pen.arc(x + 0.95 * px, y + high / 2, 0.34 * px, 0, 2 * Math.PI);
  pen.fill();
  pen.fillStyle = "#f4f6f8";
  pen.textBaseline = "middle";
  pen.fillText(text, x + 1.6 * px, y + high / 2 + 0.04 * px);
  pen.globalAlpha = 1;
}

function corners(pen, { x, y, w, h, scale }, colour) {
  const arm = Math.max(8, w / 5);
  const bend = Math.min(arm / 2, 10);
  pen.lineCap = "round";
  for (const [line, ink] of [[5 * scale, "#0d101599"], [2.5 * scale, colour]]) {
    pen.lineWidth = line;
    pen.strokeStyle = ink;
    pen.beginPath();
    for (const [cx, cy, dx, dy] of [[x, y, 1, 1], [x + w, y, -1, 1], [x + w, y + h, -1, -1], [x, y + h, 1, -1]]) {
      pen.moveTo(cx, cy + dy * arm);
      pen.lineTo(cx, cy + dy * bend);
      pen.quadraticCurveTo(cx, cy, cx + dx * bend, cy);
      pen.lineTo(cx + dx * arm, cy);
    }
    pen.stroke();
  }
}

// One row for each person, newest at the right; `history` maps tracks to [t, label, confidence] entries.
export function drawTimeline(canvas, history, nowS, spanS, inks) {
  const { pen, width, height } = penOf(canvas);
  const rows = [...history].slice(-6);
  const step = height / Math.max(1, rows.length);
  const gutter = 26;
  const xOf = (t) => gutter + (width - gutter) * (1 - (nowS - t) / spanS);
  pen.font = '500 11px system-ui, "DejaVu Sans", sans-serif';
  pen.textBaseline = "middle";
  rows.forEach(([track, entries], row) => {
    const middle = (row + 0.5) * step;
    const half = Math.min(step * 0.4, 16);
    pen.fillStyle = inks.soft;
    pen.fillText(track === null ? "~" : String(track), 4, middle);
    pen.fillStyle = inks.fill;
    pen.fillRect(gutter, middle - 0.5, width - gutter, 1);
    for (const [t, label, confidence] of entries) {
      const from = Math.max(gutter, xOf(t));
      const tall = half * (0.35 + 0.65 * confidence);
      pen.fillStyle = colourOf(label);
      pen.fillRect(from, middle - tall, Math.max(1, xOf(t + 0.1) - from + 0.5), 2 * tall);
    }
  });
}
