// Two texts → the blocks that the similarity reward counts: those of Python's difflib.SequenceMatcher(None, student, expert, autojunk=False).

const MAX_CELLS = 1e8; // characters times characters that are compared without keeping the reader waiting

/** Characters as Python counts them. */
const characters = (text) => Array.from(text);

/** [start in a, start in b, length] of the matching blocks, in order, neighbours joined. */
function matchingBlocks(a, b) {
  const where = new Map();
  b.forEach((character, j) => {
    const places = where.get(character);
    if (places) places.push(j);
    else where.set(character, [j]);
  });
  const before = new Int32Array(b.length + 1);
  const now = new Int32Array(b.length + 1);
  const found = [];
  const open = [[0, a.length, 0, b.length]];
  while (open.length) {
    const [aFrom, aTo, bFrom, bTo] = open.pop();
    const [i, j, size] = longest(a, where, aFrom, aTo, bFrom, bTo, before, now);
    if (!size) continue;
    found.push([i, j, size]);
    if (aFrom < i && bFrom < j) open.push([aFrom, i, bFrom, j]);
    if (i + size < aTo && j + size < bTo) open.push([i + size, aTo, j + size, bTo]);
  }
  found.sort((x, y) => x[0] - y[0]);
  const blocks = [];
  for (const [i, j, size] of found) {
    const last = blocks[blocks.length - 1];
    if (last && last[0] + last[2] === i && last[1] + last[2] === j) last[2] += size;
    else blocks.push([i, j, size]);
  }
  return blocks;
}

/** The longest common run within the two ranges; of several the first in a, then the first in b. */
function longest(a, where, aFrom, aTo, bFrom, bTo, before, now) {
  let best = [aFrom, bFrom, 0];
  let [ending, next] = [before, now]; // [j + 1]: length of the run that ends at j
  let old = [];
  for (let i = aFrom; i < aTo; i++) {
    const places = where.get(a[i]) ?? [];
    const fresh = [];
    for (const j of places) {
      if (j < bFrom) continue;
      if (j >= bTo) break;
      const size = ending[j] + 1;
      next[j + 1] = size;
      fresh.push(j);
      if (size > best[2]) best = [i - size + 1, j - size + 1, size];
    }
    for (const j of old) ending[j + 1] = 0;
    [ending, next, old] = [next, ending, fresh];
  }
  for (const j of old) ending[j + 1] = 0;
  return best;
}

/** 2M / T, and the blocks; null where the texts are too long to compare here. */
function compareTexts(student, expert) {
  const [a, b] = [characters(student), characters(expert)];
  if (a.length * b.length > MAX_CELLS) return null;
  const blocks = matchingBlocks(a, b);
  const matched = blocks.reduce((sum, block) => sum + block[2], 0);
  return { a, b, blocks, ratio: a.length + b.length ? (2 * matched) / (a.length + b.length) : 1 };
}
