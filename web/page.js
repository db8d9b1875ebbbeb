"use strict";

// The page: takes an image, has a worker find its parts, shows them and saves them.

const byId = (id) => document.getElementById(id);
const video = document.querySelector("video"), canvas = document.querySelector("canvas");
const CHOICES = Array.from({ length: ABOUT.clustering.most }, (_, i) => i + 1);

const MOST_PIXELS = 2 ** 24; // of an image as the worker gets it, which is what canvases of all browsers hold

let image; // the latest image: its name, its data as it is shown, and its pixels until the worker has them
let found; // the parts that are shown, with the name and the width of their image
let isRunning = false, isOutdated = false; // whether parts are being found, and whether something was changed meanwhile

function say(text, isProblem = false) {
  byId("status").textContent = text;
  byId("status").classList.toggle("problem", isProblem);
}

// The worker

/** Load a packed file by a script element, the only way that works for pages on disk too; return its content. */
function unpacked(name) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = `packed/${name}.js`;
    script.onerror = () => reject(new Error(`packed/${name}.js is missing`));
    script.onload = async () => {
      script.remove();
      try {
        const gzipped = await fetch(`data:application/gzip;base64,${packed[name]}`);
        delete packed[name];
        resolve(await new Response(gzipped.body.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer());
      } catch (error) {
        reject(error);
      }
    };
    document.head.append(script);
  });
}

async function startedWorker() {
  const files = {};
  for (const [index, name] of ABOUT.packed.entries()) {
    say(`Loading: file ${index + 1} of ${ABOUT.packed.length}.`);
    files[name] = await unpacked(name);
  }
  say("Starting.");
  const address = URL.createObjectURL(new Blob([files["worker.js"]], { type: "text/javascript" }));
  const worker = new Worker(address);
  await answer(worker, { files, clustering: ABOUT.clustering, sizes: ABOUT.sizes });
  say("Ready: choose an image.");
  return worker;
}

/** Send a message to the worker and return its answer; there is one message at a time. */
function answer(worker, message, transferred = []) {
  return new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => data.error === undefined ? resolve(data) : reject(new Error(data.error));
    worker.onerror = (event) => reject(new Error(event.message || "the worker ended"));
    worker.postMessage(message, transferred);
  });
}

const packed = {}; // filled by the packed files' scripts
const ready = startedWorker();
ready.catch((error) => say(`This page cannot be used: ${error.message}.`, true));

// Finding parts

/** Find the parts of the latest image, and again for as long as something is changed meanwhile. */
async function update() {
  if (!image) return;
  isOutdated = true;
  if (isRunning) return;
  isRunning = true;
  document.body.classList.add("busy");
  try {
    const worker = await ready;
    while (isOutdated) {
      isOutdated = false;
      say(`Finding the parts of ${image.name} …`);
      const begin = performance.now();
      const asked = image, { pixels } = asked;
      delete asked.pixels; // the worker keeps what it needs of them
      const message = { k: chosenK(), pixels, size: [asked.data.height, asked.data.width] };
      const parts = await answer(worker, message, pixels ? [pixels.data.buffer] : []);
      if (asked === image) show(parts, performance.now() - begin);
    }
  } catch (error) {
    image = undefined; // the worker does not have it
    say(`No parts could be found: ${error.message}.`, true);
  } finally {
    isRunning = false;
    document.body.classList.remove("busy");
  }
}

function chosenK() {
  return byId("k").value === "auto" ? "auto" : Number(byId("k").value);
}

function show(parts, milliseconds) {
  const areas = new Array(parts.k + 1).fill(0);
  parts.labels.forEach((label) => { areas[label]++; });
  const present = [...areas.keys()].slice(1).filter((part) => areas[part]);
  found = { ...parts, name: image.name, width: image.data.width };
  byId("result").hidden = false;
  drawOverlay(canvas, image.data, parts.labels, ABOUT.colours);
  const count = present.length === 1 ? "1 part" : `${present.length} parts`;
  canvas.setAttribute("aria-label", `${image.name} with ${count} in colour`);
  document.querySelector("tbody").replaceChildren(...present.map((part) => row(part, areas[part] / parts.labels.length)));
  document.querySelector("table").hidden = !present.length;
  const seconds = (milliseconds / 1000).toFixed(1);
  if (!present.length) {
    say(`No object was found in ${image.name}.`, true);
  } else if (parts.quality < ABOUT.doubtful) {
    say(`${count} in ${seconds} s. What is object and what is background is doubtful here.`, true);
  } else {
    say(`${count} in ${seconds} s.`);
  }
}

