// The page: `asked` holds the query, which is sent to the service, and the answer is drawn.

import { ask, thumbnail, thumbnailData } from "./api.js";
import { Mask } from "./mask.js";
import { readPicture } from "./picture.js";
import { card, element, explanation, titleOf } from "./results.js";

const PAGE = 24;
const $ = (id) => document.getElementById(id);
const FIELDS = { text: "text", negative: "negative", must: "must", filter: "filter", groupBy: "group-by", composer: "composer" };

const EMPTY = {
  picture: null, // {name, address, data} of a file, or {name, address, hit} of an object
  box: null, like: [], unlike: [],
  text: "", negative: "", must: "", filter: "", groupBy: "", composer: "", keep: 0.5, hybrid: false,
  textWeight: null, // the collection's own
  diversity: 0,
};
let asked = { ...EMPTY };
let models = [];
let collections = [];
let steps = [];
let shown = { hits: [], body: null, model: null };
let running = null;
const mask = new Mask($("frame"), $("box"), (box) => change({ box }));

const model = () => models.find((each) => each.id === $("model").value) || models[0];
const collection = () => collections.find((each) => each.name === $("collection").value);
const takes = (composer) => model()?.composers.find((each) => each.name === (composer || model().default_composer))?.takes;
const readsMask = (composer) => ["required", "optional"].includes(takes(composer)?.mask);
const wide = () => matchMedia("(min-width: 761px)").matches;
const searchable = () => Boolean(collection() && !collection().problem);
const textWeight = () => asked.textWeight ?? collection()?.text_weight ?? 0;

// From `asked` to JSON -------------------------------------------------------------------------

// True if a composer does not take a field; a picture or a text alone needs no composer, unless one is chosen.
function refuses(field, composer) {
  if (!composer && (field === "image" || field === "text")) return false;
  return takes(composer)?.[field] === "refused";
}

// True if nothing reads what should not be there; a search compares its results with it, whatever the composer reads.
const ignoresUnwanted = (composer) => !searchable() && refuses("negative_text", composer);

// Several texts are separated by commas; one alone is sent as it is.
function textsOf(said) {
  const texts = said.split(",").map((text) => text.trim()).filter(Boolean);
  return texts.length > 1 ? texts : texts[0];
}

async function queryOf({ picture, box, text, negative, must, composer, keep }) {
  const query = {};
  if (refuses("image", composer)) picture = box = null;
  if (refuses("text", composer)) text = "";
  if (ignoresUnwanted(composer)) negative = "";
  if (picture?.hit && !box && collection()?.references) query.image = { id: picture.hit.id_text };
  else if (picture) query.image = picture.data || (await thumbnailData(picture.hit));
  if (text.trim()) query.text = text.trim();
  if (textsOf(negative)) query.negative_text = textsOf(negative);
  if (searchable() && textsOf(must)) query.must_text = textsOf(must);
  if (box) query.mask = { box };
  if (!Object.keys(query).length) return null;
  if (composer) query.composer = composer;
  if (keep !== 0.5 && takes(composer)?.options.includes("keep")) query.options = { keep };
  return query;
}

const reference = (picture) => (picture.hit ? { id: picture.hit.id_text } : picture.data);

async function bodyOf(what) {
  const body = { collection: collection().name, limit: PAGE };
  const query = await queryOf(what);
  if (query) body.query = query;
  for (const side of ["like", "unlike"]) if (what[side].length) body[side] = what[side].map(reference);
  if (what.filter.trim()) body.filter = what.filter.trim();
  if (what.groupBy.trim()) body.group_by = what.groupBy.trim();
  if (what.hybrid) body.hybrid = true;
  if (what.textWeight !== null && collection().texts) body.text_weight = what.textWeight;
  if (what.diversity) body.diversity = what.diversity;
  return body;
}

// Searching ------------------------------------------------------------------------------------

async function search({ remember = true } = {}) {
  if (running) running.abort();
  const mine = (running = new AbortController());
  say({ busy: true, problem: "" });
  try {
    if (searchable()) await find(mine.signal);
    else await compose(mine.signal);
    if (remember) step();
  } catch (error) {
    if (error.name === "AbortError") return;
    shown = { hits: [], body: null, model: null };
    $("grid").replaceChildren();
    $("more").hidden = $("why-button").hidden = $("why").hidden = true;
    say({ status: "", problem: error.message });
  }
  if (running === mine) {
    running = null;
    say({ busy: false });
  }
}

