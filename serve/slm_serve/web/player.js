// Plays pcm16 as it comes: each piece is scheduled right behind the one before.

const RATE_HZ = 24000;
// a piece that comes late starts this much after now, so that the next one can follow without a click
const MARGIN_S = 0.03;

export class Player {
  constructor() {
    this.sources = new Set();
    this.end = 0;
    this.seconds = 0;
    this.odd = new Uint8Array(0);
  }

  /** Must be called from a click or a key: browsers keep pages silent otherwise. */
  async wake() {
    this.context ??= new AudioContext({ sampleRate: RATE_HZ });
    await this.context.resume();
  }

  begin() {
    this.stop();
    this.seconds = 0;
    this.odd = new Uint8Array(0);
  }

  /** @param {Uint8Array} bytes pcm16, little-endian; an odd last byte waits for its other half */
  push(bytes) {
    const whole = new Uint8Array(this.odd.length + bytes.length);
    whole.set(this.odd);
    whole.set(bytes, this.odd.length);
    const count = whole.length >> 1;
    this.odd = whole.slice(2 * count);
    if (!count) return;
    const view = new DataView(whole.buffer);
    const buffer = this.context.createBuffer(1, count, RATE_HZ);
    const samples = buffer.getChannelData(0);
    for (let i = 0; i < count; i++) samples[i] = view.getInt16(2 * i, true) / 32768;
    const source = this.context.createBufferSource();
    source.buffer = buffer;
    source.connect(this.context.destination);
    source.onended = () => this.sources.delete(source);
    this.end = Math.max(this.end, this.context.currentTime + MARGIN_S);
    source.start(this.end);
    this.end += buffer.duration;
    this.seconds += buffer.duration;
    this.sources.add(source);
  }

  /** Fall silent at once. */
  stop() {
    for (const source of this.sources) source.stop();
    this.sources.clear();
    this.end = 0;
  }

  get playing() {
    return this.sources.size > 0;
  }

  /** Wait until everything given so far has been heard, or stopped. */
  async finished() {
    while (this.playing) await new Promise((done) => setTimeout(done, 50));
  }
}