function row(part, share) {
  const swatch = document.createElement("span");
  swatch.className = "swatch";
  swatch.style.background = `rgb(${ABOUT.colours[part]})`;
  const head = document.createElement("th"), cell = document.createElement("td"), found = document.createElement("tr");
  head.scope = "row";
  head.append(swatch, `${part}`);
  cell.textContent = `${(100 * share).toFixed(1)} %`;
  found.append(head, cell);
  return found;
}

// Images

/** Take an image from a file or from the camera's picture, and find its parts. */
async function take(source, name) {
  let bitmap;
  try {
    // As Pillow does: colour profiles are ignored.
    bitmap = await createImageBitmap(source, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    say(`${name} is not an image that this browser can read.`, true);
    return;
  }
  const { data: values, width, height } = drawnOnWhite(
    bitmap, Math.sqrt(Math.min(1, MOST_PIXELS / (bitmap.width * bitmap.height))),
  );
  const data = drawnOnWhite(bitmap, Math.min(1, ABOUT.side / Math.max(bitmap.width, bitmap.height)));
  bitmap.close();
  image = { name, data, pixels: { data: values, width, height } };
  await update();
}

/** Return the pixels of an image on white, enlarged by a factor. */
function drawnOnWhite(bitmap, scale) {
  const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.round(side * scale)));
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  return context.getImageData(0, 0, width, height);
}

function takeFile(files) {
  const file = [...files ?? []].find(({ type }) => !type || type.startsWith("image/"));
  if (file) take(file, file.name || "the image");
  else say("That is not an image.", true);
}

async function openCamera() {
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    byId("camera").hidden = false;
    await video.play();
    byId("take").focus();
  } catch (error) {
    closeCamera();
    say(`The camera cannot be used: ${error.message}.`, true);
  }
}

function closeCamera() {
  video.srcObject?.getTracks().forEach((track) => track.stop());
  video.srcObject = null;
  byId("camera").hidden = true;
}

async function takePhotograph() {
  await take(video, "the photograph");
}

// Saving

function save(blob, ending) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${found.name.replace(/\.[^.]*$/, "").replace(/[^\p{L}\p{N}_-]+/gu, "-")}${ending}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

function saveOverlay() {
  canvas.toBlob((blob) => save(blob, ".png"));
}

async function saveLabels() {
  const about = { format: ABOUT.format, k: found.k };
  save(await indexPng(found.labels, found.width, ABOUT.colours.slice(0, found.k + 1), about), ".index.png");
}

// What the page consists of

byId("k").append(new Option("as many as look different", "auto"), ...CHOICES.map((k) => new Option(k, k)));
byId("version").textContent = ABOUT.version;
byId("runtime").textContent = ABOUT.runtime;
byId("models").textContent = ABOUT.models.join("; ");
byId("open-camera").hidden = !navigator.mediaDevices;

byId("k").addEventListener("change", update);
byId("file").addEventListener("change", ({ target }) => target.files.length && takeFile(target.files));
byId("open-camera").addEventListener("click", openCamera);
byId("close-camera").addEventListener("click", () => { closeCamera(); byId("open-camera").focus(); });
byId("take").addEventListener("click", takePhotograph);
byId("save-overlay").addEventListener("click", saveOverlay);
byId("save-labels").addEventListener("click", saveLabels);
addEventListener("paste", ({ clipboardData }) => clipboardData?.files.length && takeFile(clipboardData.files));
addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
addEventListener("dragleave", () => document.body.classList.remove("dropping"));
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  takeFile(event.dataTransfer.files);
});

if (location.protocol !== "file:" && navigator.serviceWorker) {
  navigator.serviceWorker.register("offline.js", { updateViaCache: "none" });
  navigator.serviceWorker.ready.then(() => { byId("offline").hidden = false; });
}
