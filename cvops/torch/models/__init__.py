"""The networks of :mod:`cvops.models` as modules of PyTorch, which load the parameters of Gluon's.

They need neither MXNet nor Gluon.
"""

from cvops.torch.models.fcn import FCN as FCN
from cvops.torch.models.rcnn import FasterRCNN as FasterRCNN
from cvops.torch.models.rcnn import FastRCNN as FastRCNN
from cvops.torch.models.saved import load_parameters as load_parameters
from cvops.torch.models.tiny_ssd import TinySSD as TinySSD