async function find(signal) {
  const body = await bodyOf(asked);
  const began = performance.now();
  const content = await ask("v1/search", body, signal);
  const seconds = ((performance.now() - began) / 1000).toFixed(2);
  shown = { hits: content.hits, body, model: content.model };
  $("grid").replaceChildren(...content.hits.map(drawn));
  $("grid").classList.remove("unranked");
  $("more").hidden = content.hits.length < PAGE;
  notes(content.notes);
  offerWhy(body.query);
  const count = content.hits.length;
  say({ status: count ? `The nearest ${count} of ${collection().count.toLocaleString("en")}, in ${seconds} s` : "Nothing found." });
}

async function more() {
  const of = shown;
  $("more").disabled = true;
  try {
    const content = await ask("v1/search", { ...of.body, offset: of.hits.length });
    if (shown !== of) return; // another search was made meanwhile
    const start = shown.hits.length;
    shown.hits.push(...content.hits);
    $("grid").append(...content.hits.map((hit, i) => drawn(hit, start + i)));
    $("more").hidden = content.hits.length < PAGE;
    say({ status: `The nearest ${shown.hits.length} of ${collection().count.toLocaleString("en")}` });
    $("grid").children[start]?.querySelector("button").focus();
  } catch (error) {
    if (shown === of) say({ problem: error.message });
  } finally {
    $("more").disabled = false;
  }
}

async function compose(signal) {
  const query = await queryOf(asked);
  if (!query) throw new Error("Choose a picture or type words first.");
  const name = model().id;
  const content = await ask("v1/compose", { model: name, queries: [query] }, signal);
  notes(content.notes[0]);
  const said = await ask("v1/explain", { model: name, query, words: 12 }, signal);
  $("why").replaceChildren(...explanation(said, content.vectors[0]));
  $("why").hidden = false;
  say({ status: `Composed by ${content.model}${said.composer ? `, ${said.composer}` : ""}.` });
}

function offerWhy(query) {
  $("why").hidden = true;
  $("why-button").hidden = !query;
  $("why-button").setAttribute("aria-expanded", "false");
}

async function why() {
  const open = $("why").hidden;
  $("why-button").setAttribute("aria-expanded", String(open));
  if (!open) {
    $("why").hidden = true;
    return;
  }
  try {
    const of = shown;
    const { collection } = of.body;
    const query = { ...of.body.query };
    if (refuses("negative_text", query.composer)) delete query.negative_text; // it moves no vector
    const said = await ask("v1/explain", { model: of.model, query, collection, words: 12 });
    if (shown !== of) return;
    $("why").replaceChildren(...explanation(said));
    $("why").hidden = false;
  } catch (error) {
    say({ problem: error.message });
  }
}

// Drawing --------------------------------------------------------------------------------------

