"""The real process: it starts, prints its address, and on SIGTERM loses no answer and exits with 0."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cir_vectorizer.errors import ModelError
from cir_vectorizer.service.names import served_name
from tests.support.serving import RED, wait_for

COMMAND = [sys.executable, "-m", "cir_vectorizer.cli", "serve"]


class Process:
    """`cir-vectorizer serve` on a free port; its log lines are read as they come."""

    def __init__(self, *options: str, **environment: str) -> None:
        self.lines: list[dict] = []
        self.raw: list[str] = []
        self.process = subprocess.Popen(
            [*COMMAND, "--port", "0", *options],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE", **environment},
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        for line in self.process.stderr:
            self.raw.append(line)
            if line.startswith("{"):
                self.lines.append(json.loads(line))

    def logged(self, text: str) -> list[str]:
        return [line["message"] for line in self.lines if text in line["message"]]

    def wait_until_ready(self) -> None:
        wait_for(lambda: self.logged("ready: serving") or self.process.poll() is not None, 120)
        assert self.process.poll() is None, self.raw
        self.port = int(re.search(r":(\d+) ", self.logged("Uvicorn running")[0])[1])

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


class Client(threading.Thread):
    """Send requests without a pause over a kept connection, until no connection can be made."""

    def __init__(self, port: int, number: int) -> None:
        super().__init__(daemon=True)
        self.port, self.number = port, number
        self.statuses: list[int] = []
        self.lost: list[str] = []

    def run(self) -> None:
        connection = None
        for turn in range(100_000):
            if connection is None:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
                try:
                    connection.connect()
                except OSError:
                    return
            query = {"image": RED, "text": f"is seen by {self.number} in turn {turn}"}
            try:
                connection.request("POST", "/vectorize", json.dumps({"texts": [json.dumps(query), "red"]}))
                answer = connection.getresponse()
                body = json.loads(answer.read())
                assert len(body["textVectors"]) == 2 or answer.status != 200
                self.statuses.append(answer.status)
                if answer.getheader("connection") == "close":
                    connection.close()
                    connection = None
            except Exception as error:
                self.lost.append(repr(error))
                connection = None


def stop_under_load() -> None:
    service = Process("--drain-seconds", "1")
    service.wait_until_ready()
    clients = [Client(service.port, number) for number in range(16)]
    for client in clients:
        client.start()
    time.sleep(1.0)
    service.process.send_signal(signal.SIGTERM)
    wait_for(lambda: service.ask("GET", "/.well-known/ready")[0] == 503, 60)
    status, body = service.ask("GET", "/.well-known/ready")
    assert (status, json.loads(body)["error"]) == (503, "stopping; new work goes elsewhere")
    assert service.ask("GET", "/.well-known/live")[0] == 204
    assert service.ask("POST", "/vectorize", {"texts": ["red"]})[0] == 200
    for client in clients:
        client.join(60)
    assert service.process.wait(60) == 0
    assert [client.lost for client in clients if client.lost] == []
    statuses = [status for client in clients for status in client.statuses]
    assert set(statuses) == {200}
    assert len(statuses) > 100
    assert service.logged("stopping")


def test_sigterm_under_load_loses_no_answer():
    stop_under_load()


@pytest.mark.slow
def test_sigterm_under_load_ten_times():
    for _ in range(10):
        stop_under_load()


def test_settings_come_from_options_and_environment(tmp_path: Path):
    keys = tmp_path / "keys"
    keys.write_text("shop:from-a-file\n")
    service = Process("--host", "0.0.0.0", CIR_MODEL="first=tiny second=tiny", CIR_API_KEYS_FILE=str(keys))
    try:
        service.wait_until_ready()
        assert service.logged("ready: serving first@")
        assert not service.logged("NO KEY")
        assert service.ask("GET", "/m/second/meta")[0] == 401
    finally:
        service.process.send_signal(signal.SIGTERM)
        service.process.send_signal(signal.SIGINT)  # a second signal ends the draining
        assert service.process.wait(60) == 0
    assert "from-a-file" not in "".join(service.raw)


def test_an_open_service_on_all_addresses_warns_and_a_wrong_model_stops_it():
    service = Process("--host", "0.0.0.0", "--model", "no-such-model")
    assert service.process.wait(120) == 1
    service.reader.join(10)
    assert service.logged("NO KEY IS CONFIGURED")
    assert service.raw[-1].startswith("error: no model 'no-such-model'")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--port", "99999"], "--port: "),
        (["--tls-cert", "cert.pem"], "tls_cert and tls_key go together"),
        (["--api-keys-file", "/nowhere/keys"], "cannot be read"),
        (["--log-level", "loud"], "--log-level: "),
    ],
)
def test_wrong_settings_are_one_sentence(options, sentence):
    result = subprocess.run([*COMMAND, *options], capture_output=True, text=True, timeout=120)
    assert result.returncode == 1
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("given", "name", "model"),
    [
        ("tiny", "tiny", "tiny"),
        ("/models/my-model/", "my-model", "/models/my-model/"),
        ("./my-model", "my-model", "./my-model"),
        ("shop=./my-model", "shop", "./my-model"),
        ("shop-1.5=open_clip:ViT-B-32,pretrained=x", "shop-1.5", "open_clip:ViT-B-32,pretrained=x"),
        ("open_clip:ViT-B-32,pretrained=x", "ViT-B-32", "open_clip:ViT-B-32,pretrained=x"),
        (
            "transformers:openai/clip-vit-base-patch32",
            "clip-vit-base-patch32",
            "transformers:openai/clip-vit-base-patch32",
        ),
    ],
)
def test_a_model_is_served_under_its_own_name_or_the_one_it_is_given(given, name, model):
    assert served_name(given) == (name, model)


@pytest.mark.parametrize("given", ["", "=tiny", "plain=tiny", "a@b=tiny", "a b=tiny", "/"])
def test_names_that_mean_something_else_are_refused(given):
    with pytest.raises(ModelError, match="NAME=MODEL"):
        served_name(given)


def test_help_lists_every_setting_with_its_variable():
    from cir_vectorizer.service.settings import Settings

    shown = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, timeout=60).stdout
    plain = re.sub(r"\s+", " ", shown)
    for name in Settings.model_fields:
        assert f"--{name.replace('_', '-')}" in plain
        assert f"CIR_{name.upper()}" in plain.replace("- ", "-")
