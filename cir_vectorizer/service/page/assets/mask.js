// The box over the part of the picture that may change: drawn with a pointer, moved with the keyboard.

const STEP = 0.02;
const LEAST = 0.03;
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

export class Mask {
  // `changed` is called with [left, top, right, bottom] as fractions of the picture's sides, or null.
  constructor(frame, box, changed) {
    this.frame = frame;
    this.element = box;
    this.changed = changed;
    this.box = null;
    this.start = null;
    frame.addEventListener("pointerdown", (event) => this.#down(event));
    frame.addEventListener("pointermove", (event) => this.#move(event));
    frame.addEventListener("pointerup", () => this.#up());
    frame.addEventListener("pointercancel", () => this.#up());
    box.addEventListener("keydown", (event) => this.#key(event));
  }

  set(box) {
    this.box = box;
    this.frame.classList.toggle("marking", box !== null);
    this.element.hidden = box === null;
    if (box === null) return;
    const [left, top, right, bottom] = box;
    Object.assign(this.element.style, {
      left: `${100 * left}%`,
      top: `${100 * top}%`,
      width: `${100 * (right - left)}%`,
      height: `${100 * (bottom - top)}%`,
    });
  }

  #point(event) {
    const { left, top, width, height } = this.frame.getBoundingClientRect();
    return [clamp((event.clientX - left) / width, 0, 1), clamp((event.clientY - top) / height, 0, 1)];
  }

  #down(event) {
    if (this.box === null || event.button !== 0) return;
    event.preventDefault();
    this.frame.setPointerCapture(event.pointerId);
    this.start = { point: this.#point(event), before: this.box };
  }

  #move(event) {
    if (this.start === null) return;
    const [x, y] = this.#point(event);
    const [a, b] = this.start.point;
    this.set([Math.min(a, x), Math.min(b, y), Math.max(a, x), Math.max(b, y)]);
  }

  #up() {
    if (this.start === null) return;
    const [left, top, right, bottom] = this.box;
    if (right - left < LEAST || bottom - top < LEAST) this.set(this.start.before);
    this.start = null;
    this.changed(this.box);
  }

  #key(event) {
    const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] || [0, 0];
    let [left, top, right, bottom] = this.box;
    if (event.key === "Delete" || event.key === "Backspace") {
      event.preventDefault();
      this.set(null);
      this.changed(null);
      return;
    }
    if (!dx && !dy) return;
    event.preventDefault();
    if (event.shiftKey) {
      right = clamp(right + dx * STEP, left + LEAST, 1);
      bottom = clamp(bottom + dy * STEP, top + LEAST, 1);
    } else {
      const x = clamp(dx * STEP, -left, 1 - right);
      const y = clamp(dy * STEP, -top, 1 - bottom);
      [left, top, right, bottom] = [left + x, top + y, right + x, bottom + y];
    }
    this.set([left, top, right, bottom]);
    this.changed(this.box);
  }
}
