"""Which key may go to which server: to its own service, to this machine, or where its owner allowed it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from tunewright import console
from tunewright.errors import RecipeError
from tunewright.recipe import Recipe
from tunewright.settings import EMBEDDED, LOCAL, SELF, TeacherSettings
from tunewright.storage import write_atomic

_HOST = re.compile(r"[\w.-]+|[0-9a-f:.]*:[0-9a-f:.]*(?:%\w+)?")
KeyState = Literal["its own service", "this machine", "allowed", "not allowed yet", "never"]


class Service(NamedTuple):
    """A service whose key has a well-known name.

    Attributes:
        names: pattern of the names of its environment variables.
        hosts: the addresses of its models, which get the key without a question.
        domains: where else its owner may allow it; None: anywhere.
    """

    names: str
    hosts: tuple[str, ...] = ()
    domains: tuple[str, ...] | None = ()


class KeyUse(NamedTuple):
    """A key that a recipe sends to a server.

    Attributes:
        section: "teacher" or "judge".
        name: of the environment variable.
        origin: scheme, host and port of the server.
    """

    section: str
    name: str
    origin: str

    @property
    def binding(self) -> str:
        """The key and its server as ``--allow-key`` takes them."""
        return f"{self.name}@{self.origin}"

    @property
    def state(self) -> KeyState:
        """Whether the key may go there, and why."""
        parts = urlsplit(self.origin)
        host = parts.hostname or ""
        service = next((entry for entry in SERVICES if re.fullmatch(entry.names, self.name, re.IGNORECASE)), None)
        if service and host in service.hosts and parts.scheme == "https":
            return "its own service"
        if service and service.domains is not None and not _is_in(host, (*service.hosts, *service.domains)):
            return "never"
        if self.binding in _session or self.binding in _remembered():
            return "allowed"
        return "this machine" if not service and _is_loopback(host) else "not allowed yet"


def _is_in(host: str, domains: Sequence[str]) -> bool:
    return any(host == domain or host.endswith(f".{domain}") for domain in domains)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def origin(url: str) -> str:
    """Return scheme, host and port (if not the scheme's own) of a URL; "" for text that is no URL.

    No host has a backslash or a percent code: another parser, which opens the connection, ends the host there.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return ""
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not _HOST.fullmatch(host):
        return ""
    host = f"[{host}]" if ":" in host else host
    own = {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{host}" + (f":{port}" if port not in (None, own) else "")


def key_uses(settings: TeacherSettings, section: str) -> Iterator[KeyUse]:
    """Yield where the settings' key goes: once per server; nothing without a key."""
    if settings.api_key_env and settings.url not in ("", EMBEDDED, LOCAL, SELF):
        origins = dict.fromkeys(filter(None, map(origin, settings.urls)))
        yield from (KeyUse(section, settings.api_key_env, where) for where in origins)


def recipe_keys(recipe: Recipe) -> list[KeyUse]:
    """Return where the keys of a recipe go."""
    judge = key_uses(recipe.judge.as_teacher, "judge") if recipe.judge.url else ()
    return [*key_uses(recipe.teacher, "teacher"), *judge]


def require_allowed(uses: Sequence[KeyUse]) -> None:
    """Refuse to send a key where its owner did not allow it; ask first in a terminal.

    Raises:
        RecipeError: a key belongs to another service, or is not allowed for this server yet.
    """
    for use in uses:
        if use.state == "never":
            raise RecipeError(
                f"{use.name} is the key of another service and is not sent to {use.origin}",
                f"{use.section}.api_key_env names it; a recipe of someone else could collect your keys so",
                "if that server has a key for you, export it under a name of its own: "
                f"--set {use.section}.api_key_env=TEACHER_API_KEY",
            )
    waiting = [use for use in uses if use.state == "not allowed yet"]
    for use in waiting:
        question = f"The {use.section} at {use.origin} gets the key in {use.name}. Allow it, now and later?"
        if console.confirm(question):
            allow(use.binding)
    if refused := [use for use in waiting if use.state == "not allowed yet"]:
        options = " ".join(f"--allow-key {use.binding}" for use in refused)
        raise RecipeError(
            f"the key in {refused[0].name} is not allowed for {refused[0].origin} yet",
            f"the recipe sends it there ({refused[0].section}.api_key_env), and a recipe may come from someone else",
            f"if that is meant, add once: {options}",
        )


_session: set[str] = set()  # allowed in this process, even where nothing can be remembered


def bindings_file() -> Path:
    """Return the file of the user that remembers the allowed keys and servers, a NAME@ORIGIN a line."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "tunewright" / "keys"


def _remembered() -> list[str]:
    try:
        return bindings_file().read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError):
        return []


def allow(binding: str) -> None:
    """Allow a key for a server, NAME@ORIGIN, and remember it.

    Raises:
        RecipeError: it is not NAME@ORIGIN, or the key belongs to another service.
    """
    name, _, url = binding.partition("@")
    use = KeyUse("teacher", name, origin(url))
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or not use.origin or console.url_secret(url, is_url=True):
        raise RecipeError(
            "--allow-key is not NAME@ORIGIN",
            "NAME is an environment variable, ORIGIN the scheme and host of a server",
            "for example --allow-key TEACHER_API_KEY@https://api.example.com",
        )
    if use.state == "never":
        require_allowed([use])
    _session.add(use.binding)
    if use.binding in (known := _remembered()):
        return
    try:
        write_atomic(bindings_file(), "".join(f"{line}\n" for line in [*known, use.binding]).encode(), private=True)
    except OSError as error:
        console.warning(f"{use.binding} is allowed for this command only: {bindings_file()}: {error.strerror}")


# First match. Teachers' services may share a key's name with compatible servers, where the owner allows it; the keys of
# other services go nowhere else.
SERVICES = (
    Service("OPENAI_.*", ("api.openai.com",), None),
    Service("(ANTHROPIC|CLAUDE)_.*", ("api.anthropic.com",), None),
    Service("(GEMINI|GOOGLE)_API_KEY", ("generativelanguage.googleapis.com",), None),
    Service("MISTRAL_API_KEY", ("api.mistral.ai",), None),
    Service("GROQ_API_KEY", ("api.groq.com",), None),
    Service("TOGETHER_API_KEY", ("api.together.xyz", "api.together.ai"), None),
    Service("OPENROUTER_API_KEY", ("openrouter.ai",), None),
    Service("DEEPSEEK_API_KEY", ("api.deepseek.com",), None),
    Service("FIREWORKS_API_KEY", ("api.fireworks.ai",), None),
    Service("XAI_API_KEY", ("api.x.ai",), None),
    Service("CEREBRAS_API_KEY", ("api.cerebras.ai",), None),
    Service("NVIDIA_API_KEY", ("integrate.api.nvidia.com",), None),
    Service("(CO|COHERE)_API_KEY", ("api.cohere.com", "api.cohere.ai"), None),
    Service("DASHSCOPE_API_KEY", ("dashscope.aliyuncs.com", "dashscope-intl.aliyuncs.com"), None),
    Service("AZURE_OPENAI_API_KEY", (), None),
    Service(
        "HF_.*|HUGGING_?FACE.*",
        ("router.huggingface.co", "api-inference.huggingface.co"),
        ("huggingface.co", "endpoints.huggingface.cloud"),
    ),
    Service("(GITHUB|GH)_.*", ("models.github.ai",), ("github.ai", "github.com", "models.inference.ai.azure.com")),
    Service("AWS_.*", (), ("amazonaws.com",)),
    Service("(AZURE|ARM)_.*", (), ("azure.com", "azure.us", "azure.cn")),
    Service("(GOOGLE|GCP|GCLOUD|CLOUDSDK)_.*", (), ("googleapis.com",)),
    Service("(ALIBABA|ALIYUN|ALICLOUD|OSS)_.*", (), ("aliyuncs.com",)),
    Service("TENCENT.*", (), ("tencentcloudapi.com", "myqcloud.com", "tencent.com")),
    Service("OCI_.*", (), ("oraclecloud.com",)),
    Service("(IBM|IBMCLOUD|WATSONX)_.*", (), ("ibm.com",)),
    Service("DATABRICKS_.*", (), ("databricks.com", "azuredatabricks.net")),
    Service("SNOWFLAKE_.*", (), ("snowflakecomputing.com",)),
    Service("MODAL_.*", (), ("modal.com", "modal.run", "modal.direct")),
    Service("RUNPOD_.*", (), ("runpod.ai", "runpod.net")),
    Service("CLOUDFLARE_.*|CF_API_.*", (), ("cloudflare.com",)),
    Service("DIGITALOCEAN_.*|DO_API_.*", (), ("digitalocean.com", "do-ai.run")),
    Service("VERCEL_.*", (), ("vercel.com", "vercel.sh")),
    Service(
        "(GITLAB|CI_JOB|ACTIONS|RUNNER|CIRCLE|BUILDKITE|TRAVIS|BITBUCKET|NPM|NODE_AUTH|PYPI|TWINE|UV_PUBLISH|CARGO|CONDA"
        "|ANACONDA|DOCKER|QUAY|ARTIFACTORY|JFROG|NEXUS|HOMEBREW|CODECOV|SONAR|KUBE|SSH|GPG|VAULT|TF|ANSIBLE|JENKINS"
        "|WANDB|MLFLOW|TRACKIO|COMET|NEPTUNE|KAGGLE|LANGCHAIN|LANGSMITH|LANGFUSE|PINECONE|QDRANT|WEAVIATE|SUPABASE"
        "|FIREBASE|SLACK|DISCORD|TELEGRAM|TWILIO|TWITTER|REDDIT|SPOTIFY|NOTION|LINEAR|JIRA|ATLASSIAN|AIRTABLE|FIGMA"
        "|SENDGRID|MAILGUN|STRIPE|PAYPAL|SHOPIFY|COINBASE|BINANCE|SENTRY|DD|DATADOG|NEW_RELIC|GRAFANA|PAGERDUTY|OKTA"
        "|AUTH0|NGROK|TAILSCALE|NETLIFY|HEROKU|FLY|LINODE|HCLOUD|S3|R2|B2|MINIO|RESTIC|BORG|PG|POSTGRES|MYSQL|REDIS"
        "|MONGO|DATABASE|SMTP|MAIL|OP|BW|SUDO|HTTPS?|ALL)_.*|PGPASSWORD"
    ),
)
