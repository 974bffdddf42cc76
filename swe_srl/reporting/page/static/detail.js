// One task: its verdicts, its teachers' steps beside the students' answers, and the students' own episodes.

const turnsBox = byId("turns");
const turnBox = byId("turn");

/** The key of a turn in the address: the track's number and the turn's, from 1; empty for the verdicts. */
const keyOf = (track, turn) => `${track + 1}.${turn + 1}`;

/** Every place that the arrow keys go through. */
function placesOf(detail) {
  return ["", ...detail.tracks.flatMap((track, t) => track.turns.map((_, n) => keyOf(t, n)))];
}

function drawTurns(detail, key, go) {
  const entry = (place, number, what, ...marks) =>
    el("li", {}, el("button", { type: "button", css: "go", "data-key": place, "aria-current": place === key ? "true" : null, on: { click: () => go(place) } }, el("span", { css: "n" }, number), el("span", { css: "what", title: what }, what), el("span", { css: "bars" }, ...marks)));
  const lists = detail.tracks.map((track, t) => [
    el("h2", {}, track.kind === "teacher" ? `Teacher: ${track.name}` : `Episode: ${track.name}`, el("small", {}, underTitle(track))),
    el("ol", {}, ...track.turns.map((turn, n) => entry(keyOf(t, n), String(n + 1), brief(turn), ...turnMarks(turn)))),
  ]);
  turnsBox.replaceChildren(el("ol", {}, entry("", "", "Issue and verdicts")), ...lists.flat());
}

function underTitle(track) {
  if (track.kind === "run") return plural(track.turns.length, "turn");
  const parts = [plural(track.turns.length, "step")];
  for (const [name, number] of Object.entries(track.statuses ?? {})) if (name !== "faithful" && number) parts.push(`${number} ${name}`);
  if (track.objection) parts.push("not learned from");
  if (track.source) parts.push(track.source);
  return parts.join(" · ");
}

/** The first words of what was done. */
function brief(turn) {
  if (!turn.action) return turn.tool || "no action";
  const given = Object.fromEntries([...turn.action.matchAll(/<parameter=(\w+)>([\s\S]*?)<\/parameter>/g)].map((match) => [match[1], match[2]]));
  const said = turn.tool === "str_replace_editor" ? `${given.command ?? ""} ${(given.path ?? "").split("/").pop()}` : (given.command ?? turn.tool);
  return said.trim().split("\n")[0] || turn.tool;
}

function turnMarks(turn) {
  const marks = (turn.answers ?? []).map((answer) => bar(answer));
  const status = turn.replay?.status;
  if (status && status !== "faithful") marks.push(el("span", { css: `mark st-${status}`, role: "img", "aria-label": status, title: status }, status === "lost" ? "✗" : "≈"));
  if (turn.problem) marks.push(el("span", { css: "mark st-lost", role: "img", "aria-label": "malformed", title: turn.problem }, "!"));
  return marks;
}

/** How nearly a run's answers match the step. */
function bar(answer) {
  const run = RUNS[answer.run];
  const height = Math.max(1, 14 * answer.mean);
  const label = `${run.label} ${fixed(answer.mean)}`;
  return svg("svg", { css: `s${run.colour}`, width: 5, height: 14, role: "img", "aria-label": label }, svg("title", {}, label), svg("rect", { css: "rail", width: 5, height: 14 }), svg("rect", { width: 5, height, y: 14 - height }));
}

function drawTurn(task, detail, key, go) {
  const places = placesOf(detail);
  const place = places.indexOf(key);
  const step = (to, label, sign) => el("button", { type: "button", css: "quiet", disabled: to === undefined, "aria-label": label, on: { click: () => go(to) } }, sign);
  const [track, turn] = key.split(".").map((part) => Number(part) - 1);
  const title = key === "" ? task.id : `${detail.tracks[track].kind === "teacher" ? "Step" : "Turn"} ${turn + 1} of ${detail.tracks[track].turns.length}`;
  const head = el("div", { css: "head" }, el("h2", {}, title), key === "" ? el("small", {}, task.project) : el("small", {}, task.id), el("span", { css: "step" }, step(places[place - 1], "Previous turn", "←"), step(places[place + 1], "Next turn", "→")));
  const body = key === "" ? overview(task, detail) : detail.tracks[track].kind === "teacher" ? teacherStep(detail.tracks[track], turn) : episodeTurn(detail.tracks[track], turn);
  turnBox.replaceChildren(head, ...body);
  byId("turn-pane").scrollTop = 0;
}

/** The issue, and what became of it in each run. */
function overview(task, detail) {
  const cards = [];
  if (detail.statement) cards.push(el("section", { css: "card" }, el("h3", {}, "Issue"), pre(detail.statement, "the issue")));
  detail.outcomes.forEach((attempts, number) => {
    attempts.forEach((outcome, attempt) => {
      const run = RUNS[number];
      cards.push(verdictCard(outcome, run, attempts.length > 1 ? `${run.label}, attempt ${attempt + 1}` : run.label));
    });
  });
  for (const track of detail.tracks.filter((item) => item.kind === "teacher" && item.statuses)) cards.push(replayCard(track));
  return cards.length ? cards : [el("p", { css: "empty" }, "No verdict on this task: its turns are in the list.")];
}

