"""A headless Chromium, driven over HTTP by chromedriver: no package is needed for it."""

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--hide-scrollbars", "--mute-audio"),
    "--autoplay-policy=no-user-gesture-required",
)
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of an element in the protocol
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def missing() -> str | None:
    """Why no browser can be driven here; None if one can."""
    if shutil.which("chromedriver") is None:
        return "chromedriver is not installed"
    return None if any(map(shutil.which, BROWSERS)) else "no Chromium is installed"


class Browser:
    """A session of chromedriver."""

    def __init__(self, port: int, profile: Path) -> None:
        self._base = f"http://127.0.0.1:{port}"
        binary = next(found for name in BROWSERS if (found := shutil.which(name)))
        options = {"binary": binary, "args": [*FLAGS, f"--user-data-dir={profile}"]}
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        session = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        self._base += f"/session/{session}"

    def open(self, path: Path) -> None:
        self._call("POST", "/url", {"url": path.absolute().as_uri()})

    def run(self, script: str, *arguments: Any) -> Any:
        """The value that JavaScript returns."""
        return self._call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def later(self, script: str) -> Any:
        """The value that JavaScript gives to `done`."""
        own = f"const done = arguments[0]; {script}"
        return self._call("POST", "/execute/async", {"script": own, "args": []})

    def find(self, selector: str) -> str:
        found = self._call("POST", "/element", {"using": "css selector", "value": selector})
        return str(found[ELEMENT])

    def click(self, selector: str) -> None:
        self._call("POST", f"/element/{self.find(selector)}/click", {})

    def write(self, selector: str, text: str) -> None:
        self._call("POST", f"/element/{self.find(selector)}/value", {"text": text})

    def press(self, *keys: str) -> None:
        """Press keys, wherever the focus is."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._call("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def tools(self, command: str, **values: Any) -> Any:
        """A command of the DevTools protocol."""
        return self._call("POST", "/goog/cdp/execute", {"cmd": command, "params": values})

    def resize(self, width: int, height: int = 900) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.tools("Emulation.setDeviceMetricsOverride", **metrics)

    def prefer(self, scheme: str) -> None:
        """`light` or `dark`; nothing moves, so that a click meets what it is meant for."""
        wanted = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
        features = [{"name": name, "value": value} for name, value in wanted.items()]
        self.tools("Emulation.setEmulatedMedia", features=features)

    def picture(self, path: Path, top: float, height: float, width: float) -> None:
        """A part of the page as a PNG file."""
        clip = {"x": 0, "y": top, "width": width, "height": height, "scale": 1}
        found = self.tools("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))

    def printed(self) -> bytes:
        """The page as a PDF file."""
        return base64.b64decode(self._call("POST", "/print", {}))

    def messages(self) -> list[str]:
        """Warnings and errors of the console since the last call."""
        found = self._call("POST", "/se/log", {"type": "browser"})
        return [each["message"] for each in found if each["level"] in ("WARNING", "SEVERE")]

    def requests(self) -> list[str]:
        """Addresses asked for since the last call, but data within the page and the browser's own."""
        found = self._call("POST", "/se/log", {"type": "performance"})
        events = [json.loads(each["message"])["message"] for each in found]
        sent = [each["params"]["request"]["url"] for each in events if each["method"] == "Network.requestWillBeSent"]
        return [url for url in sent if not url.startswith(("data:", "chrome"))]

    def close(self) -> None:
        self._call("DELETE", "", None)

    def _call(self, method: str, path: str, values: Any) -> Any:
        body = None if values is None else json.dumps(values).encode()
        request = urllib.request.Request(self._base + path, body, {"Content-Type": "application/json"}, method=method)
        try:
            with _OPENER.open(request, timeout=120) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            with error:
                raise RuntimeError(json.load(error)["value"]["message"]) from None


@contextmanager
def started(folder: Path) -> Iterator[Browser]:
    """A browser with a new profile in `folder`, which is ended with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(port)
        browser = Browser(port, folder / "profile")
        try:
            yield browser
        finally:
            browser.close()
    finally:
        driver.terminate()
        driver.wait(timeout=20)


def _wait(port: int) -> None:
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError("chromedriver did not start")
