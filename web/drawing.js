"use strict";

// Draw parts over an image, as partzoo/parts/drawing.py does.

const ALPHA = 0.55; // opacity of the parts' colours
const SEEN_SIDE = 800; // longer side in pixels that makes an overlay large enough to view
const NUMBER_GRID = 160; // longest side of the subsampled labels in which positions for numbers are searched
const SMALLEST_NUMBERED = 48; // shortest side for numbers; in smaller images, digits would hide the parts

/**
 * Draw parts in colour over an image, with outlines and numbers.
 *
 * @param {HTMLCanvasElement} canvas gets the drawing, enlarged to about 800 pixels if the image is smaller.
 * @param {ImageData} image the image.
 * @param {Uint8Array} labels of its pixels, in rows; 0 is background.
 * @param {number[][]} colours red, green and blue of each label.
 */
function drawOverlay(canvas, image, labels, colours) {
  const scale = Math.max(1, Math.round(SEEN_SIDE / Math.max(image.width, image.height)));
  const width = canvas.width = image.width * scale, height = canvas.height = image.height * scale;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const large = scale > 1 ? enlarged(labels, image.width, scale) : labels;
  drawScaled(context, image);
  const drawn = context.getImageData(0, 0, width, height);
  tint(drawn.data, large, colours);
  for (const i of outline(large, width, Math.max(1, Math.round(Math.max(width, height) / 400)))) {
    for (let c = 4 * i; c < 4 * i + 3; c++) drawn.data[c] = Math.floor(drawn.data[c] / 4) + 191;
  }
  context.putImageData(drawn, 0, 0);
  if (Math.min(width, height) >= SMALLEST_NUMBERED) writeNumbers(context, large);
}

/** Blend the parts' colours with the image in grey, because its hues would alter them; fade the background. */
function tint(data, labels, colours) {
  labels.forEach((label, i) => {
    const at = 4 * i;
    const grey = 0.299 * data[at] + 0.587 * data[at + 1] + 0.114 * data[at + 2];
    for (let c = 0; c < 3; c++) {
      data[at + c] = label ? grey * (1 - ALPHA) + colours[label][c] * ALPHA : (data[at + c] + grey) * 0.35;
    }
  });
}

/** Return the indices of the pixels on the lines, about `thick` pixels wide, along which labels change. */
function outline(labels, width, thick) {
  const found = new Set(), height = labels.length / width;
  const before = thick - 1 >> 1, after = thick >> 1;
  for (let i = 0; i < labels.length; i++) {
    const x = i % width, y = (i - x) / width;
    if (!(x && labels[i] !== labels[i - 1]) && !(y && labels[i] !== labels[i - width])) continue;
    for (let row = Math.max(y - before, 0); row <= Math.min(y + after, height - 1); row++) {
      for (let column = Math.max(x - before, 0); column <= Math.min(x + after, width - 1); column++) {
        found.add(row * width + column);
      }
    }
  }
  return found;
}

/** Enlarge labels with smooth outlines: each pixel gets the label whose smoothly enlarged mask is highest there. */
function enlarged(labels, width, scale) {
  const height = labels.length / width;
  const context = new OffscreenCanvas(width * scale, height * scale).getContext("2d", { willReadFrequently: true });
  const best = new Uint8Array(labels.length * scale * scale), winner = new Uint8Array(best.length);
  for (const label of [...new Set(labels)].sort((a, b) => a - b)) {
    const mask = new ImageData(width, height);
    labels.forEach((each, i) => { mask.data[4 * i + 3] = each === label ? 255 : 0; });
    context.clearRect(0, 0, width * scale, height * scale);
    drawScaled(context, mask);
    const { data } = context.getImageData(0, 0, width * scale, height * scale);
    for (let i = 0; i < best.length; i++) {
      if (data[4 * i + 3] > best[i]) [best[i], winner[i]] = [data[4 * i + 3], label];
    }
  }
  return winner;
}

/** Draw an image over a whole canvas. */
function drawScaled(context, image) {
  const source = new OffscreenCanvas(image.width, image.height);
  source.getContext("2d").putImageData(image, 0, 0);
  context.imageSmoothingQuality = "high";
  context.drawImage(source, 0, 0, context.canvas.width, context.canvas.height);
}

function writeNumbers(context, labels) {
  const { width, height } = context.canvas;
  const least = Math.max(Math.round(Math.min(width, height) / 4), 11);
  const size = Math.min(Math.max(Math.round(Math.max(width, height) / 26), 11), least);
  Object.assign(context, {
    font: `${size}px sans-serif`, textAlign: "center", textBaseline: "middle", fillStyle: "white",
    strokeStyle: "black", lineWidth: 2 * Math.max(1, Math.floor(size / 8)), lineJoin: "round",
  });
  numberPoints(labels, width).forEach(([x, y], part) => {
    context.strokeText(part, x, y);
    context.fillText(part, x, y);
  });
}

/** Choose a pixel [x, y] for each part's number: well inside the part, and near its centroid. */
function numberPoints(labels, width) {
  const height = labels.length / width, step = Math.ceil(Math.max(width, height) / NUMBER_GRID);
  const start = Math.min(step >> 1, Math.min(width, height) - 1 >> 1);
  const columns = Math.ceil((width - start) / step), rows = Math.ceil((height - start) / step);
  const pixel = (i) => [i % columns * step + start, Math.floor(i / columns) * step + start];
  const small = Uint8Array.from({ length: rows * columns }, (_, i) => {
    const [x, y] = pixel(i);
    return labels[y * width + x];
  });
  const depth = depths(small, columns), points = new Map();
  for (const part of new Set(labels)) {
    if (!part) continue;
    const cells = [...small.keys()].filter((i) => small[i] === part);
    if (!cells.length) { // the part is so thin that it falls between the grid's points
      const first = labels.indexOf(part);
      points.set(part, [first % width, Math.floor(first / width)]);
      continue;
    }
    const middle = [0, 1].map((axis) => cells.reduce((sum, i) => sum + pixel(i)[axis], 0) / cells.length);
    const deepest = cells.reduce((most, i) => Math.max(most, depth[i]), 0);
    const distance = (i) => pixel(i).reduce((sum, value, axis) => sum + (value - middle[axis]) ** 2, 0);
    const inside = cells.filter((i) => depth[i] >= 0.7 * deepest);
    points.set(part, pixel(inside.reduce((best, i) => distance(i) < distance(best) ? i : best)));
  }
  return points;
}

/** Return the distance in steps of each cell to the nearest one with a different label or outside the image. */
function depths(labels, width) {
  const found = new Int32Array(labels.length);
  const relax = (i, neighbours) => {
    const x = i % width;
    return Math.min(...neighbours.map((offset) => {
      const other = i + offset, isOutside = other < 0 || other >= labels.length || Math.abs(other % width - x) > 1;
      return isOutside || labels[other] !== labels[i] ? 0 : found[other];
    })) + 1;
  };
  for (let i = 0; i < labels.length; i++) found[i] = relax(i, [-1, -width]);
  for (let i = labels.length - 1; i >= 0; i--) found[i] = Math.min(found[i], relax(i, [1, width]));
  return found;
}
