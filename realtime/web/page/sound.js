// Runs where sound is made: gathers 20 ms of mono int16 and hands them on with the number of their first sample.
class Chunks extends AudioWorkletProcessor {
  constructor() {
    super();
    this.size = Math.round(sampleRate / 50);
    this.chunk = new Int16Array(this.size);
    this.filled = 0;
    this.out = null;
    this.port.onmessage = (event) => { this.out = event.data.port; };
  }

  process(inputs) {
    const channels = inputs[0];
    if (!this.out || channels.length === 0) return true;
    const first = currentFrame;
    for (let k = 0; k < channels[0].length; k++) {
      let sum = 0;
      for (const channel of channels) sum += channel[k];
      const value = Math.max(-1, Math.min(1, sum / channels.length));
      this.chunk[this.filled++] = Math.round(value * 32767);
      if (this.filled === this.size) {
        const begins = first + k + 1 - this.size;
        this.out.postMessage({ first: begins, rate: sampleRate, samples: this.chunk }, [this.chunk.buffer]);
        this.chunk = new Int16Array(this.size);
        this.filled = 0;
      }
    }
    return true;
  }
}

registerProcessor("chunks", Chunks);
