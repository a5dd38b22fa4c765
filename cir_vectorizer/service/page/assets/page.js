// The page: reads the query from the form, has it searched for, and shows the answer.

import { ask, thumbnail } from "./api.js";
import { codeFor, photo } from "./code.js";
import { copyButton } from "./copy.js";
import { openDetails } from "./details.js";
import { read, show, sliders } from "./form.js";
import { Pane } from "./pane.js";
import { readPicture } from "./picture.js";
import { element, titleOf } from "./results.js";
import { $, asks, EMPTY, state, target, wide } from "./state.js";
import { Steps } from "./steps.js";

const steps = new Steps($("trail"), (asked) => {
  state.asked = asked;
  shown();
  search({ remember: false });
});
const beside = $("pane").cloneNode(true);
for (const each of [beside, ...beside.querySelectorAll("[id]")]) each.removeAttribute("id");
const panes = [$("pane"), beside].map((root) => new Pane(root, actions, () => (mark(), say({ status: status() }))));
let running = null;
let searched = null; // the query that the results are of

// Searching ------------------------------------------------------------------------------------

async function search({ remember = true } = {}) {
  if (running) running.abort();
  const mine = (running = new AbortController());
  say({ busy: true, problem: "" });
  try {
    const status = target().searchable ? await find(mine.signal) : await compose(mine.signal);
    if (remember) steps.add(state.asked);
    say({ status });
  } catch (error) {
    if (error.name === "AbortError") return;
    empty();
    say({ problem: error.message });
  }
  if (running === mine) {
    running = null;
    say({ busy: false });
  }
}

async function find(signal) {
  const to = target();
  const asked = { ...state.asked };
  const composers = asked.second === "" ? [asked.composer] : [asked.composer, asked.second];
  const began = performance.now();
  const bodies = await Promise.all(composers.map((composer) => to.bodyOf({ ...asked, composer })));
  const found = await Promise.allSettled(bodies.map((body, i) => panes[i].find(to, body, signal)));
  const failed = found.map((each) => each.reason).filter(Boolean);
  const gone = failed.find((each) => each.name === "AbortError");
  if (gone || failed.length === found.length) throw gone || failed[0];
  found.forEach(({ reason }, i) => {
    if (!reason) return;
    panes[i].clear();
    panes[i].say(reason.message);
  });
  const seconds = ((performance.now() - began) / 1000).toFixed(2);
  searched = asked;
  split(composers.map((each) => each || to.model.default_composer));
  offer(Boolean(bodies[0].query), true);
  return status(`, in ${seconds} s`);
}

async function compose(signal) {
  const to = target();
  const asked = { ...state.asked };
  const query = await to.queryOf(asked);
  if (!query) throw new Error("Choose a picture or type words first.");
  const status = await panes[0].compose(to, query, signal);
  searched = asked;
  split([""]);
  offer(false, true);
  return status;
}

// Shows one list of results, or one for each of two composers.
function split(composers) {
  const two = composers.length > 1;
  $("panes").classList.toggle("two", two);
  if (two) $("panes").append(beside);
  else beside.remove();
  panes.forEach((pane, i) => {
    pane.name.textContent = composers[i] || "";
    pane.name.hidden = !two;
    pane.root.setAttribute("aria-label", two ? `Found by ${composers[i]}` : "Objects found");
  });
  mark();
}

const two = () => beside.isConnected;

// Marks the results that both lists have.
function mark() {
  panes.forEach((pane, i) => pane.mark(two() ? panes[1 - i] : null));
}

function status(took = "") {
  const [count, second] = panes.map((pane) => pane.shown.hits.length);
  if (two()) {
    const other = new Set(panes[1].shown.hits.map((hit) => hit.id_text));
    const both = panes[0].shown.hits.filter((hit) => other.has(hit.id_text)).length;
    return `${both} of the first ${Math.max(count, second)} are found by both${took}`;
  }
  const { collection } = target();
  return count ? `The nearest ${count} of ${collection.count.toLocaleString("en")}${took}` : "Nothing found.";
}

async function why() {
  const open = panes[0].why.hidden && panes[1].why.hidden;
  $("why-button").setAttribute("aria-expanded", String(open));
  const here = panes.filter((pane) => pane.root.isConnected);
  if (!open) for (const pane of here) pane.why.hidden = true;
  else {
    await Promise.all(here.filter((pane) => pane.shown.body).map((pane) => pane.explain().catch((error) => pane.say(error.message))));
  }
}

function offer(canExplain, canCopy) {
  $("why-button").hidden = !canExplain;
  $("code-button").hidden = !canCopy;
  $("code").hidden = true;
  for (const id of ["why-button", "code-button"]) $(id).setAttribute("aria-expanded", "false");
}

// Code -----------------------------------------------------------------------------------------

const KINDS = { qdrant: "Python for Qdrant", weaviate: "Python for Weaviate", curl: "curl" };

