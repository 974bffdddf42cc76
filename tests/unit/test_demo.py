"""The demo is a list of command lines; each must be one that its verb takes."""

from pathlib import Path

import pytest

from swe_srl.cli import LazyGroup, app
from swe_srl.cli.demo import DemoConfig, stages
from swe_srl.settings import load, read_toml

OUT = Path("somewhere")
PLAN = list(stages(load(DemoConfig, "demo"), OUT))


def parse(arguments):
    import typer

    group = typer.main.get_command(app)
    assert isinstance(group, LazyGroup)
    context = group.make_context("swe-srl", list(arguments))
    command, rest = (
        group,
        [*context._protected_args, *context.args] if hasattr(context, "_protected_args") else context.args,
    )
    while hasattr(command, "resolve_command"):
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)
        if hasattr(command, "resolve_command"):
            rest = [*getattr(context, "_protected_args", []), *context.args]
    return context.params


@pytest.mark.parametrize("stage", PLAN, ids=[stage.title for stage in PLAN])
def test_each_stage_is_a_command_line_that_its_verb_takes(stage):
    assert parse(stage.arguments)


def test_what_a_stage_reads_was_made_by_one_before_it():
    made = set()
    for stage in PLAN:
        arguments = list(stage.arguments)
        out = arguments[arguments.index("--out") + 1] if "--out" in arguments else ""
        for word in arguments:
            if word.startswith(str(OUT)) and word != out:
                assert any(word == place or word.startswith(f"{place}/") for place in made), f"{stage.title}: {word}"
        made.add(out)


def test_training_and_evaluation_come_from_different_projects_and_all_three_models_are_measured():
    config = load(DemoConfig, "demo")
    assert not set(config.train_recipes) & set(config.test_recipes)
    assert len(config.train_recipes) >= 3
    measured = [stage.arguments[-1].rpartition("/")[2] for stage in PLAN if stage.arguments[0] == "predict"]
    assert measured == ["base", "sft", "sft+srl"]


def test_the_student_acts_and_is_measured_in_the_context_it_was_trained_in():
    config = load(DemoConfig, "demo")
    contexts = [read_toml(name)["context"] for name in (config.sft, config.srl, config.mode)]
    assert contexts[0] == contexts[1] == contexts[2]
    assert config.agreement["context.max_observation_chars"] == contexts[0]["max_observation_chars"]


def test_a_longer_demo_differs_in_the_updates_of_its_trainings_alone():
    longer = list(stages(load(DemoConfig, "demo", ["longer=2.5"]), OUT))
    changed = [(stage.arguments, other.arguments) for stage, other in zip(PLAN, longer, strict=True) if stage != other]
    assert [stage[0] for stage, _ in changed] == ["train", "train"]
    for stage, other in changed:
        updates = read_toml(stage[1])["updates"]
        assert other == (*stage[:2], "--set", f"updates={round(2.5 * updates)}", *stage[2:])
