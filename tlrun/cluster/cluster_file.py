"""Reads where a run computes, from one word or a YAML file, and checks it before anything starts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from catalogs.amounts import read_data_size
from catalogs.console import nearest
from catalogs.errors import InputError
from catalogs.yaml_files import read_yaml

FORMS = (
    "threads, local, gpu (each also with :WORKERS), slurm, pbs, sge, kubernetes, "
    "the address of a Dask scheduler (tcp://HOST:PORT), or a YAML file (tlgen clusters writes one)"
)

#: Names of the worker pools of a run: one computes tilt images, one packs, reconstructs and commits.
POOLS = ("simulate", "rest")

#: A job's worker ends this long before the queueing system would kill it.
SHORTEST_WALLTIME = 300

_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def seconds_of(text: Any) -> int:
    """Read a walltime: ``04:00:00``, ``1-00:00:00`` (a day), ``90 min``, ``4h``."""
    words = str(text).strip().lower()
    if found := re.fullmatch(r"(?:(\d+)-)?(\d+):([0-5]?\d):([0-5]?\d)", words):
        days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
        return days * 86400 + hours * 3600 + minutes * 60 + seconds
    if found := re.fullmatch(r"([\d.]+)\s*(s|m|min|h|d)", words):
        return round(float(found[1]) * _SECONDS[found[2]])
    raise ValueError(f"{text!r} is not a time; give one such as 04:00:00, 90min or 4h")


class Workers(BaseModel):
    """Smallest and largest number of workers; a single number sets both."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min: int = Field(ge=1)
    max: int = Field(ge=1)

    @model_validator(mode="before")
    @classmethod
    def _a_number_is_both(cls, value: Any) -> Any:
        if isinstance(value, int | str):
            return {"min": value, "max": value}
        if isinstance(value, Mapping) and "max" in value:
            return {"min": 1, **value}
        return value

    @model_validator(mode="after")
    def _in_order(self) -> Workers:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is more than max {self.max}")
        return self


Seconds: TypeAlias = Annotated[int, BeforeValidator(seconds_of)]
Bytes: TypeAlias = Annotated[int, BeforeValidator(read_data_size)]


