const SHOWN = 12; // crops of each part before "Show all"
const CROP = 96; // side of a crop in pixels
const TINT = 140, FADE = 80, DIM = 165, LINE = 190; // opacities, 0..255

const grid = document.querySelector(".grid");
const status = document.getElementById("status");
const colours = document.getElementById("colours");
const buttons = [...document.querySelectorAll(".buttons button")];
const palette = buttons.map((button) => getComputedStyle(button).getPropertyValue("--part").match(/\d+/g).map(Number));
const cards = [...grid.children].map((item, given) => {
  const numbers = (text) => (text ? text.split(" ").map(Number) : []);
  const { name, quality, shares, scores } = item.dataset;
  const image = item.querySelector("img");
  return {
    item, given, name, image, id: item.id, canvas: item.querySelector("canvas"),
    quality: quality === "" ? 1 : Number(quality), shares: numbers(shares), scores: numbers(scores),
    width: Number(image.getAttribute("width")), height: Number(image.getAttribute("height")),
  };
});
const cardOf = new Map(cards.map((card) => [card.item, card]));
const visible = new Set();
let pinned = 0, focused = 0, hovered = 0, drawn = -1;
const part = () => hovered || focused || pinned;

/** Decode the labels of a thumbnail: pairs of a label and its number of repeats, seven bits in each byte. */
function labelsOf(card) {
  const bytes = Uint8Array.from(atob(card.item.dataset.labels), (letter) => letter.charCodeAt(0));
  const labels = new Uint16Array(card.width * card.height);
  let at = 0, place = 0;
  const next = () => {
    let number = 0, shift = 0, byte;
    do {
      byte = bytes[at++];
      number |= (byte & 127) << shift;
      shift += 7;
    } while (byte > 127);
    return number;
  };
  while (at < bytes.length) {
    const label = next(), length = next();
    labels.fill(label, place, place += length);
  }
  return labels;
}

/** Colour the pixels over an image: all parts, or one of them with all else darkened. */
function layer(card, labels, chosen, tinted) {
  const { width, height } = card;
  const pixels = new ImageData(width, height);
  for (let i = 0; i < labels.length; i++) {
    const label = labels[i], right = (i + 1) % width ? labels[i + 1] : label;
    const below = i + width < labels.length ? labels[i + width] : label;
    let rgb = [0, 0, 0], alpha = 0;
    if (chosen && label !== chosen) alpha = DIM;
    else if (tinted && label) [rgb, alpha] = [palette[label - 1], TINT];
    else if (tinted) alpha = FADE;
    const edge = chosen ? [label, right, below].includes(chosen) : tinted;
    if (edge && (label !== right || label !== below)) [rgb, alpha] = [[255, 255, 255], LINE];
    pixels.data.set(rgb, 4 * i);
    pixels.data[4 * i + 3] = alpha;
  }
  return pixels;
}

function draw(card) {
  card.labels ??= labelsOf(card);
  card.canvas.width = card.width;
  card.canvas.height = card.height;
  card.canvas.getContext("2d").putImageData(layer(card, card.labels, part(), colours.checked), 0, 0);
}

/** Forget the canvas and the labels of an image that has left the window: hundreds would fill the memory. */
function release(card) {
  card.labels = undefined;
  card.canvas.width = card.canvas.height = 0;
}

const watcher = new IntersectionObserver((changes) => {
  for (const { target, isIntersecting } of changes) {
    const card = cardOf.get(target);
    visible[isIntersecting ? "add" : "delete"](card);
    (isIntersecting ? draw : release)(card);
  }
}, { rootMargin: "200px" });

/** Draw what is visible again, if another part is highlighted than before. */
function highlight() {
  if (part() === drawn) return;
  drawn = part();
  document.body.dataset.highlighted = drawn;
  for (const card of visible) draw(card);
}

function say(text) {
  status.textContent = text;
}

function pin(number) {
  pinned = number === pinned ? 0 : number;
  for (const button of buttons) button.setAttribute("aria-pressed", Number(button.dataset.part) === pinned);
  if (pinned) {
    const shares = cards.map((card) => card.shares[pinned - 1]).filter((share) => share > 0);
    const mean = shares.reduce((sum, share) => sum + share, 0) / shares.length;
    const name = buttons[pinned - 1].getAttribute("aria-label");
    say(`Highlighted: ${name}, in ${shares.length} of ${cards.length} images` +
      (shares.length ? `, ${(100 * mean).toFixed(1)}% of them on average.` : ".") + " Escape ends it.");
  } else {
    say("All parts are shown.");
  }
  sort();
  highlight();
}

/** Return the part of a card under the pointer; the thumbnail is centred in its square. */
function partAt(event, card) {
  const box = card.canvas.getBoundingClientRect();
  const scale = Math.min(box.width / card.width, box.height / card.height);
  const x = Math.floor((event.clientX - box.left - (box.width - card.width * scale) / 2) / scale);
  const y = Math.floor((event.clientY - box.top - (box.height - card.height * scale) / 2) / scale);
  return x >= 0 && y >= 0 && x < card.width && y < card.height && card.labels ? card.labels[y * card.width + x] : 0;
}

