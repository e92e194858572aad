// The microphone: samples while it is open, their level, and at the end a WAV.

export class Microphone {
  /** @param {(level: number) => void} onLevel told the loudness of each block, 0 to 1 */
  constructor(onLevel) {
    this.onLevel = onLevel;
    this.blocks = [];
    this.recording = false;
  }

  /** Ask for the microphone; keep it for the next time. */
  async open() {
    if (this.context) return this.context.resume();
    if (!navigator.mediaDevices) throw new Error("The microphone needs HTTPS, or localhost.");
    this.stream = await navigator.mediaDevices.getUserMedia({
      audio: { channelCount: 1, echoCancellation: true, noiseSuppression: true },
    });
    const context = new AudioContext();
    await context.audioWorklet.addModule("web/recorder.js");
    const node = new AudioWorkletNode(context, "recorder", { numberOfOutputs: 0 });
    node.port.onmessage = ({ data }) => this.take(data);
    context.createMediaStreamSource(this.stream).connect(node);
    this.context = context;
  }

  take(block) {
    if (!this.recording) return;
    this.blocks.push(block);
    let power = 0;
    for (const sample of block) power += sample * sample;
    // decibels from -60 to 0 as 0 to 1: as loud as it sounds
    const decibels = 10 * Math.log10(power / block.length + 1e-9);
    this.onLevel(Math.min(1, Math.max(0, 1 + decibels / 60)));
  }

  start() {
    this.blocks = [];
    this.recording = true;
  }

  /** @returns {{wav: Blob, seconds: number}} what was said since start() */
  stop() {
    this.recording = false;
    this.onLevel(0);
    const rate = this.context.sampleRate;
    const length = this.blocks.reduce((sum, block) => sum + block.length, 0);
    return { wav: wav(this.blocks, length, rate), seconds: length / rate };
  }
}

/** Write samples in [-1, 1] as a WAV of 16-bit integers. */
function wav(blocks, length, rate) {
  const view = new DataView(new ArrayBuffer(44 + 2 * length));
  const letters = (at, text) => [...text].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  letters(0, "RIFF"); view.setUint32(4, 36 + 2 * length, true); letters(8, "WAVEfmt ");
  view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, 1, true);
  view.setUint32(24, rate, true); view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true); view.setUint16(34, 16, true);
  letters(36, "data"); view.setUint32(40, 2 * length, true);
  let at = 44;
  for (const block of blocks) {
    for (const sample of block) {
      view.setInt16(at, Math.round(32767 * Math.min(1, Math.max(-1, sample))), true);
      at += 2;
    }
  }
  return new Blob([view], { type: "audio/wav" });
}
