// Draws the results and their explanation.

import { thumbnail } from "./api.js";

export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

const TITLES = ["title", "name", "product", "caption", "label", "description"];

// Returns an object's title: the column that names it, else its file's name, else its id.
export function titleOf(hit) {
  const column = TITLES.find((name) => typeof hit.payload[name] === "string" && hit.payload[name].trim());
  return column ? hit.payload[column].trim() : hit.name || hit.id_text;
}

// One result. `on` has go(hit), like(hit) and unlike(hit); the last two are left out if they are null.
export function card(hit, rank, on) {
  const title = titleOf(hit);
  const columns = Object.entries(hit.payload).filter(
    ([, value]) => ["string", "number"].includes(typeof value) && value !== "" && value !== title,
  );
  const all = columns.map(([key, value]) => `${key}: ${value}`).join("\n");
  const view = element("span", { className: "view" });
  if (hit.thumbnail) {
    const picture = element("img", { src: thumbnail(hit, 320), alt: "", loading: "lazy", decoding: "async" });
    picture.addEventListener("error", () => picture.replaceWith("no picture"));
    view.append(picture);
  } else {
    view.append("no picture");
  }
  const signals = Object.entries(hit.signals || {}).map(([name, value]) => [name, value.toFixed(2)]);
  const second = signals.some(([name]) => name !== "picture"); // else the score says it
  const said = second ? signals.map(([name, value]) => `, ${name} ${value}`).join("") : "";
  const go = element(
    "button",
    { type: "button", className: "go", title: on.go ? "Search from this one" : title, disabled: !on.go },
    view,
    element(
      "span",
      { className: "about" },
      element("span", { className: "what" }, title),
      element("span", { className: "columns", title: all }, columns.map(([, value]) => value).join(" · ")),
      ...(second ? [gave(signals)] : []),
    ),
  );
  go.setAttribute("aria-label", `${rank}: ${title}, score ${hit.score.toFixed(3)}${said}. Search from this one.`);
  go.addEventListener("click", () => on.go(hit));
  const made = element(
    "li",
    { className: "card" },
    go,
    element("span", { className: "score", "aria-hidden": "true" }, hit.score.toFixed(3)),
  );
  if (on.like) {
    const tool = (sign, label, act) => {
      const button = element("button", { type: "button", title: label }, sign);
      button.setAttribute("aria-label", `${label}: ${title}`);
      button.addEventListener("click", () => act(hit));
      return button;
    };
    made.append(
      element("span", { className: "tools" }, tool("+", "More like this", on.like), tool("−", "Less like this", on.unlike)),
    );
  }
  return made;
}

const ABOUT = {
  picture: "how near the query is to the picture",
  text: "how near the query is to the object's text",
  unwanted: "how near the result is to what should not be there, from 0 to 1",
  wanted: "how near the result is to what it should show, from 0 to 1",
};

// What each signal of a result gave to its score.
function gave(signals) {
  const list = signals.map(([name, value]) => element("span", { title: ABOUT[name] }, `${name} `, element("b", {}, value)));
  return element("span", { className: "signals" }, ...list);
}

// Copies a text; returns true on success. Over plain HTTP from another machine there is no `navigator.clipboard`.
async function copyText(text) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
    return true;
  }
  const before = document.activeElement;
  const area = element("textarea", { className: "unseen", value: text, readOnly: true });
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  before?.focus();
  return copied;
}

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
      const unwanted = part.part === "negative_text" && part.word && `not ${part.word}`;
      const name = unwanted || part.word || { "image.0": "the picture", negative_text: "what should not be there" }[part.part] || part.part;
      const meter = element("meter", { min: 0, max: most, value: part.moves, title: part.moves.toFixed(4) });
      meter.setAttribute("aria-label", `${name} moves the query by ${part.moves.toFixed(3)}`);
      list.append(element("span", {}, name), meter);
    }
    drawn.push(element("div", {}, element("h2", {}, "How far each part moves the query"), list));
  }
  if (vector) {
    const copy = element("button", { type: "button", className: "small" }, "Copy all");
    copy.addEventListener("click", async () => {
      const copied = await copyText(JSON.stringify(vector)).catch(() => false);
      copy.textContent = copied ? "Copied" : "Could not be copied";
    });
    const start = vector.slice(0, 12).map((x) => x.toFixed(4)).join(", ");
    drawn.push(
      element("div", {}, element("h2", {}, `The query vector, ${vector.length} numbers`), element("pre", {}, `[${start}, …]`), copy),
    );
  }
  if (!drawn.length) drawn.push(element("p", {}, "This query has no parts to explain."));
  return drawn;
}
