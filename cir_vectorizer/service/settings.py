"""Every setting of the service: a field here is an option of `serve` and a `CIR_…` environment variable.

Imports no torch, so that `serve --help` is fast.
"""

import json
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from typing_extensions import Self

from cir_vectorizer.backbones.precision import Precision

MIB = 2**20
PREFIX = "CIR_"
"""Prefix of the environment variables."""
_ORIGIN = re.compile(r"https?://[^\s/?#]+")
_SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://\S+:\d+")


def _words(value: Any) -> Any:
    """Return the list that an environment variable holds: words separated by spaces, or JSON."""
    if not isinstance(value, str):
        return value
    return json.loads(value) if value.lstrip().startswith("[") else value.split()


def _devices(value: Any) -> Any:
    """Return the devices in a setting, which commas may separate too."""
    words = _words(value)
    return [device for word in words for device in str(word).split(",")] if isinstance(words, list | tuple) else words


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)]
Devices = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_devices)]


def variable(field: str) -> str:
    """Return the environment variable of a setting."""
    return PREFIX + field.upper()


def service_links() -> dict[str, str]:
    """Return Kubernetes' own variables that have the name of a setting.

    For a Service called `cir`, every pod of its namespace gets CIR_PORT=tcp://10.96.0.12:8000; for `cir-grpc`,
    CIR_GRPC_PORT.
    """
    ports = [variable(field) for field in Settings.model_fields if field.endswith("port")]
    return {name: os.environ[name] for name in ports if _SERVICE_LINK.fullmatch(os.environ.get(name, ""))}


