// A list of results: asks for them, draws them, and explains them. Two of them stand side by side.

import { ask } from "./api.js";
import { explanation } from "./explain.js";
import { PAGE } from "./query.js";
import { card, element } from "./results.js";

export class Pane {
  // `actions(target)` returns a function from a hit to what can be done with it; `grown` is called when more results have come.
  constructor(root, actions, grown) {
    this.root = root;
    this.actions = actions;
    this.grown = grown;
    this.name = root.querySelector(".composer");
    this.problem = root.querySelector(".problem");
    this.notes = root.querySelector(".notes");
    this.why = root.querySelector(".why");
    this.grid = root.querySelector(".grid");
    this.button = root.querySelector(".more");
    this.button.addEventListener("click", () => this.more());
    this.clear();
  }

  // What is shown: the hits, the body that was sent, the model, and the target.
  clear() {
    this.shown = { hits: [], body: null, model: null, target: null };
    this.grid.replaceChildren();
    this.grid.hidden = this.button.hidden = this.why.hidden = true;
    this.#note([]);
    this.say("");
  }

  say(problem) {
    this.problem.textContent = problem;
    this.problem.hidden = !problem;
  }

  async find(target, body, signal) {
    const content = await ask("v1/search", body, signal);
    this.clear();
    this.shown = { hits: content.hits, body, model: content.model, target };
    this.#add(content.hits);
    this.grid.classList.remove("unranked");
    this.#note(content.notes);
  }

  // Shows some objects in no order of their own.
  async sample(target, wanted) {
    const content = await ask("v1/search", { collection: target.collection.name, query: { text: "a photo" }, limit: 12 });
    if (!wanted()) return false;
    this.shown = { ...this.shown, target };
    this.#add(content.hits);
    this.grid.classList.add("unranked");
    this.button.hidden = true;
    return true;
  }

  async compose(target, query, signal) {
    const model = target.model.id;
    const content = await ask("v1/compose", { model, queries: [query] }, signal);
    const said = await ask("v1/explain", { model, query, words: 12 }, signal);
    this.clear();
    this.shown = { ...this.shown, target };
    this.#note(content.notes[0]);
    this.why.replaceChildren(...explanation(said, content.vectors[0]));
    this.why.hidden = false;
    return `Composed by ${content.model}${said.composer ? `, ${said.composer}` : ""}.`;
  }

  async explain() {
    const of = this.shown;
    const { body, model, target } = of;
    const query = target.composable(body.query);
    const said = await ask("v1/explain", { model, query, collection: body.collection, words: 12 });
    if (this.shown !== of) return;
    this.why.replaceChildren(...explanation(said));
    this.why.hidden = false;
  }

  async more() {
    const of = this.shown;
    this.button.disabled = true;
    try {
      const content = await ask("v1/search", { ...of.body, offset: of.hits.length });
      if (this.shown !== of) return; // another search was made meanwhile
      const start = of.hits.length;
      of.hits.push(...content.hits);
      this.#add(content.hits, start);
      this.grid.children[start]?.querySelector("button").focus();
      this.grown();
    } catch (error) {
      if (this.shown === of) this.say(error.message);
    } finally {
      this.button.disabled = false;
    }
  }

  // Says in each card at which place the other pane has the same object.
  mark(other) {
    this.#each((made, hit, i) => {
      made.querySelector(".there")?.remove();
      made.classList.remove("both", "alone");
      if (!other) return;
      const at = other.shown.hits.findIndex((each) => each.id_text === hit.id_text);
      const moved = at === i ? "=" : at < i ? `▲ ${i - at}` : `▼ ${at - i}`;
      const there = at < 0 ? "only here" : `number ${at + 1} there`;
      const seen = at < 0 ? there : `${moved} · ${there}`;
      made.classList.add(at < 0 ? "alone" : "both");
      made.append(element("span", { className: "there" }, element("span", { className: "unseen" }, there), visual(seen)));
    });
  }

  #each(act) {
    [...this.grid.children].forEach((made, i) => act(made, this.shown.hits[i], i));
  }

  #add(hits, start = 0) {
    const on = this.actions(this.shown.target);
    this.grid.append(...hits.map((hit, i) => card(hit, start + i + 1, on(hit))));
    this.grid.hidden = !this.grid.children.length;
    this.button.hidden = hits.length < PAGE;
  }

  #note(sentences) {
    this.notes.replaceChildren(...sentences.map((sentence) => element("li", {}, sentence)));
    this.notes.hidden = !sentences.length;
  }
}

function visual(text) {
  const made = element("span", {}, text);
  made.setAttribute("aria-hidden", "true");
  return made;
}
