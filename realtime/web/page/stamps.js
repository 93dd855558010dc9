// When something was captured, on the clock of the page. Devices stamp on clocks of their own, and what they bring
// arrives late by a time that varies: the least delay of the last seconds is taken for the way, the rest for waiting.
const HALF_S = 5;

export function absoluteS() {
  return (performance.timeOrigin + performance.now()) / 1000;
}

export class Aligner {
  #halves = [Infinity, Infinity];
  #turned = 0;
  #last = -Infinity;

  // `stampS` on the device's clock, `nowS` when it arrived; never goes back.
  place(stampS, nowS) {
    if (nowS - this.#turned > HALF_S) {
      this.#halves = [this.#halves[1], Infinity];
      this.#turned = nowS;
    }
    this.#halves[1] = Math.min(this.#halves[1], nowS - stampS);
    this.#last = Math.max(this.#last, stampS + Math.min(...this.#halves));
    return this.#last;
  }
}
