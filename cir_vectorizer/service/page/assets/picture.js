// Prepares a file that was chosen, dropped or pasted, so that it can be sent.

import { base64Of } from "./api.js";

const MOST_PIXELS = 1024; // models see fewer
const SMALL_BYTES = 600_000;

// Returns {name, address, data}: the name and address to show, and the picture as base64.
export async function readPicture(file) {
  const blob = await shrunk(file);
  return { name: file.name || "pasted picture", address: URL.createObjectURL(blob), data: await base64Of(blob) };
}

async function shrunk(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    return file; // the service may know the format; if not, it says what is wrong
  }
  const scale = Math.min(1, MOST_PIXELS / Math.max(bitmap.width, bitmap.height));
  if (scale === 1 && file.size <= SMALL_BYTES) return file;
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.imageSmoothingQuality = "high";
  pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return new Promise((done) => canvas.toBlob((blob) => done(blob || file), "image/jpeg", 0.92));
}