function pointed(event) {
  const marked = event.target.closest("[data-part]");
  if (marked) return Number(marked.dataset.part);
  const view = event.target.closest(".view");
  return view ? partAt(event, cardOf.get(view.closest("li"))) : 0;
}

/** The value by which a card is sorted: of the pinned part, or of all parts together. */
function sizeOf(card) {
  return pinned ? card.shares[pinned - 1] : card.shares.reduce((sum, share) => sum + share, 0);
}

function scoreOf(card) {
  const whole = sizeOf(card);
  if (!whole || !card.scores.length) return NaN;
  if (pinned) return card.scores[pinned - 1];
  return card.scores.reduce((sum, score, i) => sum + score * card.shares[i], 0) / whole;
}

const ORDERS = {
  given: (card) => card.given,
  name: null,
  largest: (card) => -sizeOf(card),
  smallest: (card) => sizeOf(card) || NaN,
  clearest: (card) => -scoreOf(card),
  vaguest: scoreOf,
  quality: (card) => card.quality,
};

/** Sort the images; those without a value, such as images without the pinned part, come last. */
function sort() {
  const value = ORDERS[document.getElementById("sort").value];
  const names = new Intl.Collator(undefined, { numeric: true });
  if (value) {
    for (const card of cards) card.value = value(card);
    cards.sort((a, b) => Number.isNaN(a.value) - Number.isNaN(b.value) || a.value - b.value || a.given - b.given);
  } else {
    cards.sort((a, b) => names.compare(a.name, b.name) || a.given - b.given);
  }
  const order = cards.map((card) => card.item);
  if (order.some((item, place) => grid.children[place] !== item)) grid.append(...order);
  for (const list of document.querySelectorAll(".crops")) if (list.dataset.filled) fill(list);
}

/** Cut one part out of a thumbnail, with everything around it darkened. */
async function crop(card, number, canvas) {
  const labels = labelsOf(card);
  let left = card.width, right = -1, top = card.height, bottom = -1;
  for (let i = 0; i < labels.length; i++) {
    if (labels[i] !== number) continue;
    const x = i % card.width, y = (i - x) / card.width;
    left = Math.min(left, x);
    right = Math.max(right, x);
    top = Math.min(top, y);
    bottom = Math.max(bottom, y);
  }
  await card.image.decode();
  if (right < 0) return; // smaller than a pixel of the thumbnail
  const side = Math.max(right - left, bottom - top) * 1.2 + 2;
  const from = [(left + right + 1 - side) / 2, (top + bottom + 1 - side) / 2, side, side, 0, 0, CROP, CROP];
  const shade = new OffscreenCanvas(card.width, card.height);
  shade.getContext("2d").putImageData(layer(card, labels, number, false), 0, 0);
  const context = canvas.getContext("2d");
  context.drawImage(card.image, ...from);
  context.drawImage(shade, ...from);
}

const cropper = new IntersectionObserver((changes) => {
  for (const { target, isIntersecting } of changes) {
    if (!isIntersecting) continue;
    cropper.unobserve(target);
    fill(target);
  }
}, { rootMargin: "200px" });

/** Show one part in the images that have it, in the order of the images. */
function fill(list) {
  const number = Number(list.dataset.of);
  const having = cards.filter((card) => card.shares[number - 1] > 0);
  const more = list.parentElement.querySelector(".more");
  more.hidden = list.dataset.filled === "all" || having.length <= SHOWN;
  list.dataset.filled ||= "some";
  list.replaceChildren(...having.slice(0, more.hidden ? undefined : SHOWN).map((card) => {
    const item = document.createElement("li"), link = document.createElement("a");
    const canvas = document.createElement("canvas");
    link.href = `#${card.id}`;
    link.setAttribute("aria-label", `${buttons[number - 1].getAttribute("aria-label")} in ${card.name}`);
    link.title = card.name;
    canvas.width = canvas.height = CROP;
    crop(card, number, canvas);
    link.append(canvas);
    item.append(link);
    return item;
  }));
}

document.addEventListener("pointermove", (event) => {
  if (event.pointerType === "touch") return;
  hovered = pointed(event);
  highlight();
});
document.addEventListener("pointerleave", () => {
  hovered = 0;
  highlight();
});
document.addEventListener("click", (event) => {
  const more = event.target.closest(".more");
  if (more) {
    const list = more.parentElement.querySelector(".crops");
    list.dataset.filled = "all";
    fill(list);
    list.querySelectorAll("a")[SHOWN].focus();
  }
  const number = pointed(event);
  if (number) pin(number);
});
for (const button of buttons) {
  button.addEventListener("focus", () => {
    focused = button.matches(":focus-visible") ? Number(button.dataset.part) : 0;
    highlight();
  });
  button.addEventListener("blur", () => {
    focused = 0;
    highlight();
  });
}
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  hovered = focused = 0;
  if (pinned) pin(pinned);
  highlight();
});
colours.addEventListener("change", () => {
  document.body.classList.toggle("tinted", colours.checked);
  for (const card of visible) draw(card);
});
document.getElementById("sort").addEventListener("change", (event) => {
  sort();
  say(`Sorted by ${event.target.selectedOptions[0].text}.`);
});

document.body.classList.toggle("tinted", colours.checked);
for (const card of cards) watcher.observe(card.item);
for (const list of document.querySelectorAll(".crops")) cropper.observe(list);
