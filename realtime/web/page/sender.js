// A worker: takes pictures and sound as they come, sends the newest, hands answers to the page. It has the connection,
// because a page in the background is slowed down and a worker is not.
import { Aligner, absoluteS } from "/page/stamps.js";

const IN_FLIGHT = 2;          // pictures sent and not yet answered; a third waits, and a newer one takes its place
const GIVEN_UP_S = 1;         // without an answer for so long, a picture counts as lost
const BUFFERED_BYTES = 500_000;
const QUALITY = 0.85;
const FINAL = new Set([4400, 4429]); // asking again would give the same

let wanted = null;            // { url, hello, zeroS, width }
let socket = null;
let ready = false;
let pauseS = 0.5;
let canvas = null;
let busy = false;
let inFlight = [];
let number = 0;
let counts = { taken: 0, sent: 0, left: 0, lost: 0, kept: 0 };

self.onmessage = ({ data }) => {
  if (data.kind === "open") { wanted = data; pauseS = 0.5; connect(); }
  else if (data.kind === "close") { wanted = null; socket?.close(1000); }
  else if (data.kind === "again") { if (wanted) { pauseS = 0.5; connect(); } }
  else if (data.kind === "frames") takeFrames(data.readable);
  else if (data.kind === "bitmap") offer(data.bitmap, data.t);
  else if (data.kind === "sound") takeSound(data.port);
};

function connect() {
  if (socket && socket.readyState < WebSocket.CLOSING) return;
  const ours = new WebSocket(wanted.url);
  let words = null;
  socket = ours;
  ready = false;
  inFlight = [];
  ours.binaryType = "arraybuffer";
  ours.onopen = () => ours.send(JSON.stringify(wanted.hello));
  ours.onmessage = (event) => {
    const said = JSON.parse(event.data);
    if (said.kind === "answer") { pauseS = 0.5; settle(said.t); }
    if (said.kind === "ready") ready = true;
    if (said.kind === "closed") words = said;
    if (said.kind === "health") said.page = { ...counts };
    self.postMessage(said);
  };
  ours.onclose = (event) => {
    if (socket !== ours) return;
    ready = false;
    const code = words?.code ?? event.code;
    const again = wanted !== null && !FINAL.has(code);
    self.postMessage({ kind: "gone", code, words: words?.words ?? "", again, stopped: wanted === null });
    if (again) {
      setTimeout(() => wanted && socket === ours && connect(), 1000 * pauseS);
      pauseS = Math.min(2 * pauseS, 5);
    }
  };
}

function settle(t) {
  inFlight = inFlight.filter((sentT) => sentT > t + 5e-4);
}

async function takeFrames(readable) {
  const reader = readable.getReader();
  const aligner = new Aligner();
  for (;;) {
    const { value: frame, done } = await reader.read().catch(() => ({ done: true }));
    if (done) return;
    offer(frame, aligner.place(frame.timestamp / 1e6, absoluteS()));
  }
}

// The picture is sent, or left out because newer ones will come; it is closed in either case.
async function offer(picture, capturedS) {
  counts.taken++;
  if (!wanted || !ready || capturedS < wanted.zeroS) { counts.kept++; picture.close(); return; }
  const t = capturedS - wanted.zeroS;
  const nowS = absoluteS() - wanted.zeroS;
  while (inFlight.length && nowS - inFlight[0] > GIVEN_UP_S) { inFlight.shift(); counts.lost++; }
  if (busy || inFlight.length >= IN_FLIGHT || socket.bufferedAmount > BUFFERED_BYTES) {
    counts.left++;
    picture.close();
    return;
  }
  busy = true;
  try {
    const jpeg = await encoded(picture);
    if (ready && wanted) {
      inFlight.push(t);
      send(1, number++, t, jpeg);
      counts.sent++;
    }
  } finally {
    busy = false;
  }
}

async function encoded(picture) {
  const width = picture.displayWidth ?? picture.width;
  const height = picture.displayHeight ?? picture.height;
  const scale = Math.min(1, wanted.width / width);
  const size = [Math.max(16, Math.round(scale * width)), Math.max(16, Math.round(scale * height))];
  if (!canvas || canvas.width !== size[0] || canvas.height !== size[1]) canvas = new OffscreenCanvas(...size);
  canvas.getContext("2d", { alpha: false, desynchronized: true }).drawImage(picture, 0, 0, ...size);
  picture.close();
  const blob = await canvas.convertToBlob({ type: "image/jpeg", quality: QUALITY });
  return blob.arrayBuffer();
}

function takeSound(port) {
  const aligner = new Aligner();
  port.onmessage = ({ data: { first, rate, samples } }) => {
    const nowS = absoluteS();
    const lengthS = samples.length / rate;
    const t = aligner.place(first / rate + lengthS, nowS) - lengthS - (wanted?.zeroS ?? nowS);
    if (wanted && ready && t >= 0 && socket.bufferedAmount < BUFFERED_BYTES) send(2, rate, t, samples.buffer);
  };
}

function send(kind, numberOrRate, t, content) {
  const message = new Uint8Array(16 + content.byteLength);
  const head = new DataView(message.buffer);
  head.setUint8(0, kind);
  head.setUint32(4, numberOrRate, true);
  head.setFloat64(8, t, true);
  message.set(new Uint8Array(content), 16);
  socket.send(message);
}
