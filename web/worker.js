"use strict";

// Find the parts of images, away from the page's own thread. ONNX Runtime Web and clustering.js precede this script.

const MOST_VALUES = 2 ** 23; // number of map values upsampled at once, so that memory does not grow with the image

let described, labelled; // the sessions of both programs
let clustering; // settings of mergedKmeans
let image; // size and descriptors of the latest image

onmessage = async ({ data }) => {
  try {
    postMessage(data.files ? await start(data) : await divided(data));
  } catch (error) {
    postMessage({ error: error?.message ?? String(error) });
  }
};

/** Start the runtime and load both programs, from their files' contents by name. */
async function start({ files, clustering: settings }) {
  clustering = settings;
  const glue = new Blob([files["runtime.mjs"]], { type: "text/javascript" });
  ort.env.wasm.numThreads = 1; // more need headers that file servers do not send
  ort.env.wasm.wasmBinary = files["runtime.wasm"];
  ort.env.wasm.wasmPaths = { mjs: URL.createObjectURL(glue) };
  described = await ort.InferenceSession.create(new Uint8Array(files["descriptors.onnx"]));
  labelled = await ort.InferenceSession.create(new Uint8Array(files["labels.onnx"]));
  return {};
}

/**
 * Divide an image, or the latest one again, into parts.
 *
 * @param {Object} asked its k, a number or "auto"; and, for a new image, its planes of red, green and blue as one
 *   Uint8Array, its width and its height.
 * @returns {Promise<Object>} labels of the pixels, in rows; the number of parts k; and the quality of the foreground.
 */
async function divided({ k, planes, width, height }) {
  if (planes) {
    const pixels = new ort.Tensor("uint8", planes, [1, 3, height, width]);
    image = { width, height, ...await described.run({ image: pixels }) };
  }
  const centres = mergedKmeansOrNone(pointsInside(image), k);
  const labels = numberedByArea(await labelsFor(centres), centres.length);
  return { labels, k: centres.length, quality: image.quality.data[0] };
}

function mergedKmeansOrNone(points, k) {
  return points.length ? mergedKmeans(points, k, clustering) : [];
}

/** Return the descriptors of the cells inside the foreground. */
function pointsInside({ inside, descriptors }) {
  const [, channels, rows, columns] = descriptors.dims, count = rows * columns;
  const cells = [...inside.data.keys()].filter((cell) => inside.data[cell]);
  return cells.map((cell) => (
    Float64Array.from({ length: channels }, (_, channel) => descriptors.data[channel * count + cell])
  ));
}

/** Label each pixel of the latest image, a few rows at a time. */
async function labelsFor(centres) {
  const { width, height } = image;
  const labels = new Int32Array(width * height);
  if (!centres.length) return labels;
  const given = Object.fromEntries(labelled.inputNames.filter((name) => name in image).map((name) => [name, image[name]]));
  given.centres = new ort.Tensor("float32", centres.flatMap((centre) => [...centre]), [centres.length, centres[0].length]);
  given.size = whole([height, width]);
  const step = Math.max(Math.floor(MOST_VALUES / (centres.length + 1) / width), 1);
  for (let first = 0; first < height; first += step) {
    const count = Math.min(step, height - first);
    const found = await labelled.run({ ...given, rows: whole(Array.from({ length: count }, (_, i) => first + i)) });
    labels.set(found.labels.data, first * width);
  }
  return labels;
}

function whole(numbers) {
  return new ort.Tensor("int64", numbers, [numbers.length]);
}
