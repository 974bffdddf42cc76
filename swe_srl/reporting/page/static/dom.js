// Small helpers. What runs, models and boxes wrote enters the page as text and never as markup.
"use strict";

const byId = (id) => document.getElementById(id);

/** An element with attributes and children; strings become text. */
function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name === "on") for (const [event, act] of Object.entries(value)) node.addEventListener(event, act);
    else node.setAttribute(name === "css" ? "class" : name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** The same for drawings. */
function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name === "css" ? "class" : name, value);
  node.append(...children);
  return node;
}

const MARKS = { resolved: "✓", unresolved: "✗", tampered: "⚠", empty_patch: "∅", patch_failed: "⊘", timed_out: "◷", infra_failure: "⚡", not_graded: "?" };

const words = (name) => name.replaceAll("_", " ");

const plural = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

const fixed = (value, digits = 2) => value.toFixed(digits).replace(/^-(0\.?0*)$/, "$1");

/** A text in a box of its own; a long one is folded. */
function pre(text, label, content = [text]) {
  const box = el("pre", {}, ...content);
  const lines = text.split("\n").length;
  if (lines <= 16 && text.length < 1600) return box;
  box.classList.add("folded");
  const button = el("button", { type: "button", css: "unfold quiet", "aria-expanded": "false", "aria-label": `Show all of ${label}` }, `Show all ${plural(lines, "line")}`);
  button.addEventListener("click", (event) => {
    event.stopPropagation();
    const folded = box.classList.toggle("folded");
    button.setAttribute("aria-expanded", String(!folded));
    button.setAttribute("aria-label", folded ? `Show all of ${label}` : `Fold ${label}`);
    button.textContent = folded ? `Show all ${plural(lines, "line")}` : "Fold";
  });
  return el("div", {}, box, button);
}

/** The characters of one side, with the blocks that match marked. */
function marked(side, blocks, at) {
  const parts = [];
  let done = 0;
  for (const block of blocks) {
    if (block[at] > done) parts.push(side.slice(done, block[at]).join(""));
    parts.push(el("mark", {}, side.slice(block[at], block[at] + block[2]).join("")));
    done = block[at] + block[2];
  }
  parts.push(side.slice(done).join(""));
  return parts;
}

/** A diff, its lines told apart by colour. */
function patchLines(text) {
  return text.split("\n").map((line) => {
    if (/^\+(?!\+\+ )/.test(line)) return el("ins", {}, line);
    if (/^-(?!-- )/.test(line)) return el("del", {}, line);
    return `${line}\n`;
  });
}
