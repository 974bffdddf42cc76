// The list of tasks: filters, and as many rows as fit on the screen.

const ROW = 54; // pixels, as the style says
const FILTERS = { q: byId("q"), run: byId("f-run"), status: byId("f-status"), project: byId("f-project"), show: byId("f-show"), sort: byId("f-sort") };
const rows = byId("rows");
let shown = []; // positions of TASKS, in the order of the list
let chosen = -1; // position of the open task

const SHOW = {
  failing: (cells) => cells.some((cell) => cell.failing),
  differs: (cells) => new Set(cells.map((cell) => cell.status).filter(Boolean).map((status) => status === "resolved")).size > 1,
  malformed: (cells) => cells.some((cell) => cell.malformed),
  "well-formed": (cells) => cells.some((cell) => cell.turns || cell.steps) && cells.every((cell) => !cell.malformed),
  teacher: (_, task) => task.steps > 0,
  unfaithful: (_, task) => task.replay && task.replay !== "faithful",
};

const SORT = {
  agreement: (cells) => Math.min(...cells.map((cell) => cell.agreement ?? Infinity)),
  turns: (cells) => -Math.max(0, ...cells.map((cell) => cell.turns)),
  failing: (cells) => -Math.max(0, ...cells.map((cell) => cell.failing)),
};

function fillFilters() {
  const add = (select, pairs) => select.append(...pairs.map(([value, label]) => el("option", { value }, label)));
  add(FILTERS.run, RUNS.map((run, number) => [String(number), run.label]));
  const statuses = new Set(TASKS.flatMap((task) => task.runs.flatMap((cell) => cell?.statuses ?? [])));
  add(FILTERS.status, Object.keys(MARKS).filter((name) => statuses.has(name)).map((name) => [name, words(name)]));
  add(FILTERS.project, [...new Set(TASKS.map((task) => task.project).filter(Boolean))].sort().map((name) => [name, name]));
}

/** What a filter looks at: the cells of the chosen run, or of all. */
function cellsOf(task) {
  const run = FILTERS.run.value;
  return (run === "" ? task.runs : [task.runs[Number(run)]]).filter(Boolean);
}

function isShown(task, terms) {
  const cells = cellsOf(task);
  if (FILTERS.run.value !== "" && !cells.length) return false;
  if (FILTERS.status.value && !cells.some((cell) => cell.statuses.includes(FILTERS.status.value))) return false;
  if (FILTERS.project.value && task.project !== FILTERS.project.value) return false;
  if (FILTERS.show.value && !SHOW[FILTERS.show.value](cells, task)) return false;
  return terms.every((term) => task.text.includes(term));
}

/** Filter, order and draw. */
function refresh() {
  const terms = FILTERS.q.value.toLowerCase().split(/\s+/).filter(Boolean);
  shown = [];
  TASKS.forEach((task, position) => isShown(task, terms) && shown.push(position));
  const order = SORT[FILTERS.sort.value];
  if (order) {
    const value = new Map(shown.map((position) => [position, order(cellsOf(TASKS[position]))]));
    shown.sort((x, y) => value.get(x) - value.get(y) || x - y);
  }
  const active = Object.values(FILTERS).filter((filter) => filter.value !== "");
  for (const filter of Object.values(FILTERS)) filter.classList.toggle("on", filter.value !== "" && filter !== FILTERS.q);
  byId("f-clear").disabled = !active.length;
  byId("found").textContent = shown.length === TASKS.length ? plural(TASKS.length, "task") : `${shown.length} of ${plural(TASKS.length, "task")}`;
  rows.replaceChildren(el("div", { css: "spacer", "aria-hidden": "true" }));
  rows.firstChild.style.height = `${shown.length * ROW}px`;
  if (!shown.length) rows.append(el("p", { css: "empty" }, "No task is like this. Clear a filter or search for less."));
  drawRows();
}

/** The rows that are on the screen, and a few beyond. */
function drawRows() {
  const first = Math.max(0, Math.floor(rows.scrollTop / ROW) - 6);
  const last = Math.min(shown.length, Math.ceil((rows.scrollTop + rows.clientHeight) / ROW) + 6);
  const wanted = new Map();
  for (let place = first; place < last; place++) wanted.set(shown[place], place);
  for (const node of rows.querySelectorAll(".row")) {
    const position = Number(node.dataset.position);
    if (wanted.has(position)) wanted.delete(position);
    else node.remove();
  }
  rows.append(...[...wanted].map(([position, place]) => rowOf(position, place)));
}

function rowOf(position, place) {
  const task = TASKS[position];
  const cells = task.runs.map((cell, number) => cell && markOf(cell, number)).filter(Boolean);
  const node = el(
    "div",
    { css: "row", role: "option", id: `row-${position}`, "aria-selected": String(position === chosen), "aria-setsize": shown.length, "aria-posinset": place + 1, "data-position": position, title: task.id },
    el("b", {}, task.title || task.id),
    el("span", { css: "sub" }, el("span", { css: "name" }, task.title ? task.id : task.project), task.steps ? el("span", {}, plural(task.steps, "step")) : null, el("span", { css: "marks" }, ...cells)),
  );
  node.style.top = `${place * ROW}px`;
  return node;
}

/** ✓, ✗ … of one run, with the words for it; a bar where it only answered the teacher's steps. */
function markOf(cell, number) {
  if (!cell.attempts) return bar({ run: number, mean: cell.agreement });
  const label = RUNS[number].label;
  const agreement = cell.agreement === undefined ? "" : `, agreement ${fixed(cell.agreement)}`;
  const status = cell.attempts > 1 ? `${cell.resolved} of ${cell.attempts} attempts resolved` : words(cell.status);
  return el("span", { css: `mark st-${cell.status}`, title: `${label}: ${status}${agreement}`, role: "img", "aria-label": `${label}: ${status}${agreement}` }, MARKS[cell.status]);
}

/** Mark the open task and bring it into view. */
function markChosen(position) {
  chosen = position;
  const place = shown.indexOf(position);
  if (place >= 0) {
    const top = place * ROW;
    if (top < rows.scrollTop) rows.scrollTop = top;
    else if (top + ROW > rows.scrollTop + rows.clientHeight) rows.scrollTop = top + ROW - rows.clientHeight;
    drawRows();
  }
  for (const node of rows.querySelectorAll(".row")) node.setAttribute("aria-selected", String(Number(node.dataset.position) === position));
  if (place >= 0) rows.setAttribute("aria-activedescendant", `row-${position}`);
  else rows.removeAttribute("aria-activedescendant");
}
