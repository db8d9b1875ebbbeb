"use strict";

// Find the parts of images, away from the page's own thread. ONNX Runtime Web, clustering.js and resizing.js precede it.

const MOST_VALUES = 2 ** 23; // number of map values upsampled at once, so that memory does not grow with the image

let described, labelled; // the sessions of both programs
let settings; // "clustering" and "sizes" of the program's metadata
let size, image; // height and width of the labels, and the descriptors of the latest image

onmessage = async ({ data }) => {
  try {
    postMessage(data.files ? await start(data) : await divided(data));
  } catch (error) {
    postMessage({ error: error?.message ?? String(error) });
  }
};

/** Start the runtime and load both programs, from their files' contents by name. */
async function start({ files, ...known }) {
  settings = known;
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
 * @param {Object} asked its k, a number or "auto"; and, for a new image, its pixels like ImageData and the size of its labels.
 * @returns {Promise<Object>} labels of the pixels, in rows; the number of parts k; and the quality of the foreground.
 */
async function divided({ k, pixels, ...asked }) {
  if (pixels) {
    size = asked.size;
    image = await described.run(inputsOf(pixels));
  }
  const points = pointsInside(image);
  const centres = points.length ? mergedKmeans(points, k, settings.clustering) : [];
  const labels = numberedByArea(await labelsFor(centres), centres.length);
  return { labels, k: centres.length, quality: image.quality.data[0] };
}

/** Return the inputs of the first program: the image at several sizes. */
function inputsOf({ data, width, height }) {
  const planes = [0, 1, 2].map((channel) => {
    const plane = new Uint8Array(width * height);
    for (let i = 0; i < plane.length; i++) plane[i] = data[4 * i + channel];
    return plane;
  });
  return Object.fromEntries(Object.entries(settings.sizes).map(([name, { longer, multiple }]) => {
    const target = workingSize([height, width], longer, multiple);
    return [name, new ort.Tensor("uint8", resized(planes, [height, width], target), [1, 3, ...target])];
  }));
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
  const [height, width] = size;
  const labels = new Int32Array(width * height);
  if (!centres.length) return labels;
  const given = Object.fromEntries(labelled.inputNames.filter((name) => name in image).map((name) => [name, image[name]]));
  given.centres = new ort.Tensor("float32", centres.flatMap((centre) => [...centre]), [centres.length, centres[0].length]);
  given.size = whole(size);
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
