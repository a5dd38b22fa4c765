// Requests to the service; a refusal becomes an Error whose message is the service's sentence.

export async function ask(path, body, signal) {
  const options = { signal };
  if (body !== undefined) {
    Object.assign(options, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The service does not answer; try again later, or tell its operator.");
  }
  const content = await answer.text().then(parsed).catch(() => ({}));
  if (!answer.ok) throw new Error(content.error || `The service answered ${answer.status}.`);
  return content;
}

// Reads JSON; whole numbers that JavaScript would round become texts.
function parsed(text) {
  const rounded = (token) => /^-?\d+$/.test(token) && !Number.isSafeInteger(Number(token));
  return JSON.parse(text.replace(/"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*/g, (token) => (rounded(token) ? `"${token}"` : token)));
}

// The address of an object's small picture, at most `size` pixels wide and high.
export function thumbnail(hit, size) {
  const address = hit.thumbnail.replace(/^\//, "");
  return `${address}${address.includes("?") ? "&" : "?"}size=${size}`;
}

// The same picture as base64, for a query that needs its pixels, or a collection whose vectors cannot be references.
export async function thumbnailData(hit) {
  const answer = await fetch(thumbnail(hit, 1024));
  if (!answer.ok) throw new Error("This search needs the object's picture, which cannot be loaded; choose a file instead.");
  return base64Of(await answer.blob());
}

export function base64Of(blob) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => failed(new Error("The file cannot be read."));
    reader.readAsDataURL(blob);
  });
}
