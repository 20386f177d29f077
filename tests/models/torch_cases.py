"""Networks of Gluon with parameters that differ from their initial values."""

from cvops._mxnet import mxnet

mx = mxnet()


def with_statistics(net, *inputs):
    """Initialize a network; its batch normalizations get the statistics of the inputs."""
    mx.random.seed(0)
    net.initialize(mx.init.Xavier())
    with mx.autograd.train_mode():
        net(*map(mx.nd.array, inputs))
    for name, parameter in net.collect_params().items():
        if name.endswith(("gamma", "beta")) and parameter.grad_req != "null":
            parameter.set_data(parameter.data() + mx.nd.random.uniform(-0.2, 0.2, parameter.shape))
    return net
