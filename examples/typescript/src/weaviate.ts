// Composed search with Weaviate's own client; the server is configured with CLIP_INFERENCE_API=http://HOST:8000/m/my-model.
// node out/weaviate.js Shop dress.jpg "is red"
import { readFile } from "node:fs/promises";
import weaviate from "weaviate-client";

const [name, file, text] = process.argv.slice(2);
if (name === undefined || file === undefined || text === undefined)
  throw new Error('give a collection, a picture and words: node out/weaviate.js Shop dress.jpg "is red"');

const client = await weaviate.connectToLocal({
  host: process.env.WEAVIATE_HOST ?? "localhost",
  port: Number(process.env.WEAVIATE_PORT ?? 8080),
  grpcPort: Number(process.env.WEAVIATE_GRPC_PORT ?? 50051),
});
try {
  const query = JSON.stringify({ image: (await readFile(file)).toString("base64"), text });
  const found = await client.collections.use(name).query.nearText(query, { limit: 5, returnMetadata: ["distance"] });
  for (const { uuid, metadata } of found.objects) console.log((1 - (metadata?.distance ?? 0)).toFixed(4), uuid);
} finally {
  await client.close();
}
