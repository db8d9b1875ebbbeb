"use strict";

// Resize images exactly as Pillow 13 does with its bicubic filter: a few other pixels are enough to change clusters.

const BITS = 22; // of Pillow's weights, which are whole numbers

/** Return the size [height, width] to which an image is resized for a program, as partzoo's working_size does. */
function workingSize(size, longer, multiple) {
  const rounded = (length) => Math.max(Math.trunc(length / multiple + 0.5), 1) * multiple;
  const scale = rounded(longer) / Math.max(...size);
  return size.map((side) => Math.max(rounded(side * scale), 2 * multiple));
}

/**
 * Resize an image.
 *
 * @param {Uint8Array[]} planes the values of each colour, in rows.
 * @param {number[]} size height and width of the image.
 * @param {number[]} target height and width of the result.
 * @returns {Uint8Array} planes of the result, one after the other.
 */
function resized(planes, [height, width], [rows, columns]) {
  const isHeightFirst = height > rows && height - rows > 2 * (width - columns); // before Pillow 13, never
  const found = new Uint8Array(planes.length * rows * columns);
  planes.forEach((plane, index) => {
    const result = isHeightFirst
      ? across(down(plane, width, rows), width, columns)
      : down(across(plane, width, columns), columns, rows);
    found.set(result, index * rows * columns);
  });
  return found;
}

function across(plane, width, columns) {
  if (width === columns) return plane;
  const height = plane.length / width, found = new Uint8ClampedArray(height * columns);
  const weights = pillowWeights(width, columns);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < columns; x++) {
      const { first, values } = weights[x], start = y * width + first;
      let sum = 1 << BITS - 1;
      for (let i = 0; i < values.length; i++) sum += values[i] * plane[start + i];
      found[y * columns + x] = sum >> BITS;
    }
  }
  return found;
}

function down(plane, width, rows) {
  const height = plane.length / width;
  if (height === rows) return plane;
  const found = new Uint8ClampedArray(rows * width);
  pillowWeights(height, rows).forEach(({ first, values }, y) => {
    const sums = new Int32Array(width).fill(1 << BITS - 1);
    values.forEach((weight, i) => {
      const start = (first + i) * width;
      for (let x = 0; x < width; x++) sums[x] += weight * plane[start + x];
    });
    for (let x = 0; x < width; x++) found[y * width + x] = sums[x] >> BITS;
  });
  return found;
}

/** Return, for each pixel of a resized line, the first pixel of the line that it depends on, and their weights. */
function pillowWeights(length, target) {
  const scale = length / target, stretch = Math.max(scale, 1);
  return Array.from({ length: target }, (_, index) => {
    const centre = (index + 0.5) * scale;
    const first = Math.max(Math.trunc(centre - 2 * stretch + 0.5), 0);
    const end = Math.min(Math.trunc(centre + 2 * stretch + 0.5), length);
    const values = Array.from({ length: end - first }, (_, i) => bicubic((first + i - centre + 0.5) / stretch));
    const sum = values.reduce((a, b) => a + b, 0);
    return { first, values: Int32Array.from(values, (value) => roundedAway(value / sum * 2 ** BITS)) };
  });
}

function bicubic(x) {
  x = Math.abs(x);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? -0.5 * (((x - 5) * x + 8) * x - 4) : 0;
}

function roundedAway(x) {
  return Math.trunc(x < 0 ? x - 0.5 : x + 0.5);
}
