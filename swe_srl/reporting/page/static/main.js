// What the address says is what is shown: #numbers, #tasks, #task=ID&turn=2.5&run=…&status=…&project=…&q=…

const TITLE = document.title;
const viewer = byId("viewer");
let state = { task: "", turn: "", view: "numbers" };

function stateOf(hash) {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const read = (name) => given.get(name) ?? "";
  const filters = Object.fromEntries(Object.keys(FILTERS).map((name) => [name, read(name)]));
  const isTasks = given.has("tasks") || given.has("task") || Object.values(filters).some(Boolean);
  return { view: isTasks ? "tasks" : "numbers", task: read("task"), turn: read("turn"), filters };
}

function hashOf({ task, turn }) {
  const parts = [];
  const add = (name, value) => value && parts.push(`${name}=${encodeURIComponent(value)}`);
  add("task", task);
  add("turn", turn);
  for (const [name, filter] of Object.entries(FILTERS)) add(name, filter.value);
  return `#${parts.join("&") || "tasks"}`;
}

/** Change the address without a new entry for every key that is typed. */
function write(change, { replace = false } = {}) {
  state = { ...state, view: "tasks", ...change };
  const hash = hashOf(state);
  if (hash !== location.hash) history[replace ? "replaceState" : "pushState"](null, "", hash);
}

function show(view) {
  byId("numbers").hidden = view !== "numbers";
  viewer.hidden = view !== "tasks";
  scrollable();
  for (const [id, name] of [["to-numbers", "numbers"], ["to-tasks", "tasks"]]) {
    if (name === view) byId(id).setAttribute("aria-current", "page");
    else byId(id).removeAttribute("aria-current");
  }
}

/** Show what the address asks for. */
async function follow() {
  const wanted = stateOf(location.hash);
  state = wanted;
  show(wanted.view);
  if (wanted.view === "numbers") {
    document.title = TITLE;
    return;
  }
  for (const [name, filter] of Object.entries(FILTERS)) filter.value = wanted.filters[name];
  refresh();
  if (!wanted.task && shown.length && innerWidth > 700) write({ task: TASKS[shown[0]].id }, { replace: true });
  await open(state.task, state.turn);
}

/** Draw one task and one of its turns. */
async function open(id, turn) {
  const position = POSITION.get(id) ?? -1;
  markChosen(position);
  document.title = position < 0 ? TITLE : `${id} · ${TITLE}`;
  if (position < 0) {
    turnsBox.replaceChildren();
    turnBox.replaceChildren(el("p", { css: "empty" }, id ? `No task ${id} in this report.` : "Choose a task."));
    viewer.dataset.pane = "list";
    return;
  }
  let detail;
  try {
    detail = await detailOf(position);
  } catch (error) {
    turnBox.replaceChildren(el("p", { css: "empty" }, `This task cannot be read: ${error.message}. The file may be cut short, or the browser too old to unpack it.`));
    return;
  }
  if (state.task !== id) return; // another was asked for meanwhile
  const key = placesOf(detail).includes(turn) ? turn : "";
  const go = (place) => goTo(id, place);
  drawTurns(detail, key, go);
  drawTurn(TASKS[position], detail, key, go);
  turnsBox.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
  viewer.dataset.pane = turn || viewer.dataset.pane === "turn" ? "turn" : "turns";
}

async function goTo(id, turn = "", pane = "turn") {
  write({ task: id, turn });
  viewer.dataset.pane = pane;
  await open(id, turn);
}

/** The task `by` rows further down in the list. */
function moveTask(by) {
  if (!shown.length) return;
  const place = shown.indexOf(chosen);
  const next = place < 0 ? (by > 0 ? 0 : shown.length - 1) : Math.min(shown.length - 1, Math.max(0, place + by));
  goTo(TASKS[shown[next]].id, "", "turns");
}

async function moveTurn(by) {
  if (chosen < 0) return;
  const places = placesOf(await detailOf(chosen));
  const next = places[Math.max(0, places.indexOf(state.turn)) + by];
  if (next !== undefined) goTo(state.task, next);
}

