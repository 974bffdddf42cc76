// A teacher's step beside the students' samples: rewards in parts, and the blocks that both texts share.

function teacherStep(track, number) {
  const turn = track.turns[number];
  const action = el("div", {});
  const showAction = (comparison) => action.replaceChildren(turn.action ? pre(turn.action, "the teacher's action", comparison ? marked(comparison.b, comparison.blocks, 1) : [turn.action]) : "");
  showAction(null);
  const left = el(
    "section",
    { css: "card teacher", "aria-label": "Teacher" },
    el("header", {}, el("h3", {}, `Teacher: ${track.name}`), el("span", { css: "chips" }, ...replayChips(turn))),
    turn.unseen ? el("p", { css: "thought" }, `A step with ${turn.tool}. What the teacher did stands in the run of swe-srl replay: give it to swe-srl report too.`) : null,
    ...told(turn, action),
  );
  if (track.objection) left.append(el("h4", {}, "Not learned from"), el("p", { css: "thought" }, track.objection));
  if (!turn.answers?.length) return [left];
  const right = el("div", { "aria-label": "Students", role: "region" });
  const samples = [];
  for (const answer of turn.answers) {
    right.append(answerHead(answer));
    if (!answer.samples.length) right.append(el("p", { css: "thought" }, "This run did not keep the samples' texts."));
    answer.samples.forEach((sample, place) => {
      const card = sampleCard(sample, place, turn, RUNS[answer.run].label, () => pick(card));
      samples.push(card);
      right.append(card.node);
    });
  }
  const pick = (card) => {
    for (const other of samples) {
      other.node.classList.toggle("on", other === card);
      other.button.setAttribute("aria-pressed", String(other === card));
    }
    showAction(card.comparison);
  };
  const first = samples.find((card) => card.comparison);
  if (first) pick(first);
  return [el("div", { css: "pair" }, left, right)];
}

function replayChips(turn) {
  const chips = [];
  if (turn.replay) {
    const { status, why, output, exit_code: sameExit, tree } = turn.replay;
    chips.push(el("span", { css: `chip st-${status}` }, status));
    if (why) chips.push(el("span", { css: "chip" }, why));
    if (output < 1) chips.push(el("span", { css: "chip" }, `output ${fixed(output)} alike`));
    if (!sameExit) chips.push(el("span", { css: "chip" }, "another exit code"));
    if (tree === false) chips.push(el("span", { css: "chip" }, "another tree"));
  }
  for (const flag of turn.flags ?? []) chips.push(el("span", { css: "chip" }, words(flag)));
  return chips;
}

function answerHead(answer) {
  const run = RUNS[answer.run];
  const told = `mean ${fixed(answer.mean)} ± ${fixed(answer.std)} · ${answer.well_formed} of ${answer.num} well-formed · ${answer.same_tool} same tool · ${Math.round(answer.tokens)} tokens`;
  return el("header", { css: "run-name" }, el("h3", {}, el("span", { css: `key s${run.colour}`, "aria-hidden": "true" }), run.label), el("small", {}, told));
}

function sampleCard(sample, place, turn, label, onPick) {
  const comparison = sample.action && turn.action ? compareTexts(sample.action, turn.action) : null;
  const button = el("button", { type: "button", css: "pick", "aria-pressed": "false", "aria-label": `Sample ${place + 1} of ${label}: show what it shares with the teacher's action` }, `#${place + 1}`);
  const parts = Object.entries(sample.parts).map(([name, value]) => el("span", { css: "chip" }, `${words(name)} ${Number.isInteger(value) ? value : fixed(value, 3)}`));
  if (sample.note) parts.push(el("span", { css: "chip" }, sample.note));
  const body = [];
  if (sample.action) body.push(pre(sample.action, `sample ${place + 1}`, comparison ? marked(comparison.a, comparison.blocks, 0) : [sample.action]));
  if (sample.written) body.push(pre(sample.written, `sample ${place + 1}`));
  if (sample.action && turn.action && !comparison) body.push(el("small", {}, "Too long to mark the matching blocks here."));
  if (sample.thought) body.push(el("details", {}, el("summary", {}, el("small", {}, "Thought")), el("p", { css: "thought" }, sample.thought)));
  const node = el("section", { css: "card sample", "aria-label": `Sample ${place + 1} of ${label}`, on: { click: onPick } }, el("header", {}, button, el("span", { css: "value", title: "reward" }, fixed(sample.value, 3)), el("span", { css: "chips" }, ...parts), comparison && !("similarity" in sample.parts) ? el("small", {}, `shares ${fixed(comparison.ratio, 3)}`) : null), ...body);
  return { node, button, comparison };
}
