// Draws the results.

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
const DESCRIPTIONS = ["description", "caption", "text", "summary", "details"];

const said = (value) => (typeof value === "string" ? value.trim() : "");

// Returns the columns that together name an object: the one that is its title, else the first short texts.
function namingOf(hit) {
  const column = TITLES.find((name) => said(hit.payload[name]));
  if (column) return [column];
  return Object.keys(hit.payload).filter((name) => /^[^/\\]{1,30}$/.test(said(hit.payload[name]))).slice(0, 3);
}

// Returns an object's title; its file's name if no column names it, else its id.
export function titleOf(hit) {
  return namingOf(hit).map((name) => said(hit.payload[name])).join(" · ") || hit.name || hit.id_text;
}

// Returns an object's description in its own words; empty if it has none beside its title.
export function descriptionOf(hit) {
  const title = titleOf(hit);
  return DESCRIPTIONS.map((name) => said(hit.payload[name])).find((text) => text && text !== title) || "";
}

// Returns an object's other columns as pairs of name and text.
export function columnsOf(hit) {
  const [naming, description] = [namingOf(hit), descriptionOf(hit)];
  const text = (value) => (value !== null && typeof value === "object" ? JSON.stringify(value) : String(value ?? ""));
  return Object.entries(hit.payload)
    .map(([name, value]) => [name, Array.isArray(value) ? value.map(text).join(", ") : text(value)])
    .filter(([name, value]) => value.trim() && !naming.includes(name) && value.trim() !== description);
}

// Returns the signals of a result as pairs of name and number; empty if the score says it all.
export function signalsOf(hit) {
  const signals = Object.entries(hit.signals || {}).map(([name, value]) => [name, value.toFixed(2)]);
  return signals.some(([name]) => name !== "picture") ? signals : [];
}

// The picture of an object, or words in its place.
export function pictureOf(hit, size, alt = "") {
  if (!hit.thumbnail) return "no picture";
  const picture = element("img", { src: thumbnail(hit, size), alt, loading: "lazy", decoding: "async" });
  picture.addEventListener("error", () => picture.replaceWith("no picture"));
  return picture;
}

// One result. `on` has go(hit), like(hit), unlike(hit) and open(hit); those that are null are left out.
export function card(hit, rank, on) {
  const title = titleOf(hit);
  const columns = columnsOf(hit);
  const signals = signalsOf(hit);
  const description = descriptionOf(hit);
  const go = element(
    "button",
    { type: "button", className: "go", title: on.go ? "Search from this one" : title, disabled: !on.go },
    element("span", { className: "view" }, pictureOf(hit, 320)),
    element(
      "span",
      { className: "about" },
      element("span", { className: "what" }, title),
      ...(description ? [element("span", { className: "words" }, description)] : []),
      element(
        "span",
        { className: "columns", title: columns.map(([name, value]) => `${name}: ${value}`).join("\n") },
        columns.map(([, value]) => value).join(" · "),
      ),
      ...(signals.length ? [gave(signals)] : []),
    ),
  );
  const parts = signals.map(([name, value]) => `, ${name} ${value}`).join("");
  go.setAttribute("aria-label", `${rank}: ${title}, score ${hit.score.toFixed(3)}${parts}. Search from this one.`);
  go.addEventListener("click", () => on.go(hit));
  const made = element("li", { className: "card" }, go);
  made.dataset.id = hit.id_text;
  made.append(element("span", { className: "score", "aria-hidden": "true" }, hit.score.toFixed(3)));
  const tools = [
    ["+", "More like this", on.like, "like"],
    ["−", "Less like this", on.unlike, "unlike"],
    ["⋯", "Details", on.open, "open"],
  ];
  made.append(
    element("span", { className: "tools" }, ...tools.filter(([, , act]) => act).map(([sign, label, act, name]) => {
      const button = element("button", { type: "button", className: name, title: label }, sign);
      button.setAttribute("aria-label", `${label}: ${title}`);
      button.addEventListener("click", () => act(hit));
      return button;
    })),
  );
  if (hit.others?.length) made.append(views(hit.others, title, on));
  return made;
}

// The other photos of a group, which scored less than the one that is shown.
function views(others, title, on) {
  const buttons = others.map((each, i) => {
    const button = element("button", { type: "button", disabled: !on.go }, pictureOf(each, 160));
    const label = `Another view of ${title}, score ${each.score.toFixed(3)}`;
    button.title = label;
    button.setAttribute("aria-label", `${label}, number ${i + 2}. Search from this one.`);
    button.addEventListener("click", () => on.go(each));
    return element("li", {}, button);
  });
  const list = element("ul", { className: "views" }, ...buttons);
  list.setAttribute("aria-label", `Other views of ${title}`);
  return list;
}

export const ABOUT = {
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
