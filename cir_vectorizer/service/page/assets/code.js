// The search on screen as code: curl asks this service; Python asks the database with its own client.

import { translated } from "./filter.js";
import { PAGE } from "./query.js";

// Stands for a picture: a file that whoever runs the code has, or an object of the collection.
class Photo {
  constructor(file, id) {
    this.file = file;
    this.id = id;
  }
}

// Returns what stands for a picture in the code.
export function photo(picture, byId) {
  if (picture.hit && byId) return new Photo(null, picture.hit.id_text);
  return new Photo(picture.hit?.name || picture.name, null);
}

// Returns the code. `what` has body (with photos) or query, target, hits, service (its address), keyNeeded and model.
export function codeFor(kind, what) {
  if (kind === "curl") return { code: curl(what), left: [] };
  const { query } = what.body;
  if (!query) return { code: "", left: ["a search without words or a picture of its own"] };
  const database = kind === "weaviate" ? WEAVIATE : QDRANT;
  const where = translated(what.body.filter, kind, what.hits, what.target.collection.made_with);
  return { code: database({ ...what, query: what.target.composable(query), where: where || [] }), left: leftOut(what, where) };
}

// Returns the names of what a database's own client cannot do; the results differ by these.
function leftOut({ body, target: { collection } }, where) {
  const { query } = body;
  const scores = body.strength !== 0 && !body.hybrid;
  const texts = body.text_weight ?? (body.hybrid || body.diversity ? 0 : collection.text_weight);
  return [
    [!where, "the filter"],
    [body.like, "more like these"],
    [body.unlike, "less like these"],
    [body.hybrid, "words in the columns"],
    [collection.texts && texts, "the score of the objects' texts"],
    [scores && query.must_text, "what every result should show"],
    [scores && query.negative_text, "the second score by what should not be there"],
    [body.min_score !== undefined, "the least score"],
    [body.diversity, "how much the results differ"],
  ].filter(([given]) => given).map(([, name]) => name);
}

// curl -----------------------------------------------------------------------------------------

