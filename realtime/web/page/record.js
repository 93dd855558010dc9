// Cues that were recorded on the user's word, as the files that the program itself writes (docs/cue.md).
import { LABELS } from "/page/labels.js";

const MOST = 200_000;
const KINDS = ["face", "voice", "words"];
const DISTRIBUTIONS = ["fused", "raw", ...KINDS];
const COLUMNS = [
  "t", "source", "track", "label", "confidence", "reason", "speaking", "box_x", "box_y", "box_width", "box_height",
  "frame_width", "frame_height", ...KINDS.map((kind) => `weight_${kind}`), "age_face_ms", "age_voice_ms", "skipped",
  ...DISTRIBUTIONS.flatMap((kind) => LABELS.map((label) => `${kind}_${label}`)), "model", "epoch_ns",
];

function cell(value) {
  const text = value === null || value === undefined ? "" : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function row(cue) {
  return [
    cue.t, cue.source, cue.track, cue.label, cue.confidence, cue.reason, Number(cue.speaking),
    ...(cue.box ?? [null, null, null, null]), ...(cue.frame ?? [null, null]), ...KINDS.map((kind) => cue.weights[kind]),
    cue.age_ms.face, cue.age_ms.voice, cue.skipped,
    ...DISTRIBUTIONS.flatMap((kind) => LABELS.map((label) => cue[kind]?.[label])), cue.model, cue.epoch_ns,
  ].map(cell).join(",");
}

export class Recording {
  #cues = [];

  get length() { return this.#cues.length; }
  get full() { return this.#cues.length >= MOST; }
  add(cues) { if (!this.full) this.#cues.push(...cues); }
  jsonl() { return new Blob(this.#cues.map((cue) => JSON.stringify(cue) + "\n"), { type: "application/x-ndjson" }); }
  csv() {
    return new Blob([COLUMNS.join(",") + "\r\n", ...this.#cues.map((cue) => row(cue) + "\r\n")], { type: "text/csv" });
  }
}
