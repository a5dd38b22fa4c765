// From the query on screen to JSON.

import { thumbnailData } from "./api.js";

export const PAGE = 24;
const VIEWS = 5; // photos shown of each group
const USUAL = { keep: 0.5, strength: 2, diversity: 0 };

// A served model and the collection that is searched, if any; knows what the model's composers take.
export class Target {
  constructor(model, collection) {
    this.model = model;
    this.collection = collection;
  }

  get searchable() {
    return Boolean(this.collection && !this.collection.problem);
  }

  takes(composer) {
    const name = composer || this.model?.default_composer;
    return this.model?.composers.find((each) => each.name === name)?.takes;
  }

  // A picture or a text alone needs no composer, unless one is chosen.
  refuses(field, composer) {
    if (!composer && (field === "image" || field === "text")) return false;
    return this.takes(composer)?.[field] === "refused";
  }

  // Nothing reads what should not be there; a search compares its results with it, whatever the composer reads.
  ignoresUnwanted(composer) {
    return !this.searchable && this.refuses("negative_text", composer);
  }

  readsMask(composer) {
    return ["required", "optional"].includes(this.takes(composer)?.mask);
  }

  masking() {
    return this.model?.composers.find((each) => this.readsMask(each.name))?.name;
  }

  has(option, composer) {
    return Boolean(this.takes(composer)?.options.includes(option));
  }

  // `refer(picture, byId)` returns what stands for a picture in the query; null if nothing is asked for.
  async queryOf(asked, refer = reference) {
    const { composer } = asked;
    const query = {};
    if (asked.picture && !this.refuses("image", composer)) {
      const byId = !asked.box && this.collection?.references;
      const pictures = [];
      for (const each of [asked.picture, ...asked.others]) pictures.push(await refer(each, byId));
      query.image = pictures.length > 1 ? pictures : pictures[0];
      if (asked.box) query.mask = { box: asked.box };
    }
    if (asked.text.trim() && !this.refuses("text", composer)) query.text = asked.text.trim();
    if (textsOf(asked.negative) && !this.ignoresUnwanted(composer)) query.negative_text = textsOf(asked.negative);
    if (this.searchable && textsOf(asked.must)) query.must_text = textsOf(asked.must);
    if (!Object.keys(query).length) return null;
    if (asked.language.trim() && !this.refuses("language", composer)) query.language = asked.language.trim();
    if (composer) query.composer = composer;
    if (asked.keep !== USUAL.keep && this.has("keep", composer)) query.options = { keep: asked.keep };
    return query;
  }

  async bodyOf(asked, refer = reference) {
    const body = { collection: this.collection.name, limit: PAGE };
    const query = await this.queryOf(asked, refer);
    if (query) body.query = query;
    for (const side of ["like", "unlike"]) {
      const pictures = [];
      for (const each of asked[side]) pictures.push(await refer(each, true));
      if (pictures.length) body[side] = pictures;
    }
    if (asked.filter.trim()) body.filter = asked.filter.trim();
    if (asked.groupBy.trim()) Object.assign(body, { group_by: asked.groupBy.trim(), group_size: VIEWS });
    if (asked.hybrid) body.hybrid = true;
    if (asked.textWeight !== null && this.collection.texts) body.text_weight = asked.textWeight;
    if (asked.strength !== USUAL.strength && (query?.negative_text || query?.must_text)) body.strength = asked.strength;
    if (asked.diversity !== USUAL.diversity) body.diversity = asked.diversity;
    if (asked.minScore !== "") body.min_score = Number(asked.minScore);
    return body;
  }

  // The query without what only scores results, for a composer that does not read it.
  composable(query) {
    const { must_text: _, ...rest } = query;
    if (this.refuses("negative_text", query.composer)) delete rest.negative_text;
    return rest;
  }
}

// Several texts are separated by commas; one alone is sent as it is.
function textsOf(said) {
  const texts = said.split(",").map((text) => text.trim()).filter(Boolean);
  return texts.length > 1 ? texts : texts[0];
}

async function reference(picture, byId) {
  if (picture.hit && byId) return { id: picture.hit.id_text };
  return picture.data || (await thumbnailData(picture.hit));
}