function curl({ body, query, service, keyNeeded, model }) {
  const sent = body || { model, queries: [query] };
  const files = [];
  const json = JSON.stringify(sent, (_, value) => {
    if (!(value instanceof Photo)) return value;
    return value.id === null ? `\0${files.push(value.file) - 1}\0` : { id: value.id };
  }, 2);
  const lines = [
    `curl ${shell(`${service}v1/${body ? "search" : "compose"}`)} \\`,
    "  --header 'Content-Type: application/json' \\",
    ...(keyNeeded ? ['  --header "Authorization: Bearer $CIR_API_KEY" \\'] : []),
  ];
  if (!files.length) return [...lines, "  --data-binary @- <<'END'", json, "END", ""].join("\n");
  const filled = json.replace(/[\\$`]/g, "\\$&").replace(/\\\\u0000(\d+)\\\\u0000/g, (_, i) => `$(base64 < ${shell(files[i])} | tr -d '\\n')`);
  return [...lines, "  --data-binary @- <<END", filled, "END", ""].join("\n");
}

const shell = (text) => (/^[\w./:-]+$/.test(text) && !text.startsWith("-") ? text : `'${text.replaceAll("'", "'\\''")}'`);

// Python ---------------------------------------------------------------------------------------

const QDRANT = (what) => {
  const { query, body, target, where, model } = what;
  const { collection } = target;
  const inside = collection.vectorize === "server";
  const ids = photosIn(query).filter((each) => each.id !== null).map((each) => id(each.id));
  const groups = body.group_by !== undefined;
  const conditions = [
    where.must?.length && `must=[${where.must.join(", ")}]`,
    (where.mustNot?.length || ids.length) && `must_not=[${[...(where.mustNot || []), ...(ids.length ? [`models.HasIdCondition(has_id=[${ids.join(", ")}])`] : [])].join(", ")}]`,
  ].filter(Boolean);
  const named = collection.vector || "";
  const lines = [
    ...opening(what, inside, [`from qdrant_client import QdrantClient${conditions.length || inside ? ", models" : ""}`]),
    `client = QdrantClient("http://localhost:6333"${inside ? ", cloud_inference=True, timeout=30" : ""})  # your Qdrant`,
  ];
  if (ids.length) {
    lines.push(
      "", "",
      "def reference(id):",
      '    """Return a stored vector, which stands for the object\'s picture."""',
      `    (point,) = client.retrieve(${text(collection.stored_as)}, [id], with_vectors=True)`,
      `    vector = point.vector[${text(named)}] if isinstance(point.vector, dict) else point.vector`,
      '    return {"vector": vector, "norm": (point.payload.get("_cir") or {}).get("norm")}',
      "", "",
    );
  }
  lines.push(...asking(what, inside));
  const arguments_ = [
    text(collection.stored_as),
    inside ? `query=models.InferenceObject(object=query, model=${text(model)})` : "query=vector",
    ...(named ? [`using=${text(named)}`] : []),
    ...(conditions.length ? [`query_filter=models.Filter(${conditions.join(", ")})`] : []),
    ...(groups ? [`group_by=${text(body.group_by)}`, "group_size=1"] : []),
    `limit=${PAGE}`,
  ];
  lines.push(...call(`found = client.query_points${groups ? "_groups" : ""}`, arguments_));
  lines.push(groups ? "for hit in (group.hits[0] for group in found.groups):" : "for hit in found.points:");
  lines.push("    print(hit.id, round(hit.score, 3))", "");
  return lines.join("\n");
};

const WEAVIATE = (what) => {
  const { query, body, target, where } = what;
  const { collection } = target;
  const inside = collection.vectorize === "server";
  const ids = photosIn(query).filter((each) => each.id !== null).map((each) => each.id);
  const filters = [...(where.must || []), ...ids.map((each) => `Filter.by_id().not_equal(${text(each)})`)];
  const names = [body.group_by && "GroupBy", filters.length && "Filter", "MetadataQuery"].filter(Boolean);
  const found = collection.vector || "default";
  const lines = [
    ...opening(what, inside, ["import weaviate", `from weaviate.classes.query import ${names.join(", ")}`], ids.length > 0 || inside),
    "client = weaviate.connect_to_local()  # your Weaviate",
    `shop = client.collections.use(${text(collection.stored_as)})${collection.tenant ? `.with_tenant(${text(collection.tenant)})` : ""}`,
  ];
  if (ids.length) {
    lines.push(
      "", "",
      "def reference(id):",
      '    """Return a stored vector, which stands for the object\'s picture."""',
      "    stored = shop.query.fetch_object_by_id(id, include_vector=True)",
      '    record = json.loads(stored.properties.get("_cir") or "{}")',
      `    return {"vector": stored.vector[${text(found)}], "norm": record.get("norm")}`,
      "", "",
    );
  }
  lines.push(...asking(what, inside));
  const plain = !["image", "mask", "negative_text", "composer"].some((key) => key in query);
  const near = inside ? (plain ? 'query["text"]' : "json.dumps(query)") : "vector";
  const arguments_ = [
    near,
    ...(collection.vector ? [`target_vector=${text(collection.vector)}`] : []),
    ...(filters.length ? [`filters=Filter.all_of([${filters.join(", ")}])`] : []),
    ...(body.group_by
      ? [`group_by=GroupBy(prop=${text(body.group_by)}, objects_per_group=1, number_of_groups=${PAGE})`, "limit=1000"]
      : [`limit=${PAGE}`]),
    "return_metadata=MetadataQuery(distance=True)",
  ];
  lines.push(...call(`found = shop.query.near_${inside ? "text" : "vector"}`, arguments_));
  lines.push("for hit in found.objects:", "    print(hit.uuid, round(1 - hit.metadata.distance, 3))", "client.close()", "");
  return lines.join("\n");
};

// Imports that the code needs, in isort's order.
function opening({ query, keyNeeded }, inside, own, json = false) {
  const files = photosIn(query).some((each) => each.id === null);
  const standard = [
    ...(files ? ["import base64"] : []),
    ...(json && own[0].includes("weaviate") ? ["import json"] : []),
    ...(keyNeeded && !inside ? ["import os"] : []),
    ...(files ? ["from pathlib import Path"] : []),
  ];
  const others = [...(inside ? [] : ["import httpx"]), ...own];
  return [...standard, ...(standard.length ? [""] : []), ...others, ""];
}

// The query, and (unless the database asks for it) the vector that this service makes of it.
function asking({ query, service, keyNeeded, model }, inside) {
  const lines = ["query = {", ...Object.entries(query).map(([key, value]) => `    ${text(key)}: ${python(value)},`), "}"];
  if (inside) return lines;
  return [
    ...lines,
    ...call("answer = httpx.post", [
      text(`${service}v1/compose`),
      `json={"model": ${text(model)}, "queries": [query]}`,
      ...(keyNeeded ? [`headers={"authorization": f"Bearer {os.environ['CIR_API_KEY']}"}`] : []),
      "timeout=60",
    ]),
    "answer.raise_for_status()",
    'vector = answer.json()["vectors"][0]',
    "",
  ];
}

const call = (name, values) => [`${name}(`, ...values.map((value) => `    ${value},`), ")"];
const text = (value) => JSON.stringify(value); // a JSON text is a Python text
const id = (value) => (/^\d+$/.test(value) ? value : text(value));

function python(value) {
  if (value instanceof Photo) {
    return value.id === null ? `base64.b64encode(Path(${text(value.file)}).read_bytes()).decode()` : `reference(${id(value.id)})`;
  }
  if (Array.isArray(value)) return `[${value.map(python).join(", ")}]`;
  if (value !== null && typeof value === "object") {
    return `{${Object.entries(value).map(([key, each]) => `${text(key)}: ${python(each)}`).join(", ")}}`;
  }
  if (typeof value === "boolean") return value ? "True" : "False";
  return value === null ? "None" : text(value);
}

const photosIn = ({ image }) => [image].flat().filter((each) => each instanceof Photo);
