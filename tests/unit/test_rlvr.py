"""RLVR: episodes of a tiny student in fake boxes; what broke is dropped, and an episode is worth its verdict."""

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")
pytest.importorskip("transformers", reason="needs the train extra")

from swe_srl.agent import EpisodeResult
from swe_srl.dialogue import ContextConfig, format_completion, render
from swe_srl.errors import NothingToLearn, SandboxError, UserError
from swe_srl.policy.base import Completion
from swe_srl.policy.load import load_student
from swe_srl.policy.scoring import token_log_probs
from swe_srl.policy.tree import TokenTree, num_plain_tokens
from swe_srl.rewards import similarity
from swe_srl.schema import Command, Task, Turn, Verdict
from swe_srl.store import Run
from swe_srl.testing import FakeSandbox
from swe_srl.testing.tiny import tiny_student
from swe_srl.training.algorithms.rlvr import Rlvr, episode_weights, groups_of, reason_to_drop
from swe_srl.training.attempts import Arena, Attempt, Attempts
from swe_srl.training.config import TrainConfig
from swe_srl.training.data import Cursor
from swe_srl.training.inputs import WholeSolution, as_one_text
from swe_srl.training.loop import train
from swe_srl.training.metrics import read_metrics
from swe_srl.training.objective import Group
from swe_srl.training.probe import PROBE, Probed

pytestmark = pytest.mark.torch

TASKS = tuple(
    Task(task_id=f"toy-{n}", repo="toy", base_commit="0", problem_statement=f"f({n}) is 3", image="toy")
    for n in range(4)
)


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return tiny_student(tmp_path_factory.mktemp("student") / "tiny")


def config(student, **changes):
    algorithm = {"type": "rlvr", "batch_size": 2, "group_size": 3, "limits": {"max_turns": 2}, "max_parallel": 4}
    table = {
        "model": str(student), "tasks": "unused", "dtype": "fp32", "device": "cpu", "updates": 2, "save_every": 1, "max_new_tokens": 8,
        "max_prompt_tokens": 400, "optimizer": {"lr": 1e-3}, "algorithm": algorithm | changes.pop("algorithm", {}),
    }  # fmt: skip
    return TrainConfig.model_validate(table | changes)


class Judge:
    """Resolves every second episode of a task, or as `says`."""

    def __init__(self, says=None):
        self.seen = []
        self._says = says

    def __call__(self, prediction):
        self.seen.append(prediction.task_id)
        status = self._says or ("resolved" if self.seen.count(prediction.task_id) % 2 else "unresolved")
        return Verdict(task_id=prediction.task_id, model="m", patch_digest=prediction.patch_digest, status=status)


def open_box(task):
    return FakeSandbox({"a.py": "x = 1\n"})


def algorithm(student, arena, **changes):
    settings = config(student, **changes)
    policy = load_student(str(student), dtype="fp32", device="cpu", max_prompt_tokens=400)
    return Rlvr(settings.algorithm, settings, TASKS, policy, arena)


def cursor():
    return Cursor([task.task_id for task in TASKS], 0)


def test_every_turn_of_every_episode_is_an_answer_with_the_advantage_of_its_episode(student):
    batch = algorithm(student, Arena(open_box, Judge())).collect(cursor(), 1)
    episodes = {group.step_id.rpartition("/")[0] for group in batch.groups}
    assert len(episodes) == 6
    assert {group.step_id.partition("@")[0] for group in batch.groups} <= {task.task_id for task in TASKS}
    assert all(len(group.completions) == 1 for group in batch.groups)
    assert all(0 < len(group.completions[0]) <= 8 for group in batch.groups)
    for key in {name.partition("#")[0] for name in episodes}:
        own = {g.step_id.rpartition("/")[0]: g.advantages[0] for g in batch.groups if g.step_id.startswith(f"{key}#")}
        assert len(own) == 3
        assert sum(own.values()) == pytest.approx(0.0, abs=1e-6)
        assert len(set(own.values())) == 2
    assert all(group.old_log_probs is None for group in batch.groups)
    assert sum(weights.sum().item() for weights in batch.weights) == pytest.approx(1.0)
    assert batch.metrics["episodes"] == 6
    assert batch.metrics["turns_mean"] == 2.0  # the limit: this student says nothing that could be run
    assert batch.metrics["reward_mean"] == pytest.approx(2 / 3)
    assert batch.metrics["reward_std"] == pytest.approx(2**0.5 / 3)


def test_a_later_turns_prompt_is_what_the_student_was_shown_then(student):
    batch = algorithm(student, Arena(open_box, Judge())).collect(cursor(), 1)
    turns = [group for group in batch.groups if group.step_id.endswith("/1")]
    assert turns
    for group in turns:
        first = next(g for g in batch.groups if g.step_id == group.step_id[:-1] + "0")
        assert len(group.prompt_ids) > len(first.prompt_ids)


