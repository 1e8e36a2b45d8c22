from __future__ import annotations

import pytest

from mediamesh.client.flow_files import read_flow_source
from mediamesh.wire.errors import InvalidRequest


def test_a_flow_brings_the_flows_that_it_names_and_that_these_name(tmp_path) -> None:
    (tmp_path / "parts").mkdir()
    main = tmp_path / "main.mlab"
    main.write_text("- {id: a, flow: parts/a.mlab}\n- id: b\n  flow: 'b c.mlab'\n- {id: c, flow: gone.mlab}")
    (tmp_path / "parts/a.mlab").write_text('- {id: x, "flow": "../b c.mlab"}\n- {id: y, flow: d.mlab}')
    (tmp_path / "parts/d.mlab").write_text("- {id: again, flow: ../main.mlab}\n- {id: t, flow: d.mlab}")
    (tmp_path / "b c.mlab").write_text("nothing: flow.mlab")
    source = read_flow_source(main)
    assert (source.name, source.yaml[:5]) == ("main.mlab", "- {id")
    assert [file.name for file in source.files] == ["b c.mlab", "parts/a.mlab", "parts/d.mlab"]


def test_no_other_file_is_read(tmp_path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "large.mlab").write_text("x" * (1024 * 1024 + 1))
    main = tmp_path / "main.mlab"
    main.write_text(f"flow: secret.txt\nflow: {tmp_path}/main.mlab\nflow: large.mlab")
    assert not read_flow_source(main).files


def test_a_file_that_is_not_there_is_named(tmp_path) -> None:
    with pytest.raises(InvalidRequest, match=r"none\.mlab cannot be read"):
        read_flow_source(tmp_path / "none.mlab")


def test_flows_that_name_ever_more_flows_end(tmp_path) -> None:
    for number in range(80):
        (tmp_path / f"{number}.mlab").write_text(f"flow: {number + 1}.mlab")
    with pytest.raises(InvalidRequest, match="more than 64 flows"):
        read_flow_source(tmp_path / "0.mlab")
