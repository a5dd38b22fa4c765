// The query on screen, and what it may be sent to.

import { Target } from "./query.js";

export const $ = (id) => document.getElementById(id);

// Pictures are {name, address, data} of a file, or {name, address, hit} of an object.
export const EMPTY = {
  picture: null,
  others: [], // further photos of the same thing
  box: null, like: [], unlike: [],
  text: "", negative: "", must: "", filter: "", groupBy: "", composer: "", second: "", language: "", minScore: "",
  keep: 0.5, hybrid: false,
  textWeight: null, // the collection's own
  diversity: 0, strength: 2,
};

export const state = { asked: { ...EMPTY }, models: [], collections: [], keyNeeded: false };

const collection = () => state.collections.find((each) => each.name === $("collection").value);
const model = () => state.models.find((each) => each.id === $("model").value) || state.models[0];

export const target = () => new Target(model(), collection());
export const asks = ({ picture, text, like } = state.asked) => Boolean(picture || text.trim() || like.length);
export const wide = () => matchMedia("(min-width: 761px)").matches;
