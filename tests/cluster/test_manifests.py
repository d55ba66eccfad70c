"""The manifests in the docs are what Kubernetes and KubeRay take, and the dashboard shows metrics that there are."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from audiomixer.service.cluster.nodes import CONFIG
from audiomixer.service.settings import Settings
from tests.service.api import Api

DOCS = Path(__file__).parent.parent.parent / "docs"
FOLDER = DOCS / "kubernetes"
KUBERAY = "github.com/ray-project/kuberay/ray-operator@v1.5.0"


def manifests(name: str) -> list[Any]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def test_control_is_what_kubernetes_takes() -> None:
    for manifest in manifests("control.yaml"):
        kubernetes_validate.validate(manifest, "1.31", strict=True)


def test_control_has_settings_that_there_are() -> None:
    (container,) = manifests("control.yaml")[1]["spec"]["template"]["spec"]["containers"]
    given = {entry["name"].removeprefix("AUDIOMIXER_").lower(): entry["value"] for entry in container["env"]}
    assert given.keys() <= Settings.model_fields.keys()
    assert given["engine"] == "ray"


@pytest.mark.timeout(120)
def test_workers_are_what_kuberay_takes() -> None:
    if shutil.which("go") is None:
        pytest.skip("KubeRay's schema comes by Go, which is not installed")
    fetched = subprocess.run(
        ["go", "mod", "download", "-json", KUBERAY],
        env={**os.environ, "GOFLAGS": "-modcacherw"},
        cwd="/",
        capture_output=True,
        check=True,
    )
    folder = Path(json.loads(fetched.stdout)["Dir"]) / "config" / "crd" / "bases"
    crd = yaml.safe_load((folder / "ray.io_rayclusters.yaml").read_text())
    schema = next(version for version in crd["spec"]["versions"] if version["name"] == "v1")["schema"]
    (manifest,) = manifests("workers.yaml")
    jsonschema.validate(manifest, schema["openAPIV3Schema"])
    config = manifest["spec"]["headGroupSpec"]["rayStartParams"]["system-config"].strip("'")
    assert json.loads(config) == json.loads(CONFIG), "a lost machine is known to be as soon as in the tests"


async def test_the_dashboard_shows_metrics_that_there_are(api: Api) -> None:
    await api.processor("lounge", await api.streamer())
    text = (await api.client.get(f"{api.url}/metrics")).text
    known = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    dashboard = json.loads((DOCS / "grafana.json").read_text())
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel.get("targets", [])
        for name in re.findall(r"audiomixer_\w+", target["expr"])
    }
    assert asked
    assert asked <= known