def test_an_episode_whose_box_broke_is_dropped_and_never_a_reward(student):
    opened = []

    def breaks(task):
        opened.append(task.task_id)
        if opened.count(task.task_id) == 1:
            raise SandboxError("gone")
        return open_box(task)

    judge = Judge()
    batch = algorithm(student, Arena(breaks, judge)).collect(cursor(), 1)
    assert batch.metrics["episodes_dropped"] == 2
    assert batch.metrics["episodes"] == len(judge.seen) == 4
    assert batch.metrics["reward_mean"] == 0.5


def test_a_grader_that_fails_drops_the_episode_too_and_where_all_are_dropped_that_is_the_apparatus(student, tmp_path):
    with pytest.raises(SandboxError, match="none had two episodes whose boxes and grading held"):
        algorithm(student, Arena(open_box, Judge("infra_failure"))).collect(cursor(), 1)
    probing = config(student, algorithm={"probe": 2})
    with pytest.raises(SandboxError, match="none of 4 tasks could be tried"):
        train(probing, TASKS, Run(tmp_path), arena=Arena(open_box, Judge("infra_failure")))


@pytest.mark.parametrize(
    ("says", "reason", "advice"),
    [("resolved", "always solved", "give harder tasks"), ("unresolved", "never solved", "give easier tasks")],
)
def test_tasks_that_all_or_none_solve_are_thrown_away_and_counted(student, says, reason, advice):
    with pytest.raises(UserError, match=f"{reason}.*{advice}"):
        algorithm(student, Arena(open_box, Judge(says))).collect(cursor(), 1)
    taken = algorithm(student, Arena(open_box, Judge(says)), algorithm={"dynamic_sampling": False}).collect(cursor(), 1)
    assert taken.metrics["groups_thrown"] == {}
    assert {group.advantages for group in taken.groups} == {(0.0,)}


def test_what_is_left_over_is_kept_for_the_next_update_with_the_samplers_log_probabilities(student):
    judge, never = Judge(), []

    def grade(prediction):
        never.append(prediction.task_id)
        return Judge("unresolved")(prediction) if prediction.task_id == never[0] else judge(prediction)

    first = algorithm(student, Arena(open_box, grade), algorithm={"batch_size": 1})
    batch = first.collect(cursor(), 1)  # one task is thrown away, two are taken in its place
    assert (batch.metrics["groups_thrown"], batch.metrics["groups_left_over"]) == ({"never solved": 1}, 1)
    state = first.state()
    assert len({item.step_id.partition("#")[0] for item in state}) == 1
    assert all(item.old_log_probs is not None for item in state)
    again = algorithm(student, Arena(open_box, grade), algorithm={"batch_size": 1})
    again.restore(state)
    following = again.collect(cursor(), 2)
    assert following.groups == state
    assert following.metrics["rounds"] == 0


def test_an_episode_can_be_worth_its_likeness_to_the_experts_whole_solution(student):
    listed, read = (Command(tool="bash", arguments={"command": word}) for word in ("ls -la", "cat a.py"))
    solution = as_one_text([listed, read])
    worth = WholeSolution({"toy-0": ["quite another", solution]})

    def result(*commands):
        turns = tuple(Turn(command=command, observation="", exit_code=0) for command in commands)
        return EpisodeResult(0, TASKS[0], turns, "submitted", "")

    assert worth(result(listed, read)) == 1.0
    assert worth(result(listed, None)) == similarity(as_one_text([listed]), solution) < 1.0
    assert worth(result(None)) == -1.0
    judge = Judge()
    arena = Arena(open_box, judge, WholeSolution({task.task_id: [solution] for task in TASKS}))
    with pytest.raises(NothingToLearn, match="rewards alike"):  # this student writes no action at all
        algorithm(student, arena).collect(cursor(), 1)
    assert judge.seen == []
    with pytest.raises(ValueError, match="set probe = 0"):
        config(student, algorithm={"reward": "similarity", "probe": 2})


def group(name, length):
    return Group(name, (1,), (tuple(range(length)),), (1.0,))


def test_episodes_weigh_the_same_or_tokens_do():
    groups = [group("t@1#0/0", 2), group("t@1#0/1", 6), group("t@1#1/0", 4)]
    of_sequence = [float(weights.sum()) for weights in episode_weights(groups, "sequence", 100)]
    assert of_sequence == pytest.approx([0.125, 0.375, 0.5])
    assert torch.cat(episode_weights(groups, "token", 100)).tolist() == pytest.approx([1 / 12] * 12)
    assert torch.cat(episode_weights(groups, "constant", 100)).tolist() == pytest.approx([1 / 200] * 12)


