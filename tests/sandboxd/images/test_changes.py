"""Instructions that change an image's config."""

from __future__ import annotations

from typing import Any

import pytest

from sandboxd.errors import BadRequest
from sandboxd.images.changes import apply_changes


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ('CMD ["a", "b c"]', {"Cmd": ["a", "b c"]}),
        ("cmd a && b", {"Cmd": ["/bin/sh", "-c", "a && b"]}),
        ("CMD [broken", {"Cmd": ["/bin/sh", "-c", "[broken"]}),
        ('ENTRYPOINT ["/x"]', {"Entrypoint": ["/x"]}),
        ("ENV K the rest of it", {"Env": ["OLD=1", "K=the rest of it"]}),
        ('ENV A=1 B="2 3" OLD=2', {"Env": ["A=1", "B=2 3", "OLD=2"]}),
        ("EXPOSE 80 53/udp", {"ExposedPorts": {"80/tcp": {}, "53/udp": {}}}),
        ("LABEL a=b c='d e'", {"Labels": {"old": "1", "a": "b", "c": "d e"}}),
        ("ONBUILD RUN make", {"OnBuild": ["RUN make"]}),
        ("STOPSIGNAL SIGINT", {"StopSignal": "SIGINT"}),
        ("USER 1000:1000", {"User": "1000:1000"}),
        ('VOLUME ["/a b", "/c"]', {"Volumes": {"/a b": {}, "/c": {}}}),
        ("VOLUME /a /b", {"Volumes": {"/a": {}, "/b": {}}}),
        ("WORKDIR /abs", {"WorkingDir": "/abs"}),
        ("WORKDIR rel", {"WorkingDir": "/old/rel"}),
    ],
)
def test_each_instruction(change: str, expected: dict[str, Any]) -> None:
    before = {"Env": ["OLD=1"], "Labels": {"old": "1"}, "WorkingDir": "/old"}
    assert apply_changes(before, [change]) == {**before, **expected}
    assert before == {"Env": ["OLD=1"], "Labels": {"old": "1"}, "WorkingDir": "/old"}


@pytest.mark.parametrize(
    "change",
    [
        "",
        "RUN x",
        "CMD",
        "ENV",
        "ENV K",
        "ENV =x",
        "ENV A=1 B",
        'ENV A="x',
        "EXPOSE http",
        "LABEL x",
    ],
)
def test_what_is_malformed_is_refused(change: str) -> None:
    with pytest.raises(BadRequest):
        apply_changes({}, [change])
