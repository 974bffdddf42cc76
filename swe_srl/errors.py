"""What can go wrong outside the experiment, and the exit code each kind ends a command with.

```
SweSrlError
├── UserError                what the user wrote or pointed at; exit 2
│   ├── ConfigError          a preset, a --set, a recipe
│   ├── FormatError          a file is not in its format: names file and line
│   ├── UnknownTask          an id that the task repository does not hold
│   └── NothingToLearn       all that a student tried was worth the same
└── ApparatusError           what should have worked and did not; exit 3
    ├── EngineUnavailable    no container engine answers
    ├── ClusterUnavailable   no cluster answers, or none of its machines is left
    ├── ImageMissing         an image is absent and could not be pulled or built
    ├── SandboxError         the box itself is gone, not the command in it
    ├── EndpointError        a model endpoint does not answer, or refuses
    ├── SamplerError         what samples beside the trainer fails, or does not have its weights
    └── StorageError         the disk is full or not writable
```

An outcome of the experiment (a command that fails, an answer that does not parse, a patch that does not apply) is a
value and never one of these. Every message says what, where, and what to do next.
"""

from __future__ import annotations


class SweSrlError(Exception):
    """Base of all errors that swe-srl raises on purpose."""

    exit_code = 3


class UserError(SweSrlError):
    """The input is wrong; the user can mend it."""

    exit_code = 2


class ConfigError(UserError):
    """A configuration value is unknown or out of range."""


class FormatError(UserError):
    """A file is not in the format its reader was promised."""


class UnknownTask(UserError):
    """An id names no task of the given repository."""


class NothingToLearn(UserError):
    """No answers, or no episodes, that were sampled together differ in what they are worth."""

    def __init__(self, message: str, num_sampled_tokens: int = 0) -> None:
        super().__init__(message)
        self.num_sampled_tokens = num_sampled_tokens
        """Through the model in vain."""


class ApparatusError(SweSrlError):
    """The apparatus failed. Never scored as the student's failure, never dropped from a report."""


class EngineUnavailable(ApparatusError):
    """No container engine answers."""


class ClusterUnavailable(ApparatusError):
    """No cluster answers, its machines cannot do the work, or none of them is left."""


class ImageMissing(ApparatusError):
    """An image is absent, and could not be pulled or built."""


class SandboxError(ApparatusError):
    """The box is gone. A command that fails or times out is a result, not this."""


class EndpointError(ApparatusError):
    """A model endpoint is unreachable or refuses the request for good."""


class SamplerError(ApparatusError):
    """The engine that samples for a trainer fails, or samples from other weights than those that are trained."""


class StorageError(ApparatusError):
    """A file could not be written: the disk is full, or the place is not writable."""