class _Pool(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Threads(_Pool):
    """Workers that are threads of this process."""

    kind: Literal["threads"] = "threads"
    workers: int | None = Field(None, ge=1, description="One a core if left out.")


class _Processes(_Pool):
    environment: dict[str, str] = Field({}, description="Environment variables of the workers.")
    scratch: str | None = Field(None, description="A folder on a local disk for the workers' files.")


class Local(_Processes):
    """Workers that are processes on this machine."""

    kind: Literal["local"] = "local"
    workers: int | None = Field(None, ge=1, description="One a core if left out.")
    memory: Bytes | None = Field(None, description="Of one worker; steps share what all have.")


class Gpu(_Processes):
    """One worker process for each GPU of this machine."""

    kind: Literal["gpu"] = "gpu"
    workers: int | None = Field(None, ge=1, description="At most as many GPUs; all if left out.")
    memory: Bytes | None = Field(None, description="Of one worker; steps share what all have.")


class Queue(_Processes):
    """Workers in jobs of a queueing system."""

    kind: Literal["slurm", "pbs", "sge"]
    workers: Workers = Field(Workers(min=1, max=8), description="A number, or min and max.")
    workers_per_job: int = Field(1, ge=1, description="Cores of one job, one worker on each.")
    memory: Bytes = Field(4 * 10**9, description="Of one worker.")
    walltime: Seconds = Field(4 * 3600, ge=SHORTEST_WALLTIME, description="Of one job.")
    queue: str | None = Field(None, description="Partition or queue; the site's default if left out.")
    account: str | None = Field(None, description="Account to charge: Slurm and PBS account, SGE project.")
    gpu: bool = Field(False, description="Each job gets one GPU and one worker.")
    directives: tuple[str, ...] = Field((), description="Further options of the job, e.g. --constraint=a100.")
    setup: tuple[str, ...] = Field(
        (), description="Lines of the job script before the workers, e.g. module load."
    )
    python: str | None = Field(None, description="On the nodes; that of this process if left out.")
    interface: str | None = Field(None, description="Network that nodes and this machine share, e.g. ib0.")
    logs: str = Field("cluster-logs", description="Folder of the jobs' output.")

    @model_validator(mode="after")
    def _fits_together(self) -> Queue:
        if self.gpu and self.workers_per_job > 1:
            raise ValueError("gpu: true gives every job one GPU and one worker; leave out workers_per_job")
        if self.kind == "sge" and self.workers_per_job > 1 and not any("-pe" in d for d in self.directives):
            raise ValueError(
                f"workers_per_job: {self.workers_per_job} needs a parallel environment on SGE; "
                f'add it to directives, e.g. "-pe smp {self.workers_per_job}"'
            )
        if self.workers.max < self.workers_per_job:
            raise ValueError(
                f"one job has {self.workers_per_job} workers, more than workers allows ({self.workers.max})"
            )
        return self


class Kubernetes(_Processes):
    """Workers in pods that the Dask operator starts."""

    kind: Literal["kubernetes"] = "kubernetes"
    image: str = Field(description="Container image with this program, made by the Dockerfile.")
    workers: Workers = Field(Workers(min=1, max=8), description="A number, or min and max.")
    name: str = Field("template-learning", pattern="^[a-z]([a-z0-9-]{0,40}[a-z0-9])?$")
    namespace: str | None = None
    memory: Bytes = Field(4 * 10**9, description="Of one worker.")
    gpu: bool = Field(False, description="One GPU for each worker.")
    secrets: tuple[str, ...] = Field((), description="Secrets whose entries become environment variables.")
    service_account: str | None = None
    node_selector: dict[str, str] = {}
    tolerations: tuple[dict[str, str], ...] = ()


class Address(_Pool):
    """A Dask cluster that somebody else has started."""

    kind: Literal["address"] = "address"
    address: str

    @model_validator(mode="after")
    def _has_host_and_port(self) -> Address:
        if not re.fullmatch(r"(tcp|tls)://.+:\d+", self.address):
            raise ValueError(
                f"{self.address!r} is not the address of a scheduler; give one such as tcp://HOST:8786"
            )
        return self


Pool: TypeAlias = Threads | Local | Gpu | Queue | Kubernetes | Address

_MODELS: dict[str, type[Pool]] = {
    "threads": Threads,
    "local": Local,
    "gpu": Gpu,
    "slurm": Queue,
    "pbs": Queue,
    "sge": Queue,
    "kubernetes": Kubernetes,
    "address": Address,
}


def presets() -> dict[str, Path]:
    """List the commented cluster files that come with the program, by name."""
    folder = Path(__file__).parent / "presets"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def read_cluster(word: str) -> dict[str, Pool]:
    """Read the word or the file that describes where to compute.

    Parameters
    ----------
    word
        See :data:`FORMS`.

    Returns
    -------
    dict
        Settings by pool (:data:`POOLS`). If one cluster does everything, both names have the same
        object.

    Raises
    ------
    InputError
        It is none of the known forms, or a key or value in the file is wrong.
    """
    if word.startswith(("tcp://", "tls://")):
        return dict.fromkeys(POOLS, _validated({"kind": "address", "address": word}, f"`cluster={word}`"))
    if word.endswith((".yaml", ".yml")) or "/" in word:
        return _read_file(Path(word))
    kind, colon, number = word.partition(":")
    if kind in ("threads", "local", "gpu") and (not colon or (number.isdigit() and int(number) > 0)):
        return dict.fromkeys(POOLS, _validated({"kind": kind} | ({"workers": number} if colon else {}), word))
    if kind in _MODELS and kind != "address" and not colon:
        return dict.fromkeys(POOLS, _validated({"kind": kind}, word))
    if kind in ("threads", "local", "gpu"):
        raise InputError(f"`cluster={word!r}` is not a cluster; give {kind}, or {kind}:N for N workers")
    hint = nearest(word, [name for name in _MODELS if name != "address"]) if word else ""
    raise InputError(f"`cluster={word!r}` is not a cluster{hint or f'; give {FORMS}'}")


def _read_file(path: Path) -> dict[str, Pool]:
    if not path.is_file():
        raise InputError(f"there is no cluster file {path}; tlgen clusters lists those to start from.")
    # read as text: YAML would turn the walltime 12:00:00 into the number 43200
    content = read_yaml(path, as_text=True)
    if not isinstance(content, dict):
        raise InputError(f"{path} is not a cluster file: it must have keys such as kind and workers.")
    if "kind" in content or not content.keys() & set(POOLS):
        return dict.fromkeys(POOLS, _validated(content, str(path)))
    if unknown := [key for key in content if key not in POOLS]:
        raise InputError(f"{path}: unknown key {unknown[0]}{nearest(unknown[0], POOLS)}.")
    if missing := [pool for pool in POOLS if pool not in content]:
        raise InputError(f"{path} lacks the pool {missing[0]}; it must have simulate and rest.")
    return {pool: _validated(content[pool], f"{path}: {pool}") for pool in POOLS}


def _validated(content: Any, where: str) -> Pool:
    if not isinstance(content, dict):
        raise InputError(f"{where} must have keys such as kind and workers.")
    kind = content.get("kind")
    if kind is None:
        raise InputError(f"{where}: the key kind is missing; it is one of {', '.join(_MODELS)}.")
    if kind not in _MODELS:
        raise InputError(
            f"{where}: kind {kind!r} is not one of {', '.join(_MODELS)}{nearest(str(kind), _MODELS)}."
        )
    model = _MODELS[kind]
    # a key without a value: the default holds
    said = {key: value for key, value in content.items() if value not in ("", "null", "~")}
    try:
        return model.model_validate(said)
    except ValidationError as error:
        raise InputError(f"{where}: {_in_words(error, model)}.") from error


def _in_words(error: ValidationError, model: type[Pool]) -> str:
    """Describe the first error; an unknown key comes before a missing one, which it often explains."""
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        beside = model.model_fields if len(first["loc"]) == 1 else Workers.model_fields
        return f"unknown key {where}{nearest(str(first['loc'][-1]), beside)}"
    if first["type"] == "missing":
        meaning = model.model_fields[where].description if where in model.model_fields else ""
        return f"the key {where} is missing" + (f" ({meaning.rstrip('.')})" if meaning else "")
    if first["type"] == "greater_than_equal" and where == "walltime":
        return (
            f"walltime: a job of less than {SHORTEST_WALLTIME // 60} minutes ends before it has done anything"
        )
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message
