// Earlier queries, shown above the results and kept in the browser's history.

import { element } from "./results.js";

export class Steps {
  // `restore` is called with the query of a step that the user goes back to.
  constructor(list, restore) {
    this.list = list;
    this.restore = restore;
    this.steps = [];
    addEventListener("popstate", (event) => event.state && this.back(event.state.step));
  }

  // Another picture or text makes a new step; any other change updates the current step.
  add(asked) {
    const at = this.steps.findIndex((each) => each.current);
    const before = this.steps[at]?.asked;
    const same = before && before.picture?.address === asked.picture?.address && before.text === asked.text;
    this.steps = this.steps.slice(0, same ? at : at + 1).map((each) => ({ ...each, current: false }));
    this.steps.push({ asked: { ...asked }, current: true });
    history[same ? "replaceState" : "pushState"]({ step: this.steps.length - 1 }, "");
    this.#draw();
  }

  clear() {
    this.steps = [];
    this.#draw();
  }

  back(i) {
    if (!this.steps[i]) return;
    this.steps = this.steps.map((each, k) => ({ ...each, current: k === i }));
    this.#draw();
    this.restore({ ...this.steps[i].asked });
  }

  #draw() {
    const held = this.list.contains(document.activeElement);
    this.list.hidden = this.steps.length < 2;
    this.list.replaceChildren(
      ...this.steps.map(({ asked: { picture, text, like }, current }, i) => {
        const words = text.trim() || picture?.name || (like.length ? "more like these" : "search");
        const button = element("button", { type: "button", title: words }, element("span", {}, words));
        const image = picture || like[0];
        if (image) button.prepend(element("img", { src: image.address, alt: "" }));
        if (current) button.setAttribute("aria-current", "step");
        button.addEventListener("click", () => this.back(i));
        return element("li", {}, button);
      }),
    );
    this.list.scrollLeft = this.list.scrollWidth;
    if (held) this.list.querySelector("[aria-current]")?.focus();
  }
}
