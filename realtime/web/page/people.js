// A card for each person, kept up to date in place so that a screen reader and the eye keep their place.
import { opacityOf } from "/page/draw.js";
import { LABELS, colourOf, percent } from "/page/labels.js";

const KEPT_S = 1.5;
const MANY = 4;

function made(tag, className = "", text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

export function nameOf(track) {
  return track === null ? "A voice of nobody in view" : `Person ${track}`;
}

export class People {
  #cards = new Map();

  constructor(place, nobody) {
    this.place = place;
    this.nobody = nobody;
  }

  clear() {
    this.#cards.clear();
    this.place.replaceChildren();
    this.nobody.hidden = false;
  }

  show(cues, nowS) {
    for (const cue of cues) {
      if (!this.#cards.has(cue.track)) this.#add(cue.track);
      const card = this.#cards.get(cue.track);
      card.seenS = nowS;
      fill(card, cue, nowS);
    }
    for (const [track, card] of this.#cards) {
      if (nowS - card.seenS > KEPT_S) {
        card.element.remove();
        this.#cards.delete(track);
      }
    }
    this.place.classList.toggle("many", this.#cards.size > MANY);
    this.nobody.hidden = this.#cards.size > 0;
  }

  #add(track) {
    const element = made("article", "card person");
    element.setAttribute("aria-label", nameOf(track));
    const [head, said, bars] = [made("header"), made("p", "said"), made("div", "bars")];
    const card = {
      element, speaks: made("span", "speaks"), dot: made("i", "dot"), label: made("b", "label"), sure: made("span"),
      reason: made("p", "reason"), foot: made("footer"), bars: [], seenS: 0,
    };
    head.append(made("span", "", nameOf(track)), card.speaks);
    said.append(card.dot, card.label, card.sure);
    for (const label of LABELS) {
      const [name, rail, bar, share] = [made("span", "", label), made("i"), made("i"), made("b")];
      rail.setAttribute("aria-hidden", "true");
      bar.style.background = colourOf(label);
      rail.append(bar);
      bars.append(name, rail, share);
      card.bars.push([label, bar, share]);
    }
    element.append(head, said, card.reason, bars, card.foot);
    this.#cards.set(track, card);
    this.place.append(element);
  }
}

function fill(card, cue, nowS) {
  card.element.classList.toggle("old", opacityOf(cue, nowS) < 0.3);
  card.speaks.textContent = cue.speaking ? "speaks" : "";
  card.dot.style.background = colourOf(cue.label);
  card.label.textContent = cue.label;
  card.sure.textContent = cue.label === "not sure" ? "" : percent(cue.confidence);
  card.reason.textContent = cue.reason ?? "";
  card.reason.hidden = !cue.reason;
  for (const [label, bar, share] of card.bars) {
    bar.style.width = `${100 * cue.fused[label]}%`;
    share.textContent = percent(cue.fused[label]);
  }
  const since = Math.max(0, 1000 * (nowS - cue.t));
  const parts = Object.entries(cue.age_ms).filter(([, age]) => age !== null)
    .map(([kind, age]) => `${kind} ${percent(cue.weights[kind])}, ${Math.round((age + since) / 10) * 10} ms old`);
  card.foot.textContent = parts.join(" · ") || "no reading yet";
}