class _Environment(EnvSettingsSource):
    """The environment, without Kubernetes' own variables."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        value, key, is_complex = super().get_field_value(field, field_name)
        return None if variable(field_name) in service_links() else value, key, is_complex


def weaviates_own() -> dict[str, str]:
    """Return the settings that Weaviate's Helm chart and compose files mean by the variables of its inference images.

    There, ENABLE_CUDA chooses between GPU and CPU, CUDA_CORE may name the GPU, and the port is always 8080. As these
    come with the deployment, they override the device that an image sets.
    """
    enabled = os.environ.get("ENABLE_CUDA")
    if enabled is None:
        return {}
    port = variable("port")
    meant = {"port": "8080"} if port not in os.environ or port in service_links() else {}
    cuda = enabled in ("1", "true")
    if not cuda or not os.environ.get(variable("device"), "").startswith("cuda:"):
        meant["device"] = (os.environ.get("CUDA_CORE") or "cuda") if cuda else "cpu"
    return meant


class Settings(BaseSettings):
    """Settings of the service. Durations are in seconds, sizes in bytes unless the text says MiB."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    model: Words = Field(
        ("tiny",),
        description="Model to serve: folder, built-in name or loader:name; NAME=MODEL names it. Repeat for several; the first is the default.",
    )
    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for all.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    device: Devices = Field(
        (),
        description="cpu, cuda, cuda:1, mps; the best one present if not given. Several, as cuda:0,cuda:1, hold a copy of each model and share one queue.",
    )
    dtype: Literal["float32", "float16", "bfloat16"] = Field(
        "float32", description="Keep the weights in float32, float16 or bfloat16; the last two are for a GPU."
    )
    half: bool = Field(False, description="The same as dtype float16.")
    precision: Precision | None = Field(
        None,
        description="auto: bfloat16 weights if the processor or GPU computes in it, else float32. Or float32, bfloat16, float16, int8. float32 if not given.",
    )
    check_pictures: Path | None = Field(
        None, description="Folder of your pictures on which precision int8 is checked against float32, if sync did not."
    )

    compile: bool = Field(False, description="Compile CompoDiff's network: a slower start, faster queries.")

    collection: Words = Field(
        (),
        description="Collection to search at /v1/search and on the page: an address as for sync; NAME=ADDRESS names it. Behind it, ?using=…&tenant=…&grpc_port=…&picture_column=… are for this collection alone. Repeat for several; the first is the default.",
    )
    picture_column: str | None = Field(
        None,
        description="Collections: column with the URL or path of the picture, in objects that sync did not write.",
    )
    using: str | None = Field(None, description="Collections: name of the vector, where objects have several.")
    tenant: str | None = Field(None, description="Collections: tenant of a Weaviate collection.")
    grpc: bool = Field(False, description="Collections: speak gRPC to Qdrant.")
    grpc_port: int | None = Field(
        None, ge=1, le=65535, description="Collections: gRPC port of Qdrant or Weaviate; the usual one if not given."
    )
    max_results: int = Field(1000, ge=1, le=10_000, description="Most results of a search.")
    thumbnail_mib: int = Field(64, ge=0, description="Size of the cache of thumbnails.")

    api_keys: SecretStr = Field(
        SecretStr(""),
        description="Accepted keys, as ID:SECRET or SECRET, separated by commas or spaces. Set them in the environment or a file rather than on the command line.",
    )
    api_keys_file: Path | None = Field(
        None, description="File of keys, one ID:SECRET or SECRET a line; read again when it changes."
    )
    admin_keys: SecretStr = Field(
        SecretStr(""),
        description="Keys that may load and unload models by POST and DELETE of /v1/models, as in api_keys; without any, nobody may.",
    )
    admin_keys_file: Path | None = Field(None, description="File of admin keys, as api_keys_file.")
    model_folders: Words = Field(
        (),
        description="Folder below which POST /v1/models may load models; the folder of downloaded models ($CIR_MODELS) if not given. Repeat for several.",
    )
    allow_hub: bool = Field(
        False, description="Let POST /v1/models load published models and backbones of the hub too, by name."
    )
    tls_cert: Path | None = Field(None, description="Certificate chain (PEM): serve HTTPS.")
    tls_key: Path | None = Field(None, description="The certificate's private key (PEM).")

    import_wait: float = Field(20, ge=0, description="How long the Weaviate door waits for room before it answers 429.")
    max_search_wait: float = Field(
        2.5, gt=0, description="Longest queue of searches, as estimated work; beyond it, searches get 429."
    )
    max_update_wait: float = Field(
        15, gt=0, description="Longest queue of updates, as estimated work; beyond it, updates get 429."
    )
    request_timeout: float = Field(
        50, gt=0, description="Deadline of a request; the header X-Request-Timeout asks for an earlier one."
    )
    body_timeout: float = Field(20, gt=0, description="How long a request's body may take to arrive.")
    drain_seconds: float = Field(5, ge=0, description="How long to keep serving after SIGTERM, while not ready.")
    keep_alive: int = Field(
        120, ge=1, description="How long an idle connection is kept; Weaviate and Qdrant keep theirs 90 s."
    )

    max_body_mib: int = Field(64, ge=1, description="Largest request body.")
    max_bodies_mib: int = Field(512, ge=1, description="Largest total of request bodies held at once.")
    max_items: int = Field(2048, ge=1, description="Most texts, pictures and queries in a request.")
    max_text: int = Field(
        8 * MIB, ge=1, description="Most characters in a plain text; text beyond the model's context is cut off."
    )
    max_picture_mib: int = Field(32, ge=1, description="Largest encoded picture.")
    max_megapixels: int = Field(64, ge=1, description="Most pixels of a picture, in millions.")
    cache_mib: int = Field(256, ge=0, description="Size of the cache of picture embeddings.")
    host_threads: int | None = Field(
        None, ge=1, description="Threads that decode and tokenise; one per core if not given."
    )
    picture_batch: int | None = Field(
        None, ge=1, description="Most pictures in a batch; 16 on a CPU, else 128, if not given."
    )
    text_batch: int | None = Field(
        None, ge=1, description="Most texts in a batch; 64 on a CPU, else 512, if not given."
    )

    allow_urls: bool = Field(False, description="Fetch pictures that are given by URL.")
    url_hosts: Words = Field(
        (),
        description="Hosts that pictures are fetched from, for example images.shop.example or *.cdn.example; any public host if not given. Repeat for several.",
    )
    url_timeout: float = Field(10, gt=0, description="How long fetching one picture may take.")

    cors: Words = Field(
        (),
        description="Origin whose pages browsers let ask this service, for example https://shop.example; * for any. Repeat for several.",
    )

    preload_only: bool = Field(
        False,
        description="Fetch and check the weights of --model, and exit: for an image's build or an init container.",
    )

    log_level: str = Field(
        "info", pattern="(?i)^(debug|info|warning|error)$", description="debug, info, warning or error."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, InitSettingsSource(settings_cls, {**weaviates_own()}), _Environment(settings_cls)

    @field_validator("cors")
    @classmethod
    def _origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for each in origins:
            if each != "*" and not _ORIGIN.fullmatch(each):
                raise ValueError(
                    f"{each!r} is no origin; write scheme and host as browsers do, for example https://shop.example"
                )
        return origins

    @model_validator(mode="after")
    def _certificate_has_key(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together; give both or neither")
        return self

    @model_validator(mode="after")
    def _half_is_float16(self) -> Self:
        if self.half and "dtype" in self.model_fields_set and self.dtype != "float16":
            raise ValueError(f"half means dtype float16, but dtype is {self.dtype}; give one of the two")
        return self

    @model_validator(mode="after")
    def _one_precision(self) -> Self:
        given = self.half or "dtype" in self.model_fields_set
        if given and self.precision not in (None, self._dtype):
            raise ValueError(f"precision {self.precision} and dtype {self._dtype} differ; give one of the two")
        return self

    @property
    def weights(self) -> Precision:
        """Precision of the weights: `precision`, or else `dtype`, or float16 if `half` is set."""
        return self.precision or self._dtype

    @property
    def _dtype(self) -> Literal["float32", "float16", "bfloat16"]:
        return "float16" if self.half else self.dtype

    @property
    def max_body_bytes(self) -> int:
        """Largest request body."""
        return self.max_body_mib * MIB
