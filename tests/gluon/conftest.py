import pytest


@pytest.fixture(scope="session")
def operators(mx):
    """The module ``cvops.mxnet``, which registers the operators."""
    import cvops.mxnet

    return cvops.mxnet
