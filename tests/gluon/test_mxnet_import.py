"""The import of MXNet by cvops, with each version of NumPy and Python."""

import subprocess
import sys

import pytest

WITH_MXNET = """
import numpy
before = set(dir(numpy))
from cvops._mxnet import mxnet
assert "mxnet" not in __import__("sys").modules, "mxnet is imported too early"
mx = mxnet()
"""


def python(code, *options):
    """The output of ``code`` in a new interpreter, where a warning is an error."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *options, "-c", code], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


@pytest.fixture(scope="module", autouse=True)
def needs_mxnet():
    pytest.importorskip("cvops._mxnet")
    import importlib.util

    if importlib.util.find_spec("mxnet") is None:
        pytest.skip("no mxnet here")


def test_import_of_mxnet_is_silent_and_leaves_numpy_unchanged():
    python(
        WITH_MXNET
        + """
added = set(dir(numpy)) - before
assert not added & {"bool", "PZERO", "alltrue", "in1d", "mirr"}, added
assert mx.__version__ == "1.9.1"
assert mxnet() is mx
assert mx.nd.array([[1, 2], [3, 4]]).sum().asscalar() == 10
"""
    )


def test_callers_import_of_mxnet_works_after_that_of_cvops():
    """Each form of the import works. NumPy and the loaders of other packages stay unchanged."""
    for line in ("from mxnet import nd", "import mxnet.ndarray as nd", "from cvops import contrib"):
        python(
            f"""
import sys
import numpy
before = set(dir(numpy))
import cvops
assert "mxnet" not in sys.modules
{line}
import mxnet as mx
from mxnet import nd
from cvops._mxnet import mxnet, find_old_packages
assert mxnet() is mx
finders = list(sys.meta_path)
find_old_packages()
assert sys.meta_path == finders
assert not (set(dir(numpy)) - before) & {{"bool", "PZERO", "alltrue", "in1d", "mirr"}}
assert nd.array([[1, 2], [3, 4]]).sum().asscalar() == 10
assert cvops.contrib.box_iou(nd.ones((1, 4)), nd.ones((1, 4))).shape == (1, 1)
mx.recordio.pack(mx.recordio.IRHeader(0, [1.0], 0, 0), b"")
import json, email.message
assert "cvops" not in type(json.__loader__).__module__
"""
        )


def test_import_works_after_a_failed_import_of_mxnet():
    """As in a notebook, the submodules of the failed import are still in memory."""
    python(
        """
import sys
import warnings
import numpy
finders = list(sys.meta_path)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    try:
        import mxnet
    except (AttributeError, ImportError):
        pass
    else:  # this NumPy and this Python have all names that MXNet uses
        raise SystemExit
import cvops
import mxnet as mx
assert mx.np.ones((2,), dtype=bool).dtype == bool
assert mx.nd.ones((2, 3)).sum().asscalar() == 6
"""
    )


def test_names_removed_from_numpy_work_inside_mxnet():
    python(
        WITH_MXNET
        + """
assert mx.np.ones((2,), dtype=bool).dtype == bool
assert mx.np.pad(mx.np.ones((1, 1)), ((1, 0), (0, 0)), "constant").shape == (2, 1)
assert mx.np.array([True, False]).any()
x = mx.nd.ones((2, 3))
import mxnet.test_utils
mxnet.test_utils.assert_almost_equal(x, x)
"""
    )


def test_names_removed_from_numpy_work_inside_gluoncv(tmp_path):
    """GluonCV uses np.float and the versions of distutils."""
    package = tmp_path / "gluoncv"
    package.mkdir()
    (package / "__init__.py").write_text("from . import anchor")
    (package / "anchor.py").write_text(
        """
from distutils.version import LooseVersion
import numpy as np
sizes = np.array([1], dtype=np.float)
new = LooseVersion("1.9.1") >= LooseVersion("1.4.0")
"""
    )
    out = python(
        f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
{WITH_MXNET}
from gluoncv import anchor
print(anchor.sizes.dtype, anchor.new)
assert "float" not in set(dir(numpy)) - before
"""
    )
    assert out == "float64 True\n"


def test_record_with_an_array_as_label_is_packed_and_unpacked():
    python(
        WITH_MXNET
        + """
head = mx.recordio.IRHeader(0, [2.0, 5.0, 0.25], 7, 0)
head, image = mx.recordio.unpack(mx.recordio.pack(head, b"jpeg"))
assert head.id == 7 and head.label.tolist() == [2, 5, 0.25] and image == b"jpeg"
"""
    )


def test_mxnet_that_the_caller_imported_is_used():
    """The module is unchanged, except that ndarray.tostring works."""
    python(
        """
import warnings
import numpy
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    try:
        import mxnet
    except (AttributeError, ImportError):  # this NumPy or Python is too new for MXNet alone
        raise SystemExit
from cvops._mxnet import mxnet as get
assert get() is mxnet
mxnet.recordio.pack(mxnet.recordio.IRHeader(0, [1.0], 0, 0), b"")
"""
    )


def test_error_without_mxnet_says_what_to_install():
    out = python(
        """
import importlib.machinery, sys
from cvops._mxnet import mxnet
class Hide(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name == "mxnet" else super().find_spec(name, path, target)
sys.meta_path[:] = [f for f in sys.meta_path if f is not importlib.machinery.PathFinder] + [Hide]
try:
    mxnet()
except ImportError as error:
    print(error)
"""
    )
    assert 'pip install "cvops[mxnet]"' in out
