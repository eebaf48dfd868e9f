"""All settings, read from the environment (prefix ``NIGHTSHIFT_``) or given as keywords.

Each may come from a file as well, which its variable with ``_FILE`` at the end names.
Every field is documented in ``docs/settings.md``; a test compares the two.
"""

from __future__ import annotations

import functools
import ipaddress
import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Literal, Self

from pydantic import AliasChoices, Field, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from jobs import secret_files
from jobs.decisions.faults import RetryLimits
from jobs.retention import Retention

_LOOPBACK = re.compile(r"localhost|::1|127(?:\.\d{1,3}){3}")


class Settings(BaseSettings):
    """One installation's settings; the same names serve every process."""

    model_config = SettingsConfigDict(
        env_prefix="NIGHTSHIFT_",
        extra="ignore",
        populate_by_name=True,
        hide_input_in_errors=True,  # it may be all settings, secrets too
    )

    database_url: str = Field(
        "postgresql://localhost/nightshift",
        validation_alias=AliasChoices("NIGHTSHIFT_DATABASE_URL", "DATABASE_URL"),
        description="Postgres, the truth.",
    )
    database_password: str = Field(
        "", description="Its password, where the URL has none; best given as a file."
    )
    redis_url: str = Field(
        "redis://localhost:6379/0",
        validation_alias=AliasChoices("NIGHTSHIFT_REDIS_URL", "REDIS_URL"),
        description="Redis or Valkey, the carrier of messages; may be flushed at any time.",
    )
    redis_password: str = Field(
        "", description="Its password, where the URL has none; best given as a file."
    )
    object_store_url: str = Field(
        "file:///var/lib/nightshift/objects",
        description="Where corpora, parts and outputs lie: file:///folder or s3://bucket/prefix. "
        "S3 keys and endpoint come from the usual AWS_* variables.",
    )

    api_host: str = Field("127.0.0.1", description="Address the API listens on.")
    api_port: int = Field(8750, description="Port the API listens on.")
    api_connections: int = Field(
        2000,
        gt=0,
        description="Connections that one API process may have open. When there are more, the one "
        "that has waited longest for the head of a request makes room.",
    )
    api_head_seconds: float = Field(
        10.0, gt=0, description="How long a client may take to send the head of a request."
    )
    api_stall_seconds: float = Field(
        30.0,
        gt=0,
        description="How long a body may be slower than `API_SLOWEST_BYTES`, and a client may take "
        "nothing of its answer, before the API ends the request.",
    )
    api_slowest_bytes: int = Field(
        256, ge=0, description="Fewest bytes of a body per second, on average over that time."
    )
    api_idle_seconds: int = Field(
        5, gt=0, description="How long a connection is kept open after an answer."
    )
    page_read_only: bool = Field(
        default=False,
        description="The page shows everything and changes nothing: the API refuses its forms.",
    )
    uploads_per_key: int = Field(
        16, gt=0, description="Uploads of one key that may be under way in one API process."
    )
    downloads_per_key: int = Field(
        8,
        gt=0,
        description="The same for what is read from the object store: contents, outputs, results, "
        "reports and files of models.",
    )
    streams_per_key: int = Field(64, gt=0, description="The same for event streams.")
    verifications_per_key: int = Field(2, gt=0, description="The same for verifications.")
    max_upload_bytes: int = Field(64 * 2**30, description="Largest file the API accepts, in bytes.")
    upload_lease_seconds: float = Field(
        600.0,
        gt=0,
        description="What a killed API process left of an upload is removed after this time.",
    )
    allowed_inputs: list[str] = Field(
        default_factory=list,
        description="Prefixes of input URIs that jobs may read, as a JSON list: "
        '["file:///data/", "s3://bucket/", "hf://datasets/"]. Empty: uploaded files only.',
    )
    allowed_models: list[str] = Field(
        default_factory=lambda: ["hf:", "/"],
        description="Prefixes of model references that jobs may load, as a JSON list: "
        "hub ids (hf:org/), absolute folders on the workers, and s3://bucket/ prefixes. Models of "
        "the registry need none.",
    )
    sql_sources: str = Field(
        "",
        description="A JSON file of the SQL sources that corpora may name (docs/corpora.md), which "
        "the API, control and planners read; empty: there are none.",
    )
    retention: Retention = Field(
        default_factory=Retention,
        description="How long things are kept where a project or a job says nothing, as JSON: "
        '{"jobs": "90d", "checkpoints": "30d"}. What is not named stays forever, but for '
        "checkpoints of training that succeeded; chunks fold after a week (docs/retention.md).",
    )
    collect_interval_seconds: float = Field(
        21_600.0,
        ge=0,
        description="Time from one round of the garbage collector to the next, which also measures "
        "the usage of projects; 0: none but those of `nightshift storage collect`.",
    )
    collect_grace_seconds: float = Field(
        86_400.0,
        ge=0,
        description="An object that no row names is removed when it is older than this.",
    )
    audit_days: int = Field(
        400, gt=0, le=36_500, description="How long entries of the audit trail are kept, in days."
    )
    private_folders: list[str] = Field(
        default_factory=list,
        description="Folders of the installation that are never an input of a job, whatever the "
        "allow-lists cover, as a JSON list. The object store, the cache of models and the folders "
        "of calibrations and of training runs need not be named.",
    )

    lease_seconds: float = Field(
        30.0, gt=0, description="How long a silent worker keeps a chunk; renewed at a third of it."
    )
    stall_seconds: float = Field(
        600.0, gt=0, description="A worker process that makes no progress for this long exits."
    )
    hang_seconds: float = Field(
        30.0,
        gt=0,
        description="A worker, planner or host whose event loop does not turn for this long exits. "
        "Only time in which Redis answers counts.",
    )
    dispatch_window: int = Field(
        32,
        gt=0,
        description="Most messages that one pool's queue in Redis holds; "
        "never fewer than twice the slots of its workers.",
    )
    redispatch_seconds: float = Field(
        30.0, gt=0, description="A message not acted on for this long is sent again."
    )
    control_interval_seconds: float = Field(
        1.0, gt=0, description="Longest pause between two turns of the control loop."
    )
    control_lease_seconds: float = Field(
        10.0,
        gt=0,
        description="A leading control process that has not turned for this long is replaced by "
        "another.",
    )
    fault_tries: int = Field(
        5,
        gt=0,
        description="Tries of a chunk or a step of a job that an unexpected exception ends, before "
        "the job fails with it.",
    )
    outage_seconds: float = Field(
        86_400.0,
        gt=0,
        description="How long the same chunk or step is tried again while storage, Postgres, the "
        "network, memory or the disk fails, before the job fails.",
    )
    chunk_rows: int = Field(2_000, gt=0, description="Most rows in one chunk.")
    written_chunk_rows: int = Field(
        256,
        gt=0,
        description="The same, of jobs whose model writes a text for each row, which takes longer.",
    )
    chunk_bytes: int = Field(
        128 * 2**10, gt=0, description="Most UTF-8 bytes of text in one chunk of several rows."
    )
    shard_rows: int = Field(50_000, gt=0, description="Most rows in one shard.")
    shard_bytes: int = Field(16 * 2**20, gt=0, description="Most bytes of text in one shard.")
    max_row_bytes: int = Field(
        2**20, gt=0, description="A longer input row becomes an error row, `row_too_long`."
    )
    decoder_memory_bytes: int = Field(
        512 * 2**20,
        ge=64 * 2**20,
        description="Most memory that decoding a Parquet corpus may take, in a process of its own "
        "(about 100 MiB more for its libraries); on Linux. A corpus that needs more is refused, "
        "`corpus_too_large`.",
    )

    pool: str = Field("cpu", description="The pool that this worker belongs to.")
    worker_processes: int = Field(1, gt=0, description="Processes of one worker.")
    worker_devices: int = Field(
        1,
        gt=0,
        description="Accelerators per worker process; a model that is too large for one of them is "
        "spread over all that its process has.",
    )
    worker_threads: int = Field(
        0, ge=0, description="CPU threads per worker process; 0 divides the cores evenly."
    )
    batch_tokens: int = Field(
        0,
        ge=0,
        description="Tokens per batch; 0: what is found best for each model on each device. Models "
        "that write take eight times as many, and with 0 eight times 1,024 on CPU or 16,384 on an "
        "accelerator.",
    )
    calibration_folder: str = Field(
        "",
        description="Folder where this machine keeps the fastest batch sizes and layouts; empty: "
        "each worker process measures them again.",
    )

    host_name: str = Field("", description="This training host's name; default: the machine's.")
    host_address: str = Field(
        "", description="Where other hosts reach it; default: its address on the way to Postgres."
    )
    host_folder: str = Field(
        "",
        description="Where training runs on this host keep their work, in a folder of this "
        "installation and host, which is emptied at every start; default: in the system's folder "
        "for temporary files.",
    )
    host_pool: str = Field("train", description="The pool that this training host belongs to.")
    host_processes: int = Field(
        0, ge=0, description="Processes per training run here; 0 takes one per accelerator, or one."
    )
    host_shares_pool: str = Field(
        "", description="The bulk pool that works on the same devices; empty: none does."
    )
    host_sharing: Literal["beside", "yield", "refuse"] = Field(
        "beside",
        description="With that pool: train `beside` it, `yield` while it has work (with a "
        "checkpoint), or `refuse` to train.",
    )
    train_stall_seconds: float = Field(
        600.0, gt=0, description="A rank that takes no step for this long counts as hung."
    )
    train_forming_seconds: float = Field(
        120.0,
        gt=0,
        description="A rank that has not begun this long after its gang was formed ends the run.",
    )
    train_grace_seconds: float = Field(
        120.0, gt=0, description="How long a rank may take to write its last checkpoint."
    )
    train_faults: int = Field(
        20, ge=0, description="Runs of one job that may be lost to machines before it fails."
    )
    train_errors: int = Field(
        2, ge=0, description="Runs of one job that may crash by themselves before it fails."
    )
    train_log_lines: int = Field(
        20_000, gt=0, description="Most log lines kept of one rank of one run."
    )
    artefact_cache: str = Field(
        "",
        description="Folder where models of the registry are kept on this machine; default: "
        "nightshift-artefacts in the system's cache folder.",
    )
    artefact_cache_bytes: int = Field(
        50 * 2**30, gt=0, description="Most bytes kept there; what was used longest ago goes first."
    )

    metrics_port: int = Field(
        0,
        ge=0,
        le=65_535,
        description="Port on which this process answers /metrics to Prometheus (docs/metrics.md), "
        "one for each process of a machine; 0: it counts nothing.",
    )
    metrics_host: str = Field(
        "127.0.0.1",
        description="Address on which it does; beyond this machine it needs a token.",
    )
    metrics_token: str = Field(
        "",
        description="What Prometheus must send as `Authorization: Bearer TOKEN`; empty: nothing, "
        "which only a loopback address may.",
    )

    public_url: str = Field(
        "",
        description="The API's address as people reach it, such as https://jobs.example.com; links "
        "in webhooks and mails begin with it. Empty: they are paths.",
    )
    webhook_networks: list[str] = Field(
        default_factory=list,
        description="Networks to which webhooks may go although they are not public, as a JSON "
        'list: ["10.1.0.0/16", "127.0.0.1"].',
    )
    webhook_timeout_seconds: float = Field(
        15.0, gt=0, description="How long a receiver of webhooks may take to answer."
    )
    smtp_url: str = Field(
        "",
        description="The mail server for endpoints with an address: smtp://user:password@host:587, "
        "which is encrypted if the server can, or smtps://host:465. Empty: no mails are sent.",
    )
    smtp_from: str = Field("nightshift@localhost", description="The sender of mails, an address.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - there is none
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - named by its folder
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Keywords, then files, then the environment."""
        files = EnvSettingsSource(settings_cls)
        texts = secret_files.given(sorted(variables()))
        files.env_vars = {name.lower(): text for name, text in texts.items()}
        return init_settings, files, env_settings

    @field_validator("webhook_networks")
    @classmethod
    def _are_networks(cls, value: list[str]) -> list[str]:
        for each in value:
            ipaddress.ip_network(each)
        return value

    @model_validator(mode="after")
    def _urls_have_their_passwords(self) -> Self:
        self.database_url = secret_files.with_password(self.database_url, self.database_password)
        self.redis_url = secret_files.with_password(self.redis_url, self.redis_password)
        return self

    @model_validator(mode="after")
    def _metrics_are_not_open_to_strangers(self) -> Self:
        guarded = self.metrics_token or _LOOPBACK.fullmatch(self.metrics_host)
        if self.metrics_port and not guarded:
            raise ValueError(
                "NIGHTSHIFT_METRICS_HOST is not a loopback address: set NIGHTSHIFT_METRICS_TOKEN"
            )
        return self

    @property
    def webhook_allowed(self) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        """``webhook_networks`` as networks."""
        return tuple(ipaddress.ip_network(each) for each in self.webhook_networks)

    @property
    def webhook_lease(self) -> timedelta:
        """How long a process that sends a webhook keeps it: longer than it can take."""
        return timedelta(seconds=2 * self.webhook_timeout_seconds + 5)

    @property
    def artefact_folder(self) -> Path:
        """``artefact_cache``, or its default in the cache folder of the XDG base directories."""
        if self.artefact_cache:
            return Path(self.artefact_cache)
        given = Path(os.environ.get("XDG_CACHE_HOME", ""))
        caches = given if given.is_absolute() else Path.home() / ".cache"
        return caches / "nightshift-artefacts"

    @property
    def lease_duration(self) -> timedelta:
        """How long a lease lasts from its claim or last renewal."""
        return timedelta(seconds=self.lease_seconds)

    @property
    def upload_lease_duration(self) -> timedelta:
        """How long an upload stays after its process renewed it last."""
        return timedelta(seconds=self.upload_lease_seconds)

    @property
    def collect_interval(self) -> timedelta:
        """Time from one round of the garbage collector to the next."""
        return timedelta(seconds=self.collect_interval_seconds)

    @property
    def audit_kept(self) -> timedelta:
        """How long entries of the audit trail are kept."""
        return timedelta(days=self.audit_days)

    @property
    def collect_grace(self) -> timedelta:
        """How old an object must be before it can be garbage."""
        return timedelta(seconds=self.collect_grace_seconds)

    @property
    def control_lease_duration(self) -> timedelta:
        """How long a control process leads from its last turn."""
        return timedelta(seconds=self.control_lease_seconds)

    @property
    def limits(self) -> RetryLimits:
        """How often and how long what fails is tried again."""
        return RetryLimits(tries=self.fault_tries, outage=timedelta(seconds=self.outage_seconds))

    @property
    def redispatch(self) -> timedelta:
        """The age at which an unanswered message is sent again."""
        return timedelta(seconds=self.redispatch_seconds)

    @property
    def host_drain(self) -> timedelta:
        """How long a host may take to end once it is asked to.

        Its run learns of it, writes its checkpoint within ``train_grace_seconds``, and stores it
        within the same time again.
        """
        return timedelta(seconds=2 * self.train_grace_seconds + 30)

    @property
    def forming(self) -> timedelta:
        """How long the hosts of a new gang may take to begin."""
        return timedelta(seconds=self.train_forming_seconds)


@functools.cache
def variables() -> frozenset[str]:
    """The names of all settings as variables of the environment."""
    own = {f"NIGHTSHIFT_{name.upper()}" for name in Settings.model_fields}
    aliases = [field.validation_alias for field in Settings.model_fields.values()]
    others = [each.choices for each in aliases if isinstance(each, AliasChoices)]
    return frozenset(own.union(str(name) for names in others for name in names))


@functools.cache
def get() -> Settings:
    """The process's settings, read once."""
    return Settings()


def state_home() -> Path:
    """The default state folder of the embedded stack."""
    return Path.home() / ".nightshift"
