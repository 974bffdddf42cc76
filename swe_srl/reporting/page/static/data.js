// The page's data: a list of tasks that is read at once, and for each task a packed text that is read when it is opened.

const INDEX = JSON.parse(byId("index").textContent);
const RUNS = INDEX.runs; // [{label, colour}]
const TASKS = INDEX.tasks;
const POSITION = new Map(TASKS.map((task, position) => [task.id, position]));
const opened = new Map();

for (const task of TASKS) task.text = `${task.id}\n${task.project}\n${task.title}`.toLowerCase();

/** Everything on the task at a position of TASKS. */
async function detailOf(position) {
  if (!opened.has(position)) {
    const node = byId(`task-${position}`) ?? (await whenParsed(() => byId(`task-${position}`)));
    opened.set(position, unpack(node.textContent));
    if (opened.size > 30) opened.delete(opened.keys().next().value);
  }
  return opened.get(position);
}

/** The rest of the file may still be on its way. */
function whenParsed(find) {
  return new Promise((resolve) => {
    const look = () => resolve(find());
    if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", look, { once: true });
    else look();
  });
}

async function unpack(base64) {
  const bytes = Uint8Array.from(atob(base64.trim()), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}