function drawn(hit, i) {
  const references = collection().references;
  const on = {
    go: (references || hit.thumbnail) && goOn,
    like: references && ((each) => refine("like", each)),
    unlike: references && ((each) => refine("unlike", each)),
  };
  return card(hit, i + 1, on);
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

function notes(sentences) {
  $("notes").replaceChildren(...sentences.map((sentence) => element("li", {}, sentence)));
  $("notes").hidden = !sentences.length;
}

// Writes the numbers of the sliders beside them.
function sliders() {
  for (const id of ["keep", "text-weight", "diversity"]) $(`${id}-value`).textContent = $(id).value;
}

// Shows `asked` in the form.
function show() {
  for (const [key, id] of Object.entries(FIELDS)) if ($(id).value !== asked[key]) $(id).value = asked[key];
  $("keep").value = asked.keep;
  $("hybrid").checked = asked.hybrid;
  $("text-weight").value = textWeight();
  $("diversity").value = asked.diversity;
  sliders();
  const { picture } = asked;
  $("drop").hidden = Boolean(picture);
  $("shown").hidden = !picture;
  if (picture && $("preview").getAttribute("src") !== picture.address) $("preview").src = picture.address;
  $("picture-name").textContent = picture ? picture.name : "";
  mask.set(picture ? asked.box : null);
  const masked = model()?.composers.some((each) => readsMask(each.name));
  $("mark").hidden = !masked || Boolean(picture?.hit && !picture.hit.thumbnail);
  $("mark").textContent = asked.box ? "Unmark" : "Mark a part";
  $("mark-hint").hidden = !asked.box;
  $("picture").hidden = refuses("image", asked.composer);
  $("text-field").hidden = refuses("text", asked.composer);
  $("negative-field").hidden = ignoresUnwanted(asked.composer);
  $("must-field").hidden = !searchable();
  $("text-weight-field").hidden = !collection()?.texts;
  $("keep-field").hidden = !picture || !takes(asked.composer)?.options.includes("keep");
  for (const side of ["like", "unlike"]) {
    $(side).replaceChildren(
      ...asked[side].map((each, i) => {
        const button = element("button", { type: "button", className: "chip", title: `Remove ${each.name}` });
        button.append(element("img", { src: each.address, alt: "" }));
        button.setAttribute("aria-label", `Remove ${each.name}`);
        button.addEventListener("click", () => change({ [side]: asked[side].filter((_, k) => k !== i) }));
        return button;
      }),
    );
  }
  $("refine").hidden = !asked.like.length && !asked.unlike.length;
}

// Steps: earlier queries, also in the browser's history ----------------------------------------

// Another picture or text makes a new step; any other change updates the current step.
function step() {
  const at = steps.findIndex((each) => each.current);
  const before = steps[at]?.asked;
  const same = before && before.picture?.address === asked.picture?.address && before.text === asked.text;
  steps = steps.slice(0, same ? at : at + 1).map((each) => ({ ...each, current: false }));
  steps.push({ asked: { ...asked }, current: true });
  history[same ? "replaceState" : "pushState"]({ step: steps.length - 1 }, "");
  trail();
}

function trail() {
  $("trail").hidden = steps.length < 2;
  $("trail").replaceChildren(
    ...steps.map(({ asked: { picture, text, like }, current }, i) => {
      const words = text.trim() || picture?.name || (like.length ? "more like these" : "search");
      const button = element("button", { type: "button", title: words }, element("span", {}, words));
      const image = picture || like[0];
      if (image) button.prepend(element("img", { src: image.address, alt: "" }));
      if (current) button.setAttribute("aria-current", "step");
      button.addEventListener("click", () => back(i));
      return element("li", {}, button);
    }),
  );
  $("trail").scrollLeft = $("trail").scrollWidth;
}

function back(i) {
  if (!steps[i]) return;
  steps = steps.map((each, k) => ({ ...each, current: k === i }));
  asked = { ...steps[i].asked };
  show();
  trail();
  search({ remember: false });
}

// User actions ---------------------------------------------------------------------------------

const asks = () => asked.picture || asked.text.trim() || asked.like.length;

// Changes the query, and searches at once if there is anything to search for.
function change(more) {
  asked = { ...asked, ...more };
  if (asked.box && !readsMask(asked.composer)) asked.composer = model().composers.find((each) => readsMask(each.name))?.name || "";
  show();
  if (asks()) search();
}

function goOn(hit) {
  const picture = { name: titleOf(hit), address: hit.thumbnail ? thumbnail(hit, 640) : "page/icon.svg", hit };
  const { composer, filter, groupBy, keep, textWeight, diversity } = asked;
  asked = { ...EMPTY, composer, filter, groupBy, keep, textWeight, diversity, picture };
  show();
  search();
  if (wide()) $("text").focus({ preventScroll: true });
  else $("ask").scrollIntoView({ behavior: "smooth" });
}

function refine(side, hit) {
  const picture = { name: titleOf(hit), address: hit.thumbnail ? thumbnail(hit, 160) : "page/icon.svg", hit };
  const without = (list) => list.filter((each) => each.hit?.id_text !== hit.id_text);
  const lists = { like: without(asked.like), unlike: without(asked.unlike) };
  lists[side].push(picture);
  if (side === "unlike" && !asked.picture && !asked.text.trim() && !lists.like.length) {
    say({ problem: "First say what you are looking for: choose a picture, type words, or press + on a result." });
    return;
  }
  change(lists);
}

async function take(file) {
  if (!file) return;
  try {
    const picture = await readPicture(file);
    change({ picture, box: null });
  } catch (error) {
    say({ problem: error.message });
  }
}

function read() {
  const said = Object.fromEntries(Object.entries(FIELDS).map(([key, id]) => [key, $(id).value]));
  const [keep, diversity] = ["keep", "diversity"].map((id) => Number($(id).value));
  asked = { ...asked, ...said, keep, diversity, hybrid: $("hybrid").checked };
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
  if (event.target === $("text-weight")) asked.textWeight = Number(event.target.value);
  sliders();
});
for (const id of ["keep", "composer", "hybrid", "text-weight", "diversity"]) $(id).addEventListener("change", () => (read(), change({})));
$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("ask").requestSubmit();
  }
});
$("clear").addEventListener("click", () => {
  asked = { ...EMPTY };
  steps = [];
  show();
  trail();
  welcome();
  $("text").focus();
});
$("file").addEventListener("change", () => {
  take($("file").files[0]);
  $("file").value = "";
});
$("another").addEventListener("click", () => $("file").click());
$("remove").addEventListener("click", () => {
  change({ picture: null, box: null });
  $("file").focus();
});
$("mark").addEventListener("click", () => {
  change({ box: asked.box ? null : [0.25, 0.25, 0.75, 0.75] });
  if (asked.box) $("box").focus();
});
$("more").addEventListener("click", more);
$("why-button").addEventListener("click", why);
$("collection").addEventListener("change", () => {
  asked = { ...EMPTY, text: asked.text, negative: asked.negative, must: asked.must };
  steps = [];
  trail();
  greet();
});
$("model").addEventListener("change", () => (composers(), change({ composer: "" })));

