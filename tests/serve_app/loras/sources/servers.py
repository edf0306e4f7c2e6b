"""LoRA files as servers have them, and a stand-in for the Hugging Face Hub."""

import json
from dataclasses import dataclass
from random import Random

from tests.fixtures.web_server import Exchange, File, Page, WebServer, sha256
from tests.serve_app.loras.files import raw


def lora_bytes(seed: int = 0, floats: int = 100_000, **metadata: str) -> bytes:
    """Return a safetensors file of about 400 kB."""
    entry = {"dtype": "F32", "shape": [floats], "data_offsets": [0, 4 * floats]}
    return raw({"__metadata__": metadata, "a": entry}, Random(seed).randbytes(4 * floats))


COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB_TOKEN = "hf_thetokenofthetest"  # noqa: S105


@dataclass
class HubStandIn:
    """As much of the Hub's API as huggingface_hub needs for one model repository, and the CDN behind it."""

    server: WebServer
    cdn: WebServer
    files: dict[str, bytes]
    repository: str = "me/pair"
    commit: str = COMMIT
    branches: tuple[str, ...] = ("main",)
    gated: bool = False
    small: tuple[str, ...] = ()  # files that git itself holds: no SHA-256, and no CDN

    def publish(self) -> None:
        """Have the servers answer for the files."""
        for revision in (*self.branches, self.commit):
            escaped = revision.replace("/", "%2F")
            self.server.pages[f"/api/models/{self.repository}/revision/{escaped}"] = self._info
            self.server.pages[f"/api/models/{self.repository}/tree/{escaped}"] = self._tree
            for name in self.files:
                self.server.pages[f"/{self.repository}/resolve/{escaped}/{name}"] = self._resolve(name)
        self.server.pages[f"/api/models/{self.repository}"] = self._info
        for content in self.files.values():
            self.cdn.pages[f"/{sha256(content)}"] = File(content)

    def _info(self, exchange: Exchange, _count: int) -> None:
        siblings = [{"rfilename": name} for name in self.files]
        body = {"id": self.repository, "sha": self.commit, "siblings": siblings}
        exchange.answer(200, json.dumps(body).encode(), Content_Type="application/json")

    def _tree(self, exchange: Exchange, _count: int) -> None:
        entries = [
            {
                "type": "file",
                "path": name,
                "size": len(content),
                "oid": f"{len(name):040x}",
                **(
                    {}
                    if name in self.small
                    else {"lfs": {"oid": sha256(content), "size": len(content), "pointerSize": 130}}
                ),
            }
            for name, content in self.files.items()
        ]
        exchange.answer(200, json.dumps(entries).encode(), Content_Type="application/json")

    def _resolve(self, name: str) -> Page:
        def page(exchange: Exchange, count: int) -> None:
            content = self.files[name]
            known = {"X_Repo_Commit": self.commit}
            if self.gated and exchange.headers.get("Authorization") != f"Bearer {HUB_TOKEN}":
                exchange.answer(403, X_Error_Code="GatedRepo", X_Error_Message="Access is restricted")
            elif name in self.small:
                File(content, etag='"gitblob"', extra=known)(exchange, count)
            else:
                exchange.answer(
                    302,
                    Location=f"{self.cdn.url}/{sha256(content)}?X-Signature=secret",
                    X_Linked_Etag=f'"{sha256(content)}"',
                    X_Linked_Size=str(len(content)),
                    **known,
                )

        return page
