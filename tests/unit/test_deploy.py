"""The files in deploy/ are what they say: a batch script that starts the verb, and a manifest whose parts fit each other."""

import os
import subprocess
from pathlib import Path

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
STUBS = {
    "scontrol": "printf 'node7\\nnode8\\n'",
    "srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@"',
    "ray": "printf '%s\\n' \"$@\"",
}


def submitted(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The batch script where SLURM and Ray are stubs: the words that Ray was called with, a line each."""
    for name, text in STUBS.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (folder / name).chmod(0o755)
    environment = os.environ | {
        "PATH": f"{folder}:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "node[7-8]", "SLURM_JOB_ID": "1234567",
        "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_ON_NODE": "16",
    }  # fmt: skip
    command = ["bash", str(DEPLOY / "slurm.sh"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_batch_script_grades_at_the_head_that_it_starts(tmp_path):
    done = submitted(tmp_path, "my predictions.jsonl", "tasks", "run", "--workers", "8")
    assert done.returncode == 0, done.stderr
    words = done.stdout.splitlines()
    assert words[0] == "symmetric-run"
    ray, verb = words[: words.index("--")], words[words.index("--") + 1 :]
    assert verb[:3] == ["swe-srl", "grade", "my predictions.jsonl"]
    assert verb[-2:] == ["--workers", "8"]
    address = verb[verb.index("--address") + 1]
    assert address == ray[ray.index("--address") + 1] == "node7:24567"


def test_the_batch_script_says_what_it_wants(tmp_path):
    done = submitted(tmp_path, "predictions.jsonl")
    assert (done.returncode, "usage" in done.stderr) == (2, True)


def test_the_manifest_gives_workers_an_engine_at_the_socket_where_they_look_for_it():
    cluster, claim = yaml.safe_load_all((DEPLOY / "kuberay.yaml").read_text())
    assert (cluster["apiVersion"], cluster["kind"]) == ("ray.io/v1", "RayCluster")
    head = cluster["spec"]["headGroupSpec"]
    assert head["rayStartParams"] == {"num-cpus": "0"}
    assert head["template"]["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    (group,) = cluster["spec"]["workerGroupSpecs"]
    pod = group["template"]["spec"]
    volumes = {volume["name"] for volume in pod["volumes"]}
    for container in (*pod["initContainers"], *pod["containers"]):
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    (engine,), (worker,) = pod["initContainers"], pod["containers"]
    (host,) = [item["value"] for item in worker["env"] if item["name"] == "DOCKER_HOST"]
    assert f"--host={host}" in engine["args"]
    assert f"--host={host}" in engine["startupProbe"]["exec"]["command"]
