// Composed search with Qdrant's own client; the server is configured with QDRANT__INFERENCE__ADDRESS=http://HOST:8000/qdrant.
// node out/qdrant.js shop dress.jpg "is red"
import { readFile } from "node:fs/promises";
import { QdrantClient } from "@qdrant/js-client-rest";

const [collection, file, text] = process.argv.slice(2);
if (collection === undefined || file === undefined || text === undefined)
  throw new Error('give a collection, a picture and words: node out/qdrant.js shop dress.jpg "is red"');

const client = new QdrantClient({ url: process.env.QDRANT_URL ?? "http://localhost:6333", checkCompatibility: false });
const found = await client.query(collection, {
  query: { object: { image: (await readFile(file)).toString("base64"), text }, model: process.env.CIR_MODEL ?? "lincir" },
  limit: 5,
});
for (const { id, score } of found.points) console.log(score.toFixed(4), id);
