"""Settings: the args of `serve_config.yaml`, with the reference server's environment variables as defaults.

An application has one Settings, and each deployment may retune a few of them while it runs:

    settings = Settings(profile="cpu", lora_root="loras")
    settings.retuned({"max_queued": 10}).max_queued  # what `user_config` may change while a deployment runs
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, SecretStr, ValidationError, model_validator

from serve_app.access.limits import TenantLimits
from serve_app.aliases import Alias, AliasName
from serve_app.errors import ConfigurationInvalid
from serve_app.settings.model_args import ModelArgs, ModelEntry
from serve_app.settings.modes import LogFormat, Profile, RetentionMode
from serve_app.settings.values import (
    AbsolutePath,
    AdminKey,
    DatabaseUrl,
    Hosts,
    HubAddress,
    Origins,
    OutputUrl,
    PublicAddress,
    Switch,
    wrong_values,
)

STATE_DIRECTORY = Path("var")
DEFAULT_MODEL = "wan22_14b_t2v"

# Args that mean the one model of a service; with several, each entry of `models` has its own.
_OF_ONE_MODEL = frozenset({"model", "base_model", "transformer_model"})

# Environment variables, each honoured if the args do not set them: the reference server's, and one for each secret.
ENVIRONMENT = {
    "lora_root": "WORKFLOWS_BASE_PATH",
    "output_url": "OUTPUT_BASE_PATH",
    "lora_cache_dir": "LORA_DOWNLOAD_CACHE_DIR",
    "base_url": "BASE_URL",
    "hf_token": "HF_TOKEN",
    "webhook_secret": "WEBHOOK_SECRET",
    "database_url": "DATABASE_URL",
    "admin_key": "WAN_ADMIN_KEY",
    "offload": "OFFLOAD_MODE",
    "render_timeout_s": "INFERENCE_TIMEOUT",
}


class Settings(ModelArgs):
    """Args of the application. Unknown keys are refused; relative paths count from the working directory.

    Precedence: args, then the reference server's environment variables, then the default. Seconds are wall-clock.
    """

    # What `user_config` of a deployment may change while it runs; every other arg means a rolling restart.
    TUNABLE: ClassVar[frozenset[str]] = frozenset(
        {
            "base_url",
            "allowed_hosts",
            "max_body_bytes",
            "render_timeout_s",
            "max_attempts",
            "tenant_weights",
            "affinity_patience_s",
            "age_bound_s",
            "max_queued",
            "max_queued_per_tenant",
            "max_wait_s",
            "limits",
            "tenant_limits",
            "target_wait_s",
        }
    )

    profile: Profile = Profile.AUTO
    aliases: dict[AliasName, Alias] = Field(default_factory=dict)  # names for pairs, in OpenAI's API
    model: str = DEFAULT_MODEL
    models: tuple[ModelEntry, ...] = ()  # several; what an entry leaves out is what the args say
    lora_root: AbsolutePath = Path("loras")
    output_url: OutputUrl = f"{STATE_DIRECTORY}/outputs"
    # May hold a password, so it is not shown with the other settings.
    database_url: DatabaseUrl = Field(f"sqlite:///{STATE_DIRECTORY}/jobs.db", repr=False)
    base_url: PublicAddress = ""  # of links in answers; empty: the address that the client called
    # Hosts that may be named in links where base_url is empty: patterns with *. Silent: names that only this network
    # has; see api/links.py.
    allowed_hosts: Hosts | None = None
    log_format: LogFormat = LogFormat.TEXT  # of the log files; see docs/observability.md
    otlp_endpoint: str | None = Field(None, pattern=r"^https?://")  # of an OpenTelemetry collector; none: no traces
    body_timeout_s: float = Field(30, gt=0)  # for all of a request's body to arrive
    max_body_bytes: int = Field(4 * 1024**2, ge=1024)  # of a request, as sent and once decompressed
    hf_token: SecretStr | None = None  # for the base model's repositories, and for LoRAs of requests that bring none
    compile_cache_dir: AbsolutePath = STATE_DIRECTORY / "compile-cache"  # what `fast` compiled; replicas may share it
    max_loras_per_side: int = Field(1, ge=1, le=4)  # 1 is the reference server's rule
    # Streams of events that an Ingress has open at once: in all, and for one sender.
    max_listeners: int = Field(500, ge=1)
    max_listeners_per_sender: int = Field(100, ge=1)
    uploads: bool = False  # whether clients may store LoRAs in lora_root
    # Where LoRAs may come from besides lora_root. Hosts are patterns with *; a bucket is written s3://name.
    lora_hosts: tuple[str, ...] = ("*",)
    lora_private_hosts: Hosts = ()  # host or host:port that may be reached although its address is private
    lora_allow_http: bool = False
    lora_max_gib: float = Field(8, gt=0)  # of one file
    lora_header_max_mib: float = Field(8, gt=0, le=95)  # of one file, also a local one
    lora_download_timeout_s: float = Field(600, gt=0)
    lora_min_kib_per_s: float = Field(16, ge=0)  # of a web server; over ten seconds
    # Files of clients' addresses that an Ingress reads at once: in all, from one host, for one sender.
    fetch_threads: int = Field(64, ge=1, le=256)
    fetch_per_host: int = Field(8, ge=1)
    fetch_per_sender: int = Field(40, ge=1)
    lora_cache_dir: AbsolutePath = STATE_DIRECTORY / "lora-cache"  # downloads, shared by the replicas of a node
    lora_cache_gib: float = Field(50, gt=0)
    lora_cache_days: float | None = Field(None, gt=0)  # after its last use a file goes
    hub_endpoint: HubAddress | None = None  # silent: huggingface.co, or what HF_ENDPOINT says
    # Control images: where they may come from besides the request itself, and how large they may be.
    image_root: AbsolutePath | None = None  # silent: no paths
    image_hosts: tuple[str, ...] = ("*",)
    image_private_hosts: Hosts = ()  # as lora_private_hosts
    image_allow_http: bool = True  # as the reference server
    image_max_mib: float = Field(20, gt=0, le=256)  # of one file
    image_max_megapixels: float = Field(40, gt=0, le=89)  # beyond that Pillow itself warns of a decompression bomb
    image_max_frames: int = Field(1000, ge=1)  # of an animation, of which the first is used
    image_timeout_s: float = Field(30, gt=0)  # for all images of a request
    # Webhooks: what their signatures are made with, and where they may go, as with LoRAs. Without a secret: none.
    webhook_secret: SecretStr | None = Field(None, min_length=24)
    webhook_hosts: tuple[str, ...] = ("*",)
    webhook_private_hosts: Hosts = ()
    webhook_allow_http: bool = False
    webhook_timeout_s: float = Field(15, gt=0)  # for one attempt
    webhook_backoff_s: float = Field(5, gt=0)  # before the second attempt; doubled before each further one
    max_attempts: int = Field(3, ge=1)
    lease_s: float = Field(15, gt=0)
    heartbeat_s: float = Field(0.5, gt=0)
    sweep_s: float = Field(2, gt=0)
    prepare_ahead_s: float = Field(60, ge=0)  # before a render ends, the LoRA files of the next are fetched; 0: never
    # Who may call. Silent: everyone, as long as no key was made and the service listens on this machine alone.
    open: bool = False  # everyone, wherever it listens and whatever keys there are
    admin_key: AdminKey | None = Field(None, repr=False)  # an operator's, beside those in the job store; kept hashed
    key_cache_s: float = Field(5, gt=0, le=300)  # how long a key that was revoked may still be taken
    link_lifetime_s: float = Field(86_400, ge=60)  # of signed links to outputs
    cors_origins: Origins = ()  # of web pages that may call from elsewhere, as https://app.example.com; or *
    # What each tenant may use, and what differs for some of them; see access/limits.py.
    limits: TenantLimits = TenantLimits()
    tenant_limits: dict[str, TenantLimits] = Field(default_factory=dict)
    # What happens to requests that have ended, and to files that no request knows; see retention/.
    retention: Annotated[RetentionMode, Switch] = RetentionMode.OFF
    retention_days: float | None = Field(None, gt=0)  # after the end of a request
    retention_gib: float | None = Field(None, gt=0)  # of all outputs together; the oldest go first
    retention_grace_s: float = Field(3600, ge=600)  # what is younger is left alone
    retention_every_s: float = Field(600, gt=0)
    # Who gets the next free replica.
    trust_tenant_header: bool = False  # requests belong to the tenant that X-Tenant names; else all to one
    tenant_weights: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)  # shares; 1 if not named
    affinity_patience_s: float = Field(120, ge=0)  # how long a render may be passed for one whose pair is loaded
    age_bound_s: float = Field(900, gt=0)  # then a render goes before higher priorities of its tenant
    ingress_replicas: int = Field(1, ge=1)
    # Custom Ray resources that each Ingress and Dispatcher takes, so that they go to the nodes that have them, and keep
    # no node with a GPU from being given back.
    service_resources: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    dispatcher_lease_s: float = Field(5, gt=0)  # after a Dispatcher died without a word, another waits that long

    @classmethod
    def from_args(cls, args: Mapping[str, Any]) -> Self:
        """Validate the `args` of an application in `serve_config.yaml`.

        Raises:
            ConfigurationInvalid: an arg is unknown or has a wrong value; the message names it.
        """
        try:
            return cls(**args)
        except ValidationError as error:
            raise ConfigurationInvalid(f"args of serve_config.yaml: {wrong_values(error)}") from None

    def retuned(self, changes: Mapping[str, Any]) -> Self:
        """Return these settings with `changes`, as `user_config` has them.

        Raises:
            ConfigurationInvalid: a key is not one that can change while a deployment runs, or its value is wrong.
        """
        if fixed := sorted(changes.keys() - self.TUNABLE):
            raise ConfigurationInvalid(
                f"user_config: {', '.join(fixed)} cannot change in place; set it under args. These can: "
                f"{', '.join(sorted(self.TUNABLE))}"
            )
        try:
            return type(self).model_validate({**self._given(), **changes})
        except ValidationError as error:
            raise ConfigurationInvalid(f"user_config: {wrong_values(error)}") from None

    def limits_of(self, tenant: str) -> TenantLimits:
        """Return what a tenant may use."""
        return self.limits.with_own(self.tenant_limits.get(tenant))

    def _given(self) -> dict[str, Any]:
        """Return the values as args; entries of `models` as they are, since only they know what they leave out."""
        if not self.models:
            return self.model_dump()
        return {**self.model_dump(exclude={"models", *_OF_ONE_MODEL}), "models": self.models}

    def each_model(self) -> tuple[Self, ...]:
        """Return the settings of each model: its entry of `models`, and for the rest what the args say.

        Raises:
            ConfigurationInvalid: an entry and the args do not go together; names the entry.
        """
        if not self.models:
            return (self,)
        return tuple(self._of(entry, index) for index, entry in enumerate(self.models))

    def _of(self, entry: ModelEntry, index: int) -> Self:
        own = {key: getattr(entry, key) for key in entry.model_fields_set}
        try:
            return type(self).model_validate({**self.model_dump(exclude={"models"}), **own})
        except ValidationError as error:
            raise ConfigurationInvalid(f"models[{index}]: {wrong_values(error, 'args')}") from None

    @model_validator(mode="before")
    @classmethod
    def _environment(cls, args: Any) -> Any:
        if not isinstance(args, dict):
            return args
        return {field: os.environ[name] for field, name in ENVIRONMENT.items() if os.environ.get(name)} | args

    @model_validator(mode="before")
    @classmethod
    def _one_or_several(cls, args: Any) -> Any:
        if isinstance(args, dict) and args.get("models") and (beside := sorted(_OF_ONE_MODEL & args.keys())):
            raise ValueError(f"models: {', '.join(beside)} cannot stand beside it; put each into an entry of models")
        return args

    @model_validator(mode="after")
    def _beats_within_the_lease(self) -> Self:
        if self.heartbeat_s > self.lease_s / 3:
            raise ValueError("heartbeat_s must be at most a third of lease_s, or one late beat loses the lease")
        return self
