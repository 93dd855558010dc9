// Camera, microphone or a shared tab: opened, named when they fail, and handed to the worker that sends.
import { absoluteS } from "/page/stamps.js";

const WHY = {
  NotAllowedError: ["Not allowed", "The browser was told not to share it. Allow it beside the address of this page, then try again."],
  NotFoundError: ["Nothing there", "There is no camera or microphone that fits. Plug one in, then try again."],
  NotReadableError: ["In use", "Another program holds the camera; most cameras serve one program at a time. Close it there, or take another one under Devices."],
  OverconstrainedError: ["Gone", "The device that was chosen is not there any more. Choose another one under Devices."],
  SecurityError: ["Not here", "A browser gives pictures to pages of this machine or of https only: open http://127.0.0.1 instead."],
};

export function explained(error) {
  const [title, text] = WHY[error.name] ?? ["It did not start", error.message || String(error)];
  return { title, text };
}

// One stream with what was asked for; a missing microphone is no reason to do without the picture.
export async function openStream(source, cameraId, microphoneId) {
  if (!navigator.mediaDevices) throw new DOMException("", "SecurityError");
  if (source === "screen") {
    return navigator.mediaDevices.getDisplayMedia({
      video: { frameRate: 30 }, audio: { suppressLocalAudioPlayback: false }, systemAudio: "include",
    });
  }
  const video = { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30 } };
  if (cameraId) video.deviceId = { exact: cameraId };
  // What a browser does to a voice for others' ears would be heard as expression.
  const audio = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  if (microphoneId) audio.deviceId = { exact: microphoneId };
  if (microphoneId === "none") return navigator.mediaDevices.getUserMedia({ video });
  try {
    return await navigator.mediaDevices.getUserMedia({ video, audio });
  } catch (error) {
    if (error.name !== "NotFoundError") throw error;
    return navigator.mediaDevices.getUserMedia({ video });
  }
}

export async function fillDevices(cameras, microphones, stream) {
  const known = await navigator.mediaDevices.enumerateDevices();
  const used = stream.getTracks().map((track) => track.getSettings().deviceId);
  const fill = (select, kind) => {
    const options = known.filter((device) => device.kind === kind)
      .map((device, k) => new Option(device.label || `Device ${k + 1}`, device.deviceId, false, used.includes(device.deviceId)));
    select.replaceChildren(...options);
  };
  fill(cameras, "videoinput");
  fill(microphones, "audioinput");
  microphones.append(new Option("none", "none", false, stream.getAudioTracks().length === 0));
}

// Hands the stream to the worker; returns what ends that again.
export async function feed(stream, video, worker) {
  const ends = [];
  const [picture] = stream.getVideoTracks();
  if (picture && self.MediaStreamTrackProcessor) {
    const { readable } = new MediaStreamTrackProcessor({ track: picture, maxBufferSize: 2 });
    worker.postMessage({ kind: "frames", readable }, [readable]);
  } else if (picture) {
    ends.push(feedFromVideo(video, worker));
  }
  if (stream.getAudioTracks().length) ends.push(await feedSound(stream, worker));
  return () => { ends.forEach((end) => end()); stream.getTracks().forEach((track) => track.stop()); };
}

// Where tracks cannot be read: every picture that the video element shows. Stops while the page is hidden.
function feedFromVideo(video, worker) {
  let over = false;
  const next = async (now, about) => {
    if (over) return;
    video.requestVideoFrameCallback(next);
    const t = (performance.timeOrigin + (about.captureTime ?? now)) / 1000;
    const bitmap = await createImageBitmap(video).catch(() => null);
    if (bitmap) worker.postMessage({ kind: "bitmap", bitmap, t: Math.min(t, absoluteS()) }, [bitmap]);
  };
  video.requestVideoFrameCallback(next);
  return () => { over = true; };
}

async function feedSound(stream, worker) {
  const context = new AudioContext({ latencyHint: "interactive" });
  await context.audioWorklet.addModule("/page/sound.js");
  const node = new AudioWorkletNode(context, "chunks", { numberOfInputs: 1, numberOfOutputs: 1 });
  const between = new MessageChannel();
  node.port.postMessage({ port: between.port1 }, [between.port1]);
  worker.postMessage({ kind: "sound", port: between.port2 }, [between.port2]);
  context.createMediaStreamSource(new MediaStream(stream.getAudioTracks())).connect(node);
  node.connect(context.destination); // it puts out silence; unconnected, some browsers would not run it
  // Not awaited: Firefox never answers where the machine has nothing to play sound with, and pictures go on without.
  context.resume().catch(() => {});
  return () => context.close();
}
