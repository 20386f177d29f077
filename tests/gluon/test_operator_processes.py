"""The operators in other processes: engines, workers of a data loader, builds, exported models."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from operator_cases import network


def python(code, **environment):
    """Run ``code`` in a new interpreter with additional environment variables."""
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def test_naive_engine_computes_results_and_gradients(operators):
    done = python(
        """
import cvops.mxnet
from cvops._mxnet import mxnet
mx = mxnet()
boxes = mx.nd.array([[0, 0, 2, 2], [1, 1, 3, 3]])
boxes.attach_grad()
with mx.autograd.record():
    iou = mx.nd.contrib.cvops_box_iou(boxes, boxes)
iou.backward()
print(iou.asnumpy().tolist()[0], boxes.grad.asnumpy().any())
""",
        MXNET_ENGINE_TYPE="NaiveEngine",
    )
    assert done.stdout == f"[1.0, {float(np.float32(1) / np.float32(7))}] False\n", done.stderr


class BoxIoUs:
    """A data set whose items an operator computes: item i is 1 / (i + 1)."""

    def __init__(self, mx):
        self.mx = mx

    def __len__(self):
        return 16

    def __getitem__(self, i):
        box = self.mx.nd.array([[0, 0, i + 1, 1]])
        return self.mx.nd.contrib.cvops_box_iou(box, self.mx.nd.array([[0, 0, 1, 1]]))


@pytest.mark.parametrize(
    ("workers", "threads"),
    [(2, True), (2, False), (0, False)],
    ids=["threads", "processes", "no workers"],
)
def test_operators_run_in_the_workers_of_a_data_loader(mx, operators, workers, threads):
    loader = mx.gluon.data.DataLoader(
        BoxIoUs(mx), batch_size=4, num_workers=workers, thread_pool=threads
    )
    got = np.concatenate([batch.asnumpy().ravel() for batch in loader])
    np.testing.assert_array_equal(got, np.float32(1) / np.arange(1, 17, dtype=np.float32))


def test_import_without_a_compiler_says_what_to_install(operators, tmp_path):
    done = python(
        """
import numpy as np, cvops
box = np.array([[0, 0, 1, 1]], np.float32)
assert cvops.box_iou(box, box) == 1
from cvops._mxnet import mxnet
assert cvops.box_iou(mxnet().nd.array(box), mxnet().nd.array(box)).asscalar() == 1
try:
    import cvops.mxnet
except ImportError as error:
    print(error)
""",
        CXX="/nowhere/g++",
        CVOPS_CACHE_DIR=str(tmp_path),
    )
    assert "apt-get install g++" in done.stdout, done.stderr
    assert "take MXNet's arrays without it" in done.stdout


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"CXX": 'g++ "'}, "CXX=.* is not a command: No closing quotation"),
        ({"CVOPS_CACHE_DIR": "{file}/x"}, "cannot be used .* CVOPS_CACHE_DIR"),
    ],
    ids=["CXX with an open quotation", "cache folder in a file"],
)
def test_bad_environment_of_the_build_is_rejected(operators, tmp_path, environment, message):
    file = tmp_path / "file"
    file.touch()
    environment = {key: value.format(file=file) for key, value in environment.items()}
    done = python("import cvops.mxnet", **{"CVOPS_CACHE_DIR": str(tmp_path), **environment})
    assert re.search(f"ImportError: .*{message}", done.stderr), done.stderr


def test_exported_model_loads_only_after_the_import(mx, operators, tmp_path):
    net = network(mx, lambda F, x: F.contrib.cvops_MultiBoxPrior(x), "hybridized")
    net(mx.nd.zeros((1, 1, 2, 2)))
    net.export(str(tmp_path / "net"))
    code = f"""
from cvops._mxnet import mxnet
mx = mxnet()
{{}}
print(mx.sym.load({str(tmp_path / "net-symbol.json")!r}).list_outputs())
"""
    done = python(code.format(""))
    assert "_contrib_cvops_MultiBoxPrior" in done.stderr, done.stdout
    done = python(code.format("import cvops.mxnet"))
    assert done.returncode == 0, done.stderr