def test_one_episode_alone_has_nothing_to_be_compared_with():
    attempt = Attempt(EpisodeResult(0, TASKS[0], (), "submitted", ""), 1.0)
    assert reason_to_drop(Attempts("t", (attempt,)), dynamic=False) == "boxes broke"


def episodes(policy, num, context):
    """Well-formed episodes as a student that knows its trade would have them, thoughts left out of the history."""
    codec = policy.codec
    found = []
    for number in range(num):
        turns, completions = [], []
        for index in range(3):
            thought, command = (
                f"thought {number} {index}",
                Command(tool="bash", arguments={"command": f"cat f{index * number}.py"}),
            )
            prompt = policy.prompt(render(TASKS[0], turns, context)).ids
            target = codec.target(format_completion(thought, command))
            completions.append(Completion(text="", prompt_ids=prompt, token_ids=target, log_probs=(0.0,) * len(target)))
            turns.append(Turn(thought=thought, command=command, observation=f"line {index}\n" * 4, exit_code=0))
        result = EpisodeResult(number, TASKS[0], tuple(turns), "submitted", "", completions=tuple(completions))
        found.append(Attempt(result, float(number % 2)))
    return groups_of(Attempts("t@1.0.0", tuple(found)), divide_by_std=True)


@pytest.mark.parametrize("window", ["all", 1])
def test_a_tree_of_episodes_has_the_loss_and_gradients_of_plain_sequences(student, window):
    policy = load_student(str(student), dtype="fp32", device="cpu")
    groups = episodes(policy, 4, ContextConfig(window=window))
    weights = episode_weights(groups, "sequence", 100)
    advantages = [weight * of.advantages[0] for weight, of in zip(weights, groups, strict=True)]
    found = []
    for batches in ([groups], [[one] for one in groups]):
        policy.model.zero_grad()
        log_probs = torch.cat([token_log_probs(policy.model, TokenTree(part).row()) for part in batches])
        loss = (log_probs * torch.cat(advantages)).sum()
        loss.backward()
        found.append((loss.detach(), [parameter.grad.clone() for parameter in policy.model.parameters()]))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(found[0][1], found[1][1], strict=True):
        assert (ours - theirs).norm() <= 1e-5 * theirs.norm()
    assert TokenTree(groups).num_tokens < 0.6 * num_plain_tokens(groups)


def test_a_run_trains_reports_and_goes_on_where_it_was_stopped(student, tmp_path):
    judge = Judge()

    def stops(prediction):
        if len(judge.seen) == 6:  # in the second update
            raise KeyboardInterrupt
        return judge(prediction)

    with pytest.raises(KeyboardInterrupt):
        train(config(student), TASKS, Run(tmp_path), arena=Arena(open_box, stops))
    assert [row.update for row in read_metrics(tmp_path)] == [1]
    path = train(config(student), TASKS, Run(tmp_path), arena=Arena(open_box, Judge()))
    assert path.name == "update-000002"
    rows = read_metrics(tmp_path)
    assert [row.update for row in rows] == [1, 2]
    assert all(row.grad_norm > 0 for row in rows)
    assert all(0 < row.collected["reward_mean"] < 1 for row in rows)
    assert rows[0].num_tokens < rows[0].num_plain_tokens


def test_the_probe_keeps_tasks_that_are_solved_now_and_then_and_asks_once(student, tmp_path):
    judge = Judge()

    def grade(prediction):
        if prediction.task_id == "toy-0":
            return Judge("resolved")(prediction)
        if prediction.task_id == "toy-1":
            return Judge("unresolved")(prediction)
        return judge(prediction)

    settings = config(student, updates=1, algorithm={"probe": 2})
    train(settings, TASKS, Run(tmp_path), arena=Arena(open_box, grade))
    found = {item.task_id: (item.num_resolved, item.num_episodes) for item in Run(tmp_path).read(PROBE, Probed)}
    assert found == {"toy-0": (2, 2), "toy-1": (0, 2), "toy-2": (1, 2), "toy-3": (1, 2)}
    asked = len(judge.seen)
    train(settings, TASKS, Run(tmp_path), arena=Arena(open_box, grade))
    assert len(judge.seen) == asked


def test_a_probe_that_nothing_passes_says_so(student, tmp_path):
    with pytest.raises(UserError, match="none of 4 tasks is solved by some of 2 episodes and not by others"):
        train(config(student, algorithm={"probe": 2}), TASKS, Run(tmp_path), arena=Arena(open_box, Judge("unresolved")))