function verdictCard({ status, verdict, prediction, patch, log }, run, label) {
  const facts = [];
  if (verdict) {
    facts.push(["tests to mend", `${verdict.num_fail_to_pass_passed} of ${verdict.num_fail_to_pass} pass`], ["tests to keep", `${verdict.num_pass_to_pass_passed} of ${verdict.num_pass_to_pass} pass`]);
    facts.push(["witnesses", verdict.num_witnesses === 2 ? "the log and the runner's own record" : "the log"]);
    if (verdict.note) facts.push(["note", verdict.note]);
    for (const finding of verdict.findings) facts.push(["finding", finding]);
  }
  if (prediction) {
    facts.push(["episode", `${plural(prediction.num_turns, "turn")}, ${prediction.num_malformed} malformed, ended by ${words(prediction.exit_status || "?")}, ${plural(Math.round(prediction.duration_s), "second")}`]);
    facts.push(["tokens", `${prediction.usage.prompt_tokens.toLocaleString("en")} read, ${prediction.usage.completion_tokens.toLocaleString("en")} written${prediction.usage.cost_usd ? `, $${prediction.usage.cost_usd.toFixed(4)}` : ""}`]);
    if (prediction.infra_failure) facts.push(["apparatus", prediction.infra_failure]);
  }
  const failed = verdict?.tests_failed ?? [];
  return el(
    "section",
    { css: "card", "aria-label": `${label}: ${words(status)}` },
    el("header", {}, el("h3", {}, el("span", { css: `key s${run.colour}`, "aria-hidden": "true" }), label), el("span", { css: `chip st-${status}` }, `${MARKS[status]} ${words(status)}`)),
    el("dl", { css: "facts" }, ...facts.flatMap(([term, text]) => [el("dt", {}, term), el("dd", {}, text)])),
    failed.length ? [el("h4", {}, plural(failed.length, "failing test")), failingTests(failed)] : null,
    patch ? [el("h4", {}, "Patch"), pre(patch, "the patch", patchLines(patch.trimEnd()))] : null,
    log ? [el("h4", {}, "End of the test log"), pre(log, "the test log")] : null,
  );
}

function failingTests(failed) {
  const list = el("ul", { css: "tests" }, ...failed.slice(0, 12).map((name) => el("li", {}, name)));
  if (failed.length <= 12) return list;
  const button = el("button", { type: "button", css: "unfold quiet", on: { click: () => { list.append(...failed.slice(12).map((name) => el("li", {}, name))); button.remove(); } } }, `Show ${failed.length - 12} more`);
  return el("div", {}, list, button);
}

function replayCard(track) {
  const facts = [["steps", Object.entries(track.statuses).map(([name, number]) => `${number} ${name}`).join(", ")]];
  if (track.same_patch !== null) facts.push(["final diff", track.same_patch ? "the recorded one" : "not the recorded one"]);
  if (track.resolved !== null) facts.push(["graded", track.resolved ? "resolved" : "not resolved"]);
  if (track.objection) facts.push(["not learned from", track.objection]);
  for (const repair of track.repairs) facts.push(["repaired", repair]);
  return el("section", { css: "card" }, el("header", {}, el("h3", {}, `Replay: ${track.name}`), el("small", {}, track.trajectory)), el("dl", { css: "facts" }, ...facts.flatMap(([term, text]) => [el("dt", {}, term), el("dd", {}, text)])));
}

/** What was thought, done and seen in one turn. */
function told(turn, action) {
  const parts = [];
  if (turn.thought) parts.push(el("h4", {}, "Thought"), el("p", { css: "thought" }, turn.thought));
  if (turn.action) parts.push(el("h4", {}, "Action"), action ?? pre(turn.action, "the action"));
  if (turn.written) parts.push(el("h4", {}, `Malformed: ${turn.problem}`), pre(turn.written, "what was written"));
  if (turn.output !== undefined) {
    const exit = turn.timed_out ? "timed out" : turn.exit === null || turn.exit === undefined ? "no exit code" : `exit ${turn.exit}`;
    parts.push(el("h4", {}, `The box's output · ${exit}`), turn.output.trim() ? pre(turn.output, "the output") : el("p", { css: "thought" }, "(nothing)"));
  }
  if (turn.recorded !== undefined) parts.push(el("h4", {}, "What the teacher saw"), pre(turn.recorded, "what the teacher saw"));
  return parts;
}

function episodeTurn(track, number) {
  const run = RUNS[track.run];
  return [el("section", { css: "card" }, el("header", {}, el("h3", {}, el("span", { css: `key s${run.colour}`, "aria-hidden": "true" }), run.label)), ...told(track.turns[number]))];
}
