// Draws the explanation of a query.

import { copyButton } from "./copy.js";
import { element } from "./results.js";

// Draws the answer of `/v1/explain`, and `vector` if it is given.
export function explanation(content, vector) {
  const drawn = [];
  content.pictures.forEach((words, i) => {
    const list = element("ul", { className: "words" });
    for (const { word, similarity } of words) {
      list.append(element("li", { title: `similarity ${similarity.toFixed(3)}` }, word));
    }
    const which = content.pictures.length > 1 ? ` ${i + 1}` : "";
    drawn.push(element("div", {}, element("h2", {}, `Words nearest to what the picture${which} became`), list));
  });
  if (content.parts.length) {
    const most = Math.max(...content.parts.map((part) => part.moves), 1e-6);
    const list = element("div", { className: "parts" });
    for (const part of content.parts) {
      const name = nameOf(part, content.pictures.length);
      const meter = element("meter", { min: 0, max: most, value: part.moves, title: part.moves.toFixed(4) });
      meter.setAttribute("aria-label", `${name} moves the query by ${part.moves.toFixed(3)}`);
      list.append(element("span", {}, name), meter);
    }
    drawn.push(element("div", {}, element("h2", {}, "How far each part moves the query"), list));
  }
  if (vector) {
    const copy = copyButton("Copy all", () => JSON.stringify(vector));
    const start = vector.slice(0, 12).map((x) => x.toFixed(4)).join(", ");
    drawn.push(
      element("div", {}, element("h2", {}, `The query vector, ${vector.length} numbers`), element("pre", {}, `[${start}, …]`), copy),
    );
  }
  if (!drawn.length) drawn.push(element("p", {}, "This query has no parts to explain."));
  return drawn;
}

function nameOf({ part, word }, pictures) {
  if (part === "negative_text") return word ? `not ${word}` : "what should not be there";
  const picture = /^image\.(\d+)$/.exec(part);
  if (picture) return pictures > 1 ? `photo ${Number(picture[1]) + 1}` : "the picture";
  return word || part;
}
