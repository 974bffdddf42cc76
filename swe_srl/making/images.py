"""Project → its image and the build contexts of its tasks' images.

base image → project image (the wheels, the repository at its one commit) → task image (one layer: the bug, as a commit
without parents; what was before is not in the repository any more).
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

from swe_srl.assets import cache_dir, material
from swe_srl.errors import ImageMissing
from swe_srl.making.archive import archive_of
from swe_srl.making.download import fetch_wheel
from swe_srl.making.project import Project
from swe_srl.making.recipe import Recipe

WORKDIR = "/testbed"

PROJECT_DOCKERFILE = """\
FROM {base}
COPY wheels /tmp/wheels
RUN pip install --quiet --no-index --no-deps --no-cache-dir --root-user-action=ignore /tmp/wheels/*.whl \\
 && rm -rf /tmp/wheels \\
 && echo {import_root} > "$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/testbed.pth"{metadata}
COPY repository {workdir}
RUN git config --system --replace-all safe.directory '*' && cd {workdir} && git reset --quiet --hard && test -z "$(git status --porcelain)"{version_file}
ENV PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1
WORKDIR {workdir}
"""

METADATA = """ \\
 && folder="$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/{folder}.dist-info" && mkdir "$folder" \\
 && printf 'Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n' > "$folder/METADATA"\
"""
"""What a project that asks for its own version finds; it is not installed, its folder is on Python's path."""

VERSION_FILE = """ \\
 && mkdir -p "$(dirname {path})" && printf '__version__ = version = "{version}"\\n__version_tuple__ = version_tuple = tuple(version.split("."))\\n' > {path} \\
 && {{ git check-ignore -q {path} || echo /{path} >> .git/info/exclude; }}\
"""
"""What a project imports that is written when it is built."""

TASK_DOCKERFILE = """\
FROM {project}
COPY bug.patch /tmp/bug.patch
RUN git update-index -q --refresh ; {{ test ! -s /tmp/bug.patch || git apply --index --whitespace=nowarn /tmp/bug.patch; }} && rm /tmp/bug.patch \\
 && {variables} git commit --quiet --allow-empty --amend --message={message} \\
 && rm -rf .git/logs .git/ORIG_HEAD .git/COMMIT_EDITMSG && git gc --quiet --prune=now \\
 && test "$(git rev-parse HEAD)" = {commit}
"""


def base_image() -> str:
    """The tag of the base image, made where it is absent. Raises ImageMissing."""
    script = material("scripts", "base_image.sh")
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True, check=False)
    if done.returncode != 0 or not done.stdout.strip():
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ImageMissing(f"no base image: {reason}")
    return done.stdout.strip().splitlines()[-1]


class ProjectImage:
    """The image of one project: its tag says what is in it."""

    def __init__(self, recipe: Recipe, base: str) -> None:
        """Fetch what the recipe pins and commit the repository, in the cache."""
        self.recipe = recipe
        root = recipe.import_root.strip("./")
        self.dockerfile = PROJECT_DOCKERFILE.format(
            base=base, workdir=WORKDIR, import_root=f"{WORKDIR}/{root}".rstrip("/"), metadata=_metadata(recipe),
            version_file=VERSION_FILE.format(path=recipe.version_file, version=_version(recipe)) if recipe.version_file else "",
        )  # fmt: skip
        self.wheels = [fetch_wheel(wheel) for wheel in recipe.wheels]
        self.context = Path(tempfile.mkdtemp(prefix=f"{recipe.package}-", dir=cache_dir("projects")))
        self.project = Project(recipe, archive_of(recipe), self.context / "repository")
        content = [self.dockerfile, self.project.commit, *(wheel.sha256 for wheel in recipe.wheels)]
        self.tag = f"swe-srl/{recipe.package.lower()}:{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]}"

    def ensure(self) -> None:
        """Build the image where it is absent. Raises ImageMissing or EngineUnavailable."""
        from swe_srl.runtime.docker.images import ensure_image

        (self.context / "Dockerfile").write_text(self.dockerfile)
        (self.context / "wheels").mkdir(exist_ok=True)
        for wheel in self.wheels:
            shutil.copy(wheel, self.context / "wheels")
        ensure_image(self.tag, str(self.context))

    def task_dockerfile(self, commit: str) -> str:
        """The Dockerfile of a task whose bug makes `commit`."""
        variables = " ".join(
            f"{key}='{value}'" for key, value in self.project.commit_variables.items() if "COMMITTER" in key
        )
        return TASK_DOCKERFILE.format(
            project=self.tag, variables=variables, message=f"'{self.project.message}'", commit=commit
        )

    def close(self) -> None:
        """Remove the context; the image stays."""
        shutil.rmtree(self.context, ignore_errors=True)


def _metadata(recipe: Recipe) -> str:
    """For a project whose recipe was found out: a person who writes one leaves out what needs more."""
    if not recipe.source:
        return ""
    version = _version(recipe)
    folder = f"{recipe.package.replace('-', '_')}-{version}"
    return METADATA.format(folder=folder, name=recipe.package, version=version)


def _version(recipe: Recipe) -> str:
    """As packages state theirs: that of a commit is local."""
    return recipe.version if recipe.version[:1].isdigit() and "." in recipe.version else f"0+{recipe.version}"
