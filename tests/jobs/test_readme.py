"""What README shows does what it says."""

import re
import shlex

import pytest

from tests.cluster import REPOSITORY, Cluster


@pytest.mark.quick
def test_the_first_script(cluster: Cluster) -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    script = re.search(r"```python\n# (\S+)\n(.*?)```", text, re.DOTALL)
    assert script is not None
    name, source = script.groups()
    assert len(source.split("\n\n", 1)[1].splitlines()) <= 15
    command = re.search(rf"^ +launch\.py (.* {name}) ", text, re.MULTILINE)
    assert command is not None
    cluster.script(source, name)
    run = cluster.run(*shlex.split(command[1]))
    number = r" *(-?[\d.]+)"
    found = re.findall(rf"worker \d \| loss (\S+) weights \[\[{number}{number} *\]\]", run.out)
    assert len(found) == 2, run.out
    assert found[0][1:] == found[1][1:]
    for loss, *weights in found:
        assert float(loss) < 1e-4
        assert [float(weight) for weight in weights] == pytest.approx([3, -2], abs=0.01)
