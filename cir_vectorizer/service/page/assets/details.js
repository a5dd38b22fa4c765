// A result in its own words, and the search that goes on from it.

import { $ } from "./state.js";
import { ABOUT, columnsOf, descriptionOf, element, pictureOf, signalsOf, titleOf } from "./results.js";

let opened = null; // {hit, on}

export function openDetails(hit, on) {
  opened = { hit, on };
  const title = titleOf(hit);
  $("details-title").textContent = title;
  $("details-picture").replaceChildren(pictureOf(hit, 640, title));
  $("details-words").textContent = descriptionOf(hit);
  $("details-words").hidden = !descriptionOf(hit);
  const columns = [...columnsOf(hit), ["object", hit.id_text], ...(hit.name ? [["picture", hit.name]] : []), ["score", hit.score.toFixed(3)]];
  $("details-columns").replaceChildren(...pairs(columns), ...pairs(signalsOf(hit), ABOUT));
  $("but-form").hidden = !on.go;
  $("but").value = "";
  $("details").showModal();
}

function pairs(columns, about = {}) {
  return columns.flatMap(([name, value]) => [element("dt", { title: about[name] || "" }, name), element("dd", {}, value)]);
}

$("details-close").addEventListener("click", () => $("details").close());
$("details").addEventListener("click", (event) => event.target === $("details") && $("details").close()); // outside of it
$("but-form").addEventListener("submit", (event) => {
  event.preventDefault();
  $("details").close();
  opened.on.go(opened.hit, $("but").value);
});