addEventListener("paste", (event) => take([...(event.clipboardData?.files || [])].find((file) => file.type.startsWith("image/"))));
addEventListener("popstate", (event) => event.state && back(event.state.step));
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
  take(event.dataTransfer.files[0]);
});

// The start ------------------------------------------------------------------------------------

function composers() {
  const options = model().composers.map(({ name }) => element("option", { value: name }, name));
  const usual = element("option", { value: "" }, `default (${model().default_composer})`);
  $("composer").replaceChildren(usual, ...options);
}

function choose(id, names) {
  $(id).replaceChildren(...names.map((name) => element("option", { value: name }, name)));
  $(`${id}-choice`).hidden = names.length < 2;
}

// Says what is missing, or shows some of the collection to start from.
function greet() {
  const here = collection();
  $("missing").hidden = searchable();
  if (!here) {
    $("missing").replaceChildren(
      element("strong", {}, "No collection is searched here yet."),
      element("span", {}, "You can still compose queries: you see what the picture became and the vector to search with. To see results, the operator starts the service with the collection that sync filled:"),
      element("code", {}, "cir-vectorizer serve --collection qdrant://localhost:6333/shop"),
    );
  } else if (here.problem) {
    $("missing").replaceChildren(element("strong", {}, `Collection ${here.name} cannot be searched now.`), element("span", {}, here.problem));
  } else if (here.model) {
    $("model").value = here.model;
  }
  $("model-choice").hidden = Boolean(here && !here.problem) || models.length < 2;
  $("more-options").hidden = !searchable();
  $("search").textContent = searchable() ? "Search" : "Compose";
  composers();
  show();
  welcome();
}

async function welcome() {
  shown = { hits: [], body: null, model: null };
  say({ status: "", problem: "" });
  notes([]);
  offerWhy(null);
  $("grid").replaceChildren();
  $("more").hidden = true;
  if (!searchable() || !collection().count) return;
  try {
    const content = await ask("v1/search", { collection: collection().name, query: { text: "a photo" }, limit: 12 });
    if (shown.body || asks()) return;
    $("grid").replaceChildren(...content.hits.map(drawn));
    $("grid").classList.add("unranked");
    say({ status: `Some of the ${collection().count.toLocaleString("en")} objects of ${collection().name}: choose one to start from, or a picture of your own.` });
  } catch (error) {
    say({ problem: error.message });
  }
}

try {
  [models, collections] = await Promise.all([
    ask("v1/models").then((content) => content.data),
    ask("v1/collections").then((content) => content.collections),
  ]);
  choose("model", models.map((each) => each.id));
  choose("collection", collections.map((each) => each.name));
  greet();
} catch (error) {
  say({ problem: error.message });
}