async function code() {
  const open = $("code").hidden;
  $("code-button").setAttribute("aria-expanded", String(open));
  $("code").hidden = !open;
  if (!open) return;
  const { searchable, collection } = target();
  await drawCode(!searchable ? "curl" : collection.database.startsWith("weaviate") ? "weaviate" : "qdrant");
}

async function drawCode(kind) {
  const to = target();
  const what = {
    target: to,
    hits: panes[0].shown.hits,
    model: panes[0].shown.model || to.model.full_name,
    service: new URL(".", location.origin + location.pathname).href,
    keyNeeded: state.keyNeeded,
    body: to.searchable ? await to.bodyOf(searched, photo) : null,
    query: await to.queryOf(searched, photo),
  };
  const { code: written, left } = codeFor(kind, what);
  const kinds = Object.entries(KINDS).filter(([name]) => name === "curl" || to.searchable);
  const choice = element("div", { className: "row", role: "group" }, ...kinds.map(([name, label]) => {
    const button = element("button", { type: "button", className: "small" }, label);
    button.setAttribute("aria-pressed", String(name === kind));
    button.addEventListener("click", async () => {
      await drawCode(name);
      $("code").querySelector("[aria-pressed=true]").focus();
    });
    return button;
  }));
  choice.setAttribute("aria-label", "Language");
  const shown = element("pre", { tabIndex: 0, hidden: !written }, written);
  shown.setAttribute("aria-label", KINDS[kind]);
  const without = element("p", { className: "left-out", hidden: !left.length });
  without.textContent = `The database's own client cannot do this; it is left out: ${left.join(", ")}. curl asks this service for all of it.`;
  const copy = copyButton("Copy", () => written);
  copy.hidden = !written;
  $("code").replaceChildren(choice, without, shown, copy);
}

// Drawing --------------------------------------------------------------------------------------

// What can be done with a result.
function actions(to) {
  const { references } = to.collection;
  const on = {
    like: references ? (hit) => refine("like", hit) : null,
    unlike: references ? (hit) => refine("unlike", hit) : null,
    open: (hit) => openDetails(hit, { go: references || hit.thumbnail ? goOn : null }),
  };
  return (hit) => ({ ...on, go: references || hit.thumbnail ? goOn : null });
}

function say({ status, problem, busy }) {
  if (status !== undefined) $("status").textContent = status;
  if (problem !== undefined) {
    $("problem").textContent = problem;
    $("problem").hidden = !problem;
  }
  if (busy !== undefined) {
    $("results").classList.toggle("waiting", busy);
    $("results").setAttribute("aria-busy", String(busy));
  }
}

function empty() {
  searched = null;
  for (const pane of panes) pane.clear();
  split([""]);
  offer(false, false);
  say({ status: "" });
}

// User actions ---------------------------------------------------------------------------------

// Changes the query, and searches at once if there is anything to search for.
function change(more) {
  state.asked = { ...state.asked, ...more };
  const to = target();
  if (state.asked.box && !to.readsMask(state.asked.composer)) state.asked.composer = to.masking() || "";
  shown();
  if (asks()) search();
}

const shown = () => show(change);

function pictureFrom(hit, size) {
  return { name: titleOf(hit), address: hit.thumbnail ? thumbnail(hit, size) : "page/icon.svg", hit };
}

function goOn(hit, text = "") {
  const { composer, second, filter, groupBy, keep, textWeight, diversity, language, strength, minScore } = state.asked;
  const kept = { composer, second, filter, groupBy, keep, textWeight, diversity, language, strength, minScore };
  state.asked = { ...EMPTY, ...kept, text, picture: pictureFrom(hit, 640) };
  shown();
  search();
  if (wide()) $("text").focus({ preventScroll: true });
  else $(text ? "results" : "ask").scrollIntoView({ behavior: "smooth" });
}

function refine(side, hit) {
  const { asked } = state;
  const without = (list) => list.filter((each) => each.hit?.id_text !== hit.id_text);
  const lists = { like: without(asked.like), unlike: without(asked.unlike) };
  lists[side].push(pictureFrom(hit, 160));
  if (side === "unlike" && !asked.picture && !asked.text.trim() && !lists.like.length) {
    say({ problem: "First say what you are looking for: choose a picture, type words, or press + on a result." });
    return;
  }
  change(lists);
}

let adding = false; // true if the files that are chosen next are further photos

async function take(files, { add = false } = {}) {
  if (!files.length) return;
  try {
    const pictures = await Promise.all(files.map(readPicture));
    if (add && state.asked.picture) change({ others: [...state.asked.others, ...pictures] });
    else change({ picture: pictures[0], others: pictures.slice(1), box: null });
  } catch (error) {
    say({ problem: error.message });
  }
}

