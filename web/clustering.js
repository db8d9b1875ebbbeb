"use strict";

// Spherical k-means with merged clusters, as partzoo/discovery/cluster.py computes it for one image.

/**
 * Cluster vectors by cosine similarity into twice as many groups as requested, then merge the most similar ones.
 *
 * @param {Float64Array[]} points at least one vector; they are normalized.
 * @param {number|"auto"} k largest number of clusters, at least 1; "auto" lets the points decide.
 * @param {Object} settings the constants of that module, and random numbers: "clustering" of the program's metadata.
 * @returns {Float64Array[]} unit centres, each the nearest one of at least one point.
 */
function mergedKmeans(points, k, settings) {
  points = points.map(normalized);
  const most = k === "auto" ? settings.most : k;
  const fine = sphericalKmeans(points, most <= 1 ? most : settings.more * most, settings);
  const counts = occurrences(assigned(points, fine), fine.length);
  const least = settings.small * points.length / fine.length;
  const all = [...fine.keys()];
  const large = all.filter((group) => counts[group] >= least);
  const crumbs = all.filter((group) => counts[group] < least);
  // Merging looks at the centres alone, not at their counts, so that a small but distinct part is not merged away.
  const groups = ward(large.map((group) => fine[group]), most, k === "auto" ? settings.apart : 0)
    .map((group) => group.map((index) => large[index]));
  // Small groups join only now: as mixtures of two parts, they would have pulled those parts together in the merging.
  const nearest = assigned(crumbs.map((crumb) => fine[crumb]), large.map((group) => fine[group]));
  crumbs.forEach((crumb, index) => groups.find((group) => group.includes(large[nearest[index]])).push(crumb));
  const centres = groups.map((group) => normalized(weightedSum(group.map((each) => [counts[each], fine[each]]))));
  return used(points, centres);
}

/** Cluster unit vectors by cosine similarity; of several k-means++ starts, return the best one's centres. */
function sphericalKmeans(points, k, { draws, iterations, tolerance }) {
  const restarts = draws[0].map((_, restart) => (
    { centres: starts(points, draws.slice(0, k).map((row) => row[restart])), best: -2 }
  ));
  for (let round = 0; round < iterations; round++) {
    let rise = -Infinity; // the largest of all restarts, which end together
    for (const restart of restarts) {
      const found = averaged(points, restart.centres);
      restart.centres = found.centres;
      rise = Math.max(rise, found.similarity - restart.best);
      restart.best = Math.max(restart.best, found.similarity);
    }
    if (rise <= tolerance) break;
  }
  const last = restarts.map(({ centres }) => averaged(points, centres).similarity);
  return used(points, restarts[last.indexOf(Math.max(...last))].centres);
}

/** Draw k-means++ centres, each with probability proportional to its distance from those before. */
function starts(points, draws) {
  const last = points.length - 1;
  const chosen = [Math.min(Math.trunc(Math.fround(draws[0] * points.length)), last)];
  const distance = new Float64Array(points.length).fill(Infinity);
  for (const draw of draws.slice(1)) {
    const latest = points[chosen.at(-1)];
    points.forEach((point, i) => {
      distance[i] = Math.min(distance[i], Math.max(1 - dot(latest, point), 0));
      if (distance[i] < 1e-6) distance[i] = 0; // a duplicate of a chosen point, up to rounding
    });
    let sum = 0;
    const total = distance.map((each) => sum += each);
    const next = total.findIndex((each) => each > draw * sum);
    chosen.push(next < 0 ? last : next);
  }
  return chosen.map((index) => points[index]);
}

/** Return the normalized sum of each centre's points, or the centre itself if it has none, and the mean cosine between points and their centres. */
function averaged(points, centres) {
  const sums = centres.map((centre) => new Float64Array(centre.length));
  const counts = new Array(centres.length).fill(0);
  let similarity = 0;
  points.forEach((point) => {
    const [nearest, cosine] = mostSimilar(point, centres);
    point.forEach((value, i) => { sums[nearest][i] += value; });
    counts[nearest]++;
    similarity += cosine / points.length;
  });
  return { centres: sums.map((sum, i) => counts[i] ? normalized(sum) : centres[i]), similarity };
}

/**
 * Merge points pairwise, at each step the pair that adds least to the sum of squares within groups, until k groups are
 * left, and then for as long as a merge adds less than apart. Return the indices of each group's points.
 */
function ward(points, k, apart) {
  const groups = points.map((mean, index) => ({ members: [index], mean }));
  while (groups.length > 1) {
    let least = Infinity, first, second;
    for (let a = 0; a < groups.length; a++) {
      for (let b = a + 1; b < groups.length; b++) {
        const sizes = [groups[a].members.length, groups[b].members.length];
        const squares = groups[a].mean.reduce((sum, value, i) => sum + (value - groups[b].mean[i]) ** 2, 0);
        const cost = squares * sizes[0] * sizes[1] / (sizes[0] + sizes[1]);
        if (cost < least) [least, first, second] = [cost, a, b];
      }
    }
    if (groups.length <= k && least >= apart) break;
    const [other] = groups.splice(second, 1);
    const group = groups[first], size = group.members.length + other.members.length;
    group.mean = weightedSum([group, other].map(({ members, mean }) => [members.length / size, mean]));
    group.members.push(...other.members);
  }
  return groups.map(({ members }) => members);
}

/** Return the centres that are the most similar one of at least one point. */
function used(points, centres) {
  const counts = occurrences(assigned(points, centres), centres.length);
  return centres.filter((_, index) => counts[index]);
}

/** Give each point the number of its most similar centre, the lowest if several are equally similar. */
function assigned(points, centres) {
  return points.map((point) => mostSimilar(point, centres)[0]);
}

function mostSimilar(point, centres) {
  let nearest = 0, best = -Infinity;
  centres.forEach((centre, index) => {
    const cosine = dot(point, centre);
    if (cosine > best) [nearest, best] = [index, cosine];
  });
  return [nearest, best];
}

function occurrences(numbers, count) {
  const found = new Array(count).fill(0);
  numbers.forEach((number) => { found[number]++; });
  return found;
}

function weightedSum(pairs) {
  return pairs[0][1].map((_, i) => pairs.reduce((sum, [weight, vector]) => sum + weight * vector[i], 0));
}

function normalized(vector) {
  const length = Math.max(Math.sqrt(dot(vector, vector)), 1e-12);
  return vector.map((value) => value / length);
}

function dot(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

/**
 * Number the parts of a label map by area, largest first, ties by their first pixel.
 *
 * @param {ArrayLike<number>} labels 0 is background, 1..k are parts, in rows.
 * @param {number} k number of parts.
 * @returns {Uint8Array} the same map with the new numbers.
 */
function numberedByArea(labels, k) {
  const area = new Array(k + 1).fill(0), first = new Array(k + 1).fill(labels.length);
  for (let i = 0; i < labels.length; i++) {
    if (!area[labels[i]]++) first[labels[i]] = i;
  }
  const order = Array.from({ length: k }, (_, i) => i + 1).sort((a, b) => area[b] - area[a] || first[a] - first[b]);
  const numbers = [0];
  order.forEach((old, index) => { numbers[old] = index + 1; });
  return Uint8Array.from(labels, (label) => numbers[label]);
}
