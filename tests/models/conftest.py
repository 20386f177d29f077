import pytest


@pytest.fixture(scope="session")
def operators():
    """Skip the test if the operators for MXNet cannot be built."""
    try:
        import cvops.mxnet  # noqa: F401
    except ImportError as error:
        pytest.skip(str(error))


@pytest.fixture(params=["mxnet", "cvops"])
def ops(request):
    """The set of operators that a network uses."""
    if request.param == "cvops":
        request.getfixturevalue("operators")
    return request.param