function choose(add) {
  adding = add;
  $("file").click();
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  read();
  if (asks()) {
    change({});
    if (!wide()) $("results").scrollIntoView({ behavior: "smooth" });
  } else say({ problem: "Choose a picture or type words first." });
});
$("ask").addEventListener("input", (event) => {
  read();
  if (event.target === $("text-weight")) state.asked.textWeight = Number(event.target.value);
  sliders();
});
for (const id of ["keep", "composer", "second", "hybrid", "text-weight", "diversity", "strength", "min-score"]) {
  $(id).addEventListener("change", () => (read(), change({})));
}
$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("ask").requestSubmit();
  }
});
$("clear").addEventListener("click", () => {
  state.asked = { ...EMPTY };
  steps.clear();
  shown();
  welcome();
  $("text").focus();
});
$("file").addEventListener("change", () => {
  take([...$("file").files], { add: adding });
  $("file").value = "";
  adding = false;
});
$("drop").addEventListener("click", () => (adding = false));
$("another").addEventListener("click", () => choose(false));
$("add").addEventListener("click", () => choose(true));
$("remove").addEventListener("click", () => {
  change({ picture: null, others: [], box: null });
  $("file").focus();
});
$("mark").addEventListener("click", () => {
  change({ box: state.asked.box ? null : [0.25, 0.25, 0.75, 0.75] });
  if (state.asked.box) $("box").focus();
});
$("why-button").addEventListener("click", why);
$("code-button").addEventListener("click", code);
$("collection").addEventListener("change", () => {
  const { text, negative, must } = state.asked;
  state.asked = { ...EMPTY, text, negative, must };
  steps.clear();
  greet();
});
$("model").addEventListener("change", () => (composers(), change({ composer: "", second: "" })));

const isPicture = (file) => file.type.startsWith("image/");
addEventListener("paste", (event) => take([...(event.clipboardData?.files || [])].filter(isPicture).slice(0, 1)));
let depth = 0; // number of nested elements that a dragged file has entered
addEventListener("dragenter", (event) => {
  if (![...event.dataTransfer.types].includes("Files")) return;
  depth += 1;
  $("curtain").hidden = false;
});
addEventListener("dragleave", () => {
  depth = Math.max(0, depth - 1);
  $("curtain").hidden = depth === 0;
});
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  depth = 0;
  $("curtain").hidden = true;
  take([...event.dataTransfer.files]);
});
// The same object in the other list stands out while one of the two is pointed at or focused.
for (const [event, on] of [["pointerover", true], ["focusin", true], ["pointerout", false], ["focusout", false]]) {
  $("panes").addEventListener(event, ({ target: at }) => {
    const id = at.closest?.(".card")?.dataset.id;
    for (const each of $("panes").querySelectorAll(".card")) each.classList.toggle("twin", on && two() && id !== undefined && each.dataset.id === id);
  });
}

// The start ------------------------------------------------------------------------------------

function composers() {
  const { model, searchable } = target();
  const names = model.composers.map(({ name }) => name);
  const options = (first) => [element("option", { value: "" }, first), ...names.map((name) => element("option", { value: name }, name))];
  $("composer").replaceChildren(...options(`default (${model.default_composer})`));
  $("second").replaceChildren(...options("nothing"));
  $("second-field").hidden = !searchable || names.length < 2;
}

function choice(id, names) {
  $(id).replaceChildren(...names.map((name) => element("option", { value: name }, name)));
  $(`${id}-choice`).hidden = names.length < 2;
}

// Says what is missing, or shows some of the collection to start from.
function greet() {
  const { collection: here, searchable } = target();
  $("missing").hidden = searchable;
  if (!here) {
    $("missing").replaceChildren(
      element("strong", {}, "No collection is searched here yet."),
      element("span", {}, "You can still compose queries: you see what the picture became and the vector to search with. To see results, the operator starts the service with the collection that sync filled:"),
      element("code", { tabIndex: 0 }, "cir-vectorizer serve --collection qdrant://localhost:6333/shop"),
    );
  } else if (here.problem) {
    $("missing").replaceChildren(element("strong", {}, `Collection ${here.name} cannot be searched now.`), element("span", {}, here.problem));
  } else if (here.model) {
    $("model").value = here.model;
  }
  $("model-choice").hidden = searchable || state.models.length < 2;
  $("more-options").hidden = !searchable;
  $("search").textContent = searchable ? "Search" : "Compose";
  composers();
  shown();
  welcome();
}

async function welcome() {
  empty();
  say({ problem: "" });
  const to = target();
  if (!to.searchable || !to.collection.count) return;
  try {
    if (!(await panes[0].sample(to, () => !searched && !asks()))) return;
    const { count, name } = to.collection;
    say({ status: `Some of the ${count.toLocaleString("en")} objects of ${name}: choose one to start from, or a picture of your own.` });
  } catch (error) {
    say({ problem: error.message });
  }
}

try {
  const [served, searchable] = await Promise.all([ask("v1/models"), ask("v1/collections")]);
  state.models = served.data;
  state.collections = searchable.collections;
  state.keyNeeded = searchable.key_needed;
  choice("model", state.models.map((each) => each.id));
  choice("collection", state.collections.map((each) => each.name));
  greet();
} catch (error) {
  say({ problem: error.message });
}
