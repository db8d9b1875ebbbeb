"use strict";

// Write part numbers as the PNG that partzoo.Parts.save writes and Parts.load reads.

const CRC = Int32Array.from({ length: 256 }, (_, byte) => {
  for (let bit = 0; bit < 8; bit++) byte = byte & 1 ? byte >>> 1 ^ 0xedb88320 : byte >>> 1;
  return byte;
});

/**
 * Write labels as a PNG of 8 bits with a palette.
 *
 * @param {Uint8Array} labels in rows.
 * @param {number} width of the image in pixels.
 * @param {number[][]} colours red, green and blue of each label.
 * @param {Object} about what the file states under "partzoo".
 * @returns {Promise<Blob>}
 */
async function indexPng(labels, width, colours, about) {
  const height = labels.length / width;
  const rows = new Uint8Array(height * (width + 1)); // each row begins with the number of its filter, 0
  for (let y = 0; y < height; y++) rows.set(labels.subarray(y * width, (y + 1) * width), y * (width + 1) + 1);
  const deflated = new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate"));
  const header = new DataView(new ArrayBuffer(13));
  header.setUint32(0, width);
  header.setUint32(4, height);
  header.setUint16(8, 0x0803); // 8 bits, with a palette
  const palette = new Uint8Array(3 * 256); // all 256 colours: readers take fewer for fewer bits
  palette.set(colours.flat());
  return new Blob([
    Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a),
    chunk("IHDR", new Uint8Array(header.buffer)),
    chunk("PLTE", palette),
    chunk("iTXt", new TextEncoder().encode(`partzoo\0\0\0\0\0${JSON.stringify(about)}`)),
    chunk("IDAT", new Uint8Array(await new Response(deflated).arrayBuffer())),
    chunk("IEND", new Uint8Array()),
  ], { type: "image/png" });
}

function chunk(type, content) {
  const found = new Uint8Array(content.length + 12);
  const view = new DataView(found.buffer);
  view.setUint32(0, content.length);
  found.set(new TextEncoder().encode(type), 4);
  found.set(content, 8);
  let crc = -1;
  for (const byte of found.subarray(4, -4)) crc = CRC[(crc ^ byte) & 255] ^ crc >>> 8;
  view.setInt32(content.length + 8, ~crc);
  return found;
}
