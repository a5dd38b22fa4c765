// The form: shows the query, and reads it.

import { Mask } from "./mask.js";
import { element } from "./results.js";
import { $, state, target } from "./state.js";

const FIELDS = {
  text: "text", negative: "negative", must: "must", filter: "filter", groupBy: "group-by", composer: "composer", second: "second",
  language: "language", minScore: "min-score",
};
const SLIDERS = { keep: "keep", diversity: "diversity", strength: "strength" };
let changed = () => {};
const mask = new Mask($("frame"), $("box"), (box) => changed({ box }));

export function read() {
  const said = Object.fromEntries(Object.entries(FIELDS).map(([key, id]) => [key, $(id).value]));
  const numbers = Object.fromEntries(Object.entries(SLIDERS).map(([key, id]) => [key, Number($(id).value)]));
  state.asked = { ...state.asked, ...said, ...numbers, hybrid: $("hybrid").checked };
}

// Writes the numbers of the sliders beside them.
export function sliders() {
  for (const id of [...Object.values(SLIDERS), "text-weight"]) $(`${id}-value`).textContent = $(id).value;
}

// Shows the query in the form. `change` is called with what the user changes.
export function show(change) {
  changed = change;
  const { asked } = state;
  const to = target();
  for (const [key, id] of Object.entries(FIELDS)) if ($(id).value !== asked[key]) $(id).value = asked[key];
  for (const [key, id] of Object.entries(SLIDERS)) $(id).value = asked[key];
  $("hybrid").checked = asked.hybrid;
  $("text-weight").value = asked.textWeight ?? to.collection?.text_weight ?? 0;
  sliders();
  showPicture(asked, to);
  $("picture").hidden = to.refuses("image", asked.composer);
  $("text-field").hidden = to.refuses("text", asked.composer);
  $("negative-field").hidden = to.ignoresUnwanted(asked.composer);
  $("must-field").hidden = !to.searchable;
  $("text-weight-field").hidden = !to.collection?.texts;
  $("language-field").hidden = to.refuses("language", asked.composer);
  $("keep-field").hidden = !asked.picture || !to.has("keep", asked.composer);
  for (const side of ["like", "unlike"]) chips(side, asked[side]);
  $("refine").hidden = !asked.like.length && !asked.unlike.length;
}

function showPicture({ picture, others, box, composer }, to) {
  $("drop").hidden = Boolean(picture);
  $("shown").hidden = !picture;
  if (picture && $("preview").getAttribute("src") !== picture.address) $("preview").src = picture.address;
  $("picture-name").textContent = picture ? picture.name : "";
  mask.set(picture ? box : null);
  $("mark").hidden = !to.masking() || Boolean(picture?.hit && !picture.hit.thumbnail);
  $("mark").textContent = box ? "Unmark" : "Mark a part";
  $("mark-hint").hidden = !box;
  $("add").hidden = (to.takes(composer)?.most_images ?? 1) <= 1 + others.length;
  chips("others", others);
}

// Draws a list of pictures, each of which a click removes.
function chips(key, pictures) {
  $(key).replaceChildren(
    ...pictures.map((each, i) => {
      const button = element("button", { type: "button", className: "chip", title: `Remove ${each.name}` });
      button.append(element("img", { src: each.address, alt: "" }));
      button.setAttribute("aria-label", `Remove ${each.name}`);
      button.addEventListener("click", () => {
        changed({ [key]: pictures.filter((_, k) => k !== i) });
        ($(key).querySelector("button") || $("text")).focus();
      });
      return button;
    }),
  );
}