const KEYS = { j: () => moveTask(1), ArrowDown: () => moveTask(1), k: () => moveTask(-1), ArrowUp: () => moveTask(-1), n: () => moveTurn(1), ArrowRight: () => moveTurn(1), p: () => moveTurn(-1), ArrowLeft: () => moveTurn(-1) };

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
  const typing = event.target.matches("input, select, textarea");
  if (event.key === "Escape") return escape(typing);
  if (typing) return undefined;
  if (event.key === "?") return byId("help").showModal();
  if (event.key === "/") {
    event.preventDefault();
    if (state.view !== "tasks") location.hash = "#tasks";
    show("tasks");
    viewer.dataset.pane = "list";
    return FILTERS.q.focus();
  }
  const act = state.view === "tasks" && KEYS[event.key];
  if (!act) return undefined;
  event.preventDefault();
  return act();
}

function escape(typing) {
  if (typing && FILTERS.q.value && document.activeElement === FILTERS.q) {
    FILTERS.q.value = "";
    return filtered();
  }
  if (typing) return rows.focus();
  if (state.view === "tasks" && state.turn) return goTo(state.task, "", "turns");
  if (state.view === "tasks" && state.task) return goTo("", "", "list");
  return undefined;
}

function filtered() {
  rows.scrollTop = 0;
  write({}, { replace: true });
  refresh();
  markChosen(chosen);
}

function themes() {
  const button = byId("theme");
  const order = ["auto", "light", "dark"];
  const set = (theme) => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.textContent = `Theme: ${theme}`;
  };
  let now = "auto";
  try {
    now = order.includes(localStorage.getItem("swe-srl-theme")) ? localStorage.getItem("swe-srl-theme") : "auto";
  } catch { /* a page from a file may have no storage */ }
  set(now);
  button.addEventListener("click", () => {
    now = order[(order.indexOf(now) + 1) % order.length];
    set(now);
    try {
      localStorage.setItem("swe-srl-theme", now);
    } catch { /* then the choice lasts as long as the page */ }
  });
}

/** What each run was at the update under the pointer. */
function readouts() {
  document.querySelectorAll(".chart").forEach((figure, number) => {
    const { lines, low, high } = INDEX.charts[number];
    const area = figure.querySelector(".area");
    const rule = area.querySelector(".rule");
    const readout = figure.querySelector(".readout");
    const updates = [...new Set(lines.flatMap((line) => line.points.map((point) => point[0])))].sort((x, y) => x - y);
    area.addEventListener("pointermove", (event) => {
      const box = area.getBoundingClientRect();
      const at = low + ((event.clientX - box.left) / box.width) * (high - low);
      const update = updates.reduce((best, other) => (Math.abs(other - at) < Math.abs(best - at) ? other : best));
      const values = lines.map((line) => [line.label, line.points.find((point) => point[0] === update)?.[1]]).filter(([, value]) => value !== undefined);
      readout.textContent = `update ${update}: ${values.map(([label, value]) => `${label} ${Number(value.toPrecision(4))}`).join(", ")}`;
      rule.style.left = `${(100 * (update - low)) / (high - low)}%`;
      rule.hidden = false;
    });
    area.addEventListener("pointerleave", () => {
      readout.textContent = "";
      rule.hidden = true;
    });
  });
}

/** What is wider than the screen can be scrolled by keyboard, and says what it is. */
function scrollable() {
  for (const node of document.querySelectorAll(".scroll")) {
    const isWide = node.scrollWidth > node.clientWidth;
    const set = { tabindex: "0", role: "region", "aria-label": `${node.dataset.label}, scrolls sideways` };
    for (const [name, value] of Object.entries(set)) {
      if (isWide) node.setAttribute(name, value);
      else node.removeAttribute(name);
    }
  }
}

fillFilters();
themes();
refresh();
performance.mark("first-list");
follow().then(() => performance.mark("opened"));
readouts();
addEventListener("hashchange", follow);
addEventListener("popstate", follow);
addEventListener("keydown", onKey);
addEventListener("resize", () => { drawRows(); scrollable(); });
rows.addEventListener("scroll", drawRows, { passive: true });
rows.addEventListener("click", (event) => {
  const row = event.target.closest(".row");
  if (row) goTo(TASKS[Number(row.dataset.position)].id, "", "turns");
});
for (const filter of Object.values(FILTERS)) filter.addEventListener("input", filtered);
byId("filters").addEventListener("submit", (event) => event.preventDefault());
byId("filters").addEventListener("reset", () => setTimeout(filtered));
byId("skip").addEventListener("click", (event) => { event.preventDefault(); byId("main").focus(); });
byId("help-open").addEventListener("click", () => byId("help").showModal());
for (const button of document.querySelectorAll(".back")) {
  button.addEventListener("click", () => (button.dataset.to === "list" ? goTo("", "", "list") : goTo(state.task, "", "turns")));
}
