// A filter of this service as conditions of a database's own client. Filters on screen are valid: the service took them.

const TOKEN = /"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'|(<=|>=|!=|=|<|>|[(),])|([^\s"(),=<>!]+)/g;
const NUMBER = /^-?\d+(\.\d+)?([eE][+-]?\d+)?$/;
const SIDES = { "<": "lt", "<=": "lte", ">": "gt", ">=": "gte" };
const CALLS = { "=": "equal", "!=": "not_equal", "<": "less_than", "<=": "less_or_equal", ">": "greater_than", ">=": "greater_or_equal" };

// `hits` are those on screen; `ours` is true for a collection that sync made.
// Returns {must, mustNot} for Qdrant or {must} for Weaviate, as Python; null if the filter has a part that is not translated.
export function translated(filter, kind, hits, ours) {
  if (!filter) return { must: [], mustNot: [] };
  const conditions = conditionsOf(filter);
  if (!conditions.every(({ column, values }) => /^[A-Za-z]\w*$/.test(column) && values.every(simple))) return null;
  if (kind === "qdrant") {
    const [no, yes] = [conditions.filter(({ operator }) => operator === "!="), conditions.filter(({ operator }) => operator !== "!=")];
    return { must: yes.map(inQdrant), mustNot: no.map(inQdrant) };
  }
  const made = conditions.map((each) => inWeaviate(each, hits, ours));
  return made.every(Boolean) ? { must: made } : null;
}

function conditionsOf(filter) {
  const tokens = [...filter.matchAll(TOKEN)].map(([, double, single, mark, word]) =>
    mark ? { mark } : word !== undefined ? { text: word, bare: true } : { text: (double ?? single).replace(/\\(.)/g, "$1"), bare: false },
  );
  const conditions = [];
  for (let at = 0; at < tokens.length; ) {
    const column = tokens[at].text;
    let operator = tokens[at + 1].mark;
    let values = [tokens[at + 2]];
    at += 3;
    if (operator === undefined) {
      operator = "in";
      values = [];
      while (tokens[at].mark !== ")") values.push(...(tokens[at].text === undefined ? [] : [tokens[at]])), (at += 1);
      at += 1;
    }
    conditions.push({ column, operator, values });
    at += 1; // `and`
  }
  return conditions;
}

const text = (value) => JSON.stringify(value);
const isNumber = ({ text: said, bare }) => bare && NUMBER.test(said);
const isTruth = ({ text: said, bare }) => bare && /^(true|false)$/i.test(said);
const truth = ({ text: said }) => (said.toLowerCase() === "true" ? "True" : "False");
// Whole numbers beyond 2^53, and numbers that are the same number in two spellings, are left to the service.
const simple = (value) => !isNumber(value) || (Math.abs(Number(value.text)) < 2 ** 53 && String(Number(value.text)) === value.text);

function inQdrant({ column, operator, values }) {
  const condition = (test) => `models.FieldCondition(key=${text(column)}, ${test})`;
  if (operator in SIDES) return condition(`range=models.Range(${SIDES[operator]}=${values[0].text})`);
  const tests = values.flatMap((value) => [
    condition(`match=models.MatchValue(value=${text(value.text)})`),
    ...(isTruth(value) ? [condition(`match=models.MatchValue(value=${truth(value)})`)] : []),
    ...(isNumber(value) ? [condition(`range=models.Range(gte=${value.text}, lte=${value.text})`)] : []),
  ]);
  return tests.length > 1 ? `models.Filter(should=[${tests.join(", ")}])` : tests[0];
}

// Sync's numbers are floats, and Weaviate takes no integer for them.
const numberOf = ({ text: said }, ours) => (ours && /^-?\d+$/.test(said) ? `${said}.0` : said);

// Weaviate's properties have a type, which the objects on screen show; null if they show none, or several.
function inWeaviate({ column, operator, values }, hits, ours) {
  const types = new Set(hits.flatMap((hit) => [hit.payload[column]].flat().filter((each) => each != null).map((each) => typeof each)));
  if (types.size !== 1) return null;
  const [type] = types;
  const tests = values.map((value) => {
    const said = { string: text(value.text), number: isNumber(value) && numberOf(value, ours), boolean: isTruth(value) && truth(value) }[type];
    return said && `Filter.by_property(${text(column)}).${CALLS[operator === "in" ? "=" : operator]}(${said})`;
  });
  if (!tests.every(Boolean) || (operator in SIDES && type !== "number")) return null;
  return tests.length > 1 ? `Filter.any_of([${tests.join(", ")}])` : tests[0];
}
