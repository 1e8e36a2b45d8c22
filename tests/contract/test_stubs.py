from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = {
    "java": "FlowServiceOuterClass.java",
    "csharp": "FlowService.cs",
    "cpp": "flow_service.pb.cc",
    "ruby": "flow_service_pb.rb",
    "php": "RunFlowRequest.php",
    "kotlin": "RunFlowRequestKt.kt",
}


@pytest.mark.stack
def test_other_languages_get_stubs_from_the_same_contract(tmp_path) -> None:
    template = {
        "version": "v2",
        # PHP knows no closed enums, and nobody needs the rules of buf.validate as code.
        "inputs": [{"directory": ".", "paths": ["proto/mediamesh"]}],
        "plugins": [{"protoc_builtin": name, "out": str(tmp_path / name)} for name in LANGUAGES],
    }
    config = tmp_path / "buf.gen.yaml"
    config.write_text(yaml.safe_dump(template))
    done = subprocess.run(
        ["buf", "generate", "--template", str(config)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for name, file in LANGUAGES.items():
        assert list((tmp_path / name).rglob(file)), f"{name}: no {file}"
