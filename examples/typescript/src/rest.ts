// Composed search by REST alone: the service composes the query and searches the collection that it serves.
// node out/rest.js dress.jpg "is red"
import { readFile } from "node:fs/promises";

const service = process.env.CIR_URL ?? "http://localhost:8000";
const key = process.env.CIR_API_KEY;
const [file, text] = process.argv.slice(2);
if (file === undefined || text === undefined) throw new Error('give a picture and words: node out/rest.js dress.jpg "is red"');

interface Found {
  hits: { id: string | number; score: number }[];
  notes: string[];
}

const answer = await fetch(`${service}/v1/search`, {
  method: "POST",
  headers: { "content-type": "application/json", ...(key ? { authorization: `Bearer ${key}` } : {}) },
  body: JSON.stringify({ query: { image: (await readFile(file)).toString("base64"), text }, limit: 5 }),
});
if (!answer.ok) throw new Error(((await answer.json()) as { error: string }).error);
const found = (await answer.json()) as Found;
for (const note of found.notes) console.error(`Note: ${note}`);
for (const { id, score } of found.hits) console.log(score.toFixed(4), id);
